"""Training of detectors: scenes made on the fly, what each cell of a map has to answer, and the losses."""
