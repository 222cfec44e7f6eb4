"""Files that hold many images, a format each. The table of formats is `registry.py`."""
