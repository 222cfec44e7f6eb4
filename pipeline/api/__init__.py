"""The program as functions and objects of Python. Importing it imports neither Beam nor a runtime."""

from pipeline.api.face_labeler import FaceLabeler
from pipeline.api.faces import Box, Face, LabelledImage
from pipeline.errors import Interrupted, PipelineError, RejectedImage, StoppedError, UsageError
from pipeline.settings.load import SettingsError, load_settings
from pipeline.settings.schema import Settings

__all__ = [
    "Box",
    "Face",
    "FaceLabeler",
    "Interrupted",
    "LabelledImage",
    "PipelineError",
    "RejectedImage",
    "Settings",
    "SettingsError",
    "StoppedError",
    "UsageError",
    "load_settings",
]
