"""Where the faces of an image are. `registry.py` lists the detectors.

Not here: squares around faces (`models/boxes.py`) and their pixels (`cropping.py`).
Cheap to import: OpenCV and runtimes are loaded with the detector that needs them.
"""

from models.detectors.detections import Detections
from models.detectors.options import DetectorError, HaarOptions, OneShotOptions, WholeImageOptions, YuNetOptions
from models.detectors.registry import BUNDLED, DETECTORS, Detector, DetectorSpec

__all__ = [
    "BUNDLED",
    "DETECTORS",
    "Detections",
    "Detector",
    "DetectorError",
    "DetectorSpec",
    "HaarOptions",
    "OneShotOptions",
    "WholeImageOptions",
    "YuNetOptions",
]
