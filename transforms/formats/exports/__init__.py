"""Formats of other programs that the faces of a finished run are exported to."""
