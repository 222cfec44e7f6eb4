"""Networks that turn crops into features, a family each. The table of networks is `registry.py`."""
