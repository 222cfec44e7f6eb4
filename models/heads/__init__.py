"""Small trained models on features, one module per kind. The table of kinds is `registry.py`."""
