"""What Keras's backends share as runtimes: a process has one of them, chosen before Keras is imported."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from models.backbones.features import build_features
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.runtime import Runtime, RuntimeUnavailable


class KerasRuntime(Runtime):
    """A backend of Keras."""

    def claim(self) -> None:
        """Sets `KERAS_BACKEND` unless Keras is there already."""
        if "keras" not in sys.modules:
            os.environ["KERAS_BACKEND"] = self.name

    def start(self) -> None:
        """Imports the backend and Keras on it."""
        self.check_installed()
        self.claim()
        with self.loading():
            self._import()
            import keras
        if keras.backend.backend() != self.name:
            raise RuntimeUnavailable(
                f"features.runtime={self.name}: this process already computes on {keras.backend.backend()}; "
                f"set KERAS_BACKEND={self.name} before it starts"
            )

    def _import(self) -> None:
        importlib.import_module(self.package)


def network_of(settings: FeatureSettings) -> Any:
    """Returns the Keras model of the settings: preprocessing, backbone and pooling."""
    return build_features(
        settings.backbone,
        settings.weights,
        pooling=settings.pooling,
        size=(settings.height, settings.width),
        precision=settings.precision,
        seed=settings.seed,
        flip_average=settings.flip_average,
        flip_cut=settings.flip_cut,
        preprocess=settings.preprocess,
    )
