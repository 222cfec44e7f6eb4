"""Reads and writes files, as bytes and arrays. Knows neither Beam nor Keras nor `models`."""
