"""What the user drives: commands, settings, the graph, progress and closing words."""

__version__ = "0.2.0"
