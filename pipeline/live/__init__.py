"""Frames in, boxes and labels above faces out: a file a part of the loop. Nothing here imports Beam or a runtime."""
