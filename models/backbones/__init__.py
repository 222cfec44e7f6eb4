"""Networks that turn crops into features, one module per family. The table of networks is `registry.py`."""
