"""What may be set, where it is read from, and which results it changes. Imports neither Beam nor a network."""
