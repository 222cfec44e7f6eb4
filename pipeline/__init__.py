"""What users run: commands, settings, the graph, progress and the closing summary."""

__version__ = "0.2.0"
