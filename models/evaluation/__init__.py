"""Metrics of labels, from probabilities and true classes. Arrays in, numbers out."""
