"""How good labels are, from probabilities and true classes. Arrays in, numbers out."""
