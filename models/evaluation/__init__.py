"""How good labels are, from probabilities and true classes: figures, plots, picture sheets and a page. Arrays in."""
