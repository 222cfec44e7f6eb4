"""Files in and out, as bytes and arrays. Knows neither Beam nor Keras nor `models`."""
