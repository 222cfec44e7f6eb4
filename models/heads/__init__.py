"""Small trained models on features, a kind each. The table of kinds is `registry.py`."""
