"""Where the faces of an image are. `registry.py` lists the detectors, `options.py` their settings.

Not here: squares around faces (`models/boxes.py`) and their pixels (`cropping.py`). Nothing is imported here, so that
settings need neither numpy nor a runtime.
"""
