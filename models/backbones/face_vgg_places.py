"""A `face_vgg` that also looks at places: attention around action units, regions around them, or a grid of regions.

Landmarks are found by a network of our own inside the compiled function: pixels go in, features come out. Its weights
stay as they are in training and lie in the file of weights beside the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from models.backbones.action_units import even_centres
from models.backbones.backbone import BackboneError, Misfit, TrainingOptions
from models.backbones.convolutions import ConvolutionBlock
from models.backbones.face_vgg import FaceVgg
from models.backbones.landmarks import (
    BUNDLED_LANDMARKS,
    check_landmarks,
    find_points,
    landmark_arrays,
    set_landmarks,
)
from models.backbones.looks import AttentionLooks, Looks, RegionLooks

if TYPE_CHECKING:
    import keras

REGION_ARRAYS = ("regions/kernel", "regions/bias")


@dataclass(frozen=True)
class FaceVggPlaces(FaceVgg):
    """A `face_vgg` with attention or regions.

    Attributes:
        looks_at: `attention` (EAC-Net's map, joined at blocks 3 and 4), `regions` (cut around the action units, each
            with a convolution of its own) or `grid` (the same at places that do not depend on the face, as a locally
            connected layer has them).
    """

    is_convolutional = False
    looks_at: Literal["attention", "regions", "grid"] = "attention"

    @property
    def revision(self) -> int:
        """Part of the feature space; regions sum the taps of their convolutions in another order since 3."""
        return 2 if self.looks_at == "attention" else 3

    @property
    def landmarks(self) -> Path | None:
        """The weights of the landmark network from which a training starts; None if it needs none."""
        return None if self.looks_at == "grid" else BUNDLED_LANDMARKS

    def _looks(self, unit: Any, blocks: int) -> Looks:
        from models.backbones.region_layers import ActionUnitCentres, FixedCentres

        if self.looks_at == "grid":
            return RegionLooks(FixedCentres(even_centres(), name="centres")(unit), blocks)
        centres = ActionUnitCentres(name="centres")(find_points(unit))
        return AttentionLooks(centres) if self.looks_at == "attention" else RegionLooks(centres, blocks)

    def check_extras(self, stored: Mapping[str, np.ndarray]) -> None:
        """Raises Misfit unless a file holds the landmark layers and the regions of this network, and no more."""
        if self.landmarks is not None:
            check_landmarks(stored)
        regions = self.looks_at != "attention"
        for name in REGION_ARRAYS:
            if (name in stored) != regions:
                raise Misfit(f"{name} is missing" if regions else f"{name} is not part of it")
        if self.landmarks is None and any(name.startswith("landmarks_") for name in stored):
            raise Misfit("it finds landmarks, which this network does not")

    def extras(self, trained: keras.Model) -> dict[str, np.ndarray]:
        """Returns the landmark layers and the regions of a network."""
        arrays = {} if self.landmarks is None else landmark_arrays(trained)
        if self.looks_at != "attention":
            arrays |= dict(zip(REGION_ARRAYS, trained.get_layer("regions").get_weights(), strict=True))
        return arrays

    def convolutions(self, path: Path) -> list[ConvolutionBlock]:
        """Refuses: landmarks and regions are more than 3x3 convolutions."""
        raise BackboneError(f"{self.name} needs Keras; set features.runtime to tensorflow or jax")

    def build_for_training(self, tasks: Mapping[str, int], options: TrainingOptions) -> keras.Model:
        """Returns the network for training; its landmark layers have our weights and are not trained."""
        network = super().build_for_training(tasks, options)
        if self.landmarks is not None:
            set_landmarks(network, self.landmarks)
        return network

    def load(self, network: keras.Model, path: Path) -> None:
        """Loads a file from `save`, or what Keras saved of a network from `build`."""
        super().load(network, path)
        if path.suffix == ".npz":
            self._set_extras(network, path)

    def start_from(self, trained: keras.Model, path: Path) -> None:
        """Sets convolutions to those of a file of this network or of a plain face_vgg, and what more the file holds."""
        super().start_from(trained, path)
        self._set_extras(trained, path)

    def _set_extras(self, network: keras.Model, path: Path) -> None:
        with np.load(path, allow_pickle=False) as stored:
            has_landmarks = any(name.startswith("landmarks_") for name in stored.files)
            has_regions = set(REGION_ARRAYS) <= set(stored.files)
            if has_regions and self.looks_at != "attention":
                values = [stored[name].astype(np.float32) for name in REGION_ARRAYS]
                network.get_layer("regions").set_weights(values)
        if has_landmarks and self.landmarks is not None:
            set_landmarks(network, path)
