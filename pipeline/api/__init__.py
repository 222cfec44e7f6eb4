"""The program as Python functions and objects. Importing it imports neither Beam nor a runtime."""

from pipeline.api.calls import evaluate, label, train_head
from pipeline.api.face_labeler import FaceLabeler
from pipeline.api.faces import Box, Face, LabelledImage
from pipeline.api.results import Evaluation, Run, TrainedHead
from pipeline.errors import Interrupted, PipelineError, RejectedImage, StoppedError, UsageError
from pipeline.settings.load import SettingsError, load_settings
from pipeline.settings.schema import Settings

__all__ = [
    "Box",
    "Evaluation",
    "Face",
    "FaceLabeler",
    "Interrupted",
    "LabelledImage",
    "PipelineError",
    "RejectedImage",
    "Run",
    "Settings",
    "SettingsError",
    "StoppedError",
    "TrainedHead",
    "UsageError",
    "evaluate",
    "label",
    "load_settings",
    "train_head",
]
