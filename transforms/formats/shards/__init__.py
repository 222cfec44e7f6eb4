"""Formats of files that hold many images, one module each. The table of formats is `registry.py`."""
