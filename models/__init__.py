"""Networks, detectors and heads: arrays in, arrays out. Knows neither Beam nor image files."""
