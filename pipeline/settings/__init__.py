"""The settings: where they are read from, and which results they change. Imports neither Beam nor a network."""
