"""A backbone: a network described before it is built, and how to build, load, train and save it.

A family of networks is a subclass in a file of its own. Nothing here imports Keras or anything that trains before a
network is built.
"""

from __future__ import annotations

import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from models.backbones.preprocess import PREPROCESSES, Preprocess
from models.backbones.shape import FaceVggShape

if TYPE_CHECKING:
    import keras

    from models.backbones.convolutions import ConvolutionBlock  # it needs NumPy, this module must not


POOLINGS = ("avg", "multi", "flatten")


class BackboneError(ValueError):
    """A backbone cannot be built with these settings; the message names the setting and the cure."""


class Misfit(Exception):
    """A file of weights does not fit the network; the message is a clause."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is built for training.

    Attributes:
        shape: widths and depth, for a family that has several.
        size: (height, width) of the images, in pixels.
        dropout: rate after each block of face_vgg; `top_dropout` is the rate before the classifiers.
        statistics_momentum: of the normalisation's running mean and variance.
        augment: Keras layers applied to the pixels, active only in training; the last ones may crop and reduce.
        seed: of the dropout.
        dtype: a Keras policy; `mixed_bfloat16` halves the time on processors that support it.
    """

    shape: FaceVggShape = field(default_factory=FaceVggShape)
    size: tuple[int, int] = (48, 48)
    dropout: float = 0.0
    top_dropout: float = 0.3
    statistics_momentum: float = 0.99
    augment: Sequence[Any] = ()
    seed: int = 0
    dtype: str = "float32"


@dataclass(frozen=True)
class Backbone(ABC):
    """A network, described before it is built.

    Inference: `build`, then `load`. Training: `build_for_training`, `start_from`, and `save` at the end.

    Attributes:
        name: its name in settings.
        channels: of the crops, 1 for grey or 3 for RGB.
        native_size: (height, width) in pixels at which the weights were trained.
        smallest_size: the smallest height or width at which the last block's map still has a pixel.
        preprocess: the map of uint8 pixels inside the compiled function.
        bundled: the file with our own weights, if we ship any.
        imagenet: the name of Keras's file of ImageNet weights, if there is one.
        is_convolutional: True if `convolutions` describes all of it, so that runtimes without Keras can run it.
    """

    is_convolutional: ClassVar[bool] = False
    name: str
    channels: int
    native_size: tuple[int, int]
    smallest_size: int
    preprocess: Preprocess
    bundled: Path | None = None
    imagenet: str | None = None

    @abstractmethod
    def build(self, height: int, width: int, weights: Path | None = None) -> keras.Model:
        """Returns the network for inference: (n, height, width, channels) float -> the list of block outputs.

        Args:
            weights: a file that may state the network's shape. It is not loaded.
        """

    @property
    def revision(self) -> int:
        """Part of the feature space: goes up when the network computes other numbers."""
        return 2

    def load(self, network: keras.Model, path: Path) -> None:
        """Sets the weights of a network from `build` to those of a file."""
        network.load_weights(str(path))

    @abstractmethod
    def check_file(self, path: Path) -> None:
        """Raises Misfit if names and shapes in a file of weights show that it is of another network."""

    def preprocess_named(self, name: str | None) -> Preprocess:
        """Returns the preprocessing of that name; None is the network's own.

        Raises:
            BackboneError: the name is unknown, or the preprocessing is for colour and this network takes grey.
        """
        if name is None:
            return self.preprocess
        if name not in PREPROCESSES:
            raise BackboneError(f"features.preprocess={name} is not one of {', '.join(PREPROCESSES)}")
        found = PREPROCESSES[name]
        if self.channels == 1 and len(found.mean) > 1:
            raise BackboneError(f"features.preprocess={name} is for colour, but {self.name} takes grey crops")
        return found

    def convolutions(self, path: Path) -> list[ConvolutionBlock]:
        """Returns the network for inference as arrays, with the weights of a file, for runtimes without Keras.

        Raises:
            BackboneError: this family is not made of 3x3 convolutions, or the file has a layout that only Keras reads.
        """
        raise BackboneError(f"{self.name} needs Keras; set features.runtime to tensorflow or jax")

    @abstractmethod
    def build_for_training(self, tasks: Mapping[str, int], options: TrainingOptions) -> keras.Model:
        """Returns the network for training: (n, height, width, channels) uint8 -> dict of (n, classes) float32 logits.

        Its layer `features` is the mean of the last block's map, which is pooling `avg`. The classifiers follow it.

        Args:
            tasks: number of classes of each output, by its name.

        Raises:
            BackboneError: the images are too small.
        """

    @abstractmethod
    def start_from(self, trained: keras.Model, path: Path) -> None:
        """Sets a network from `build_for_training` to the weights of a file from `save`.

        Raises:
            BackboneError: the file does not hold weights of this network.
        """

    @abstractmethod
    def save(self, trained: keras.Model) -> bytes:
        """Returns the file of weights of a network from `build_for_training`, as `load` and `start_from` take it."""

    @property
    def keras_name(self) -> str:
        """The function of `keras.applications` that builds it, "" if there is none."""
        return ""

    def check_size(self, height: int, width: int) -> None:
        """Raises BackboneError for crops so small that the last block's map would have no pixel."""
        if min(height, width) < self.smallest_size:
            raise BackboneError(
                f"features.input_size={height}x{width} is too small for {self.name}; use {self.smallest_size} or more"
            )

    def weights_path(self, weights: str) -> Path:
        """Returns the file that `weights` means: `bundled`, `imagenet` or a path.

        Raises:
            BackboneError: there is no such file; the message names the expected path and the cure.
        """
        if weights == "bundled":
            if self.bundled is None:
                raise BackboneError(
                    f"there are no bundled weights for {self.name}; set features.weights to a path, imagenet or random"
                )
            path = self.bundled
        elif weights == "imagenet":
            if self.imagenet is None:
                raise BackboneError(f"there are no ImageNet weights for {self.name}; set features.weights to a path")
            path = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models" / self.imagenet
        else:
            path = Path(weights)
        if not path.is_file():
            how = "put it there or give its path"
            if weights == "imagenet":
                fetch = f"import keras; keras.applications.{self.keras_name}(include_top=False)"
                how = (
                    f"fetch it on another machine by python -c '{fetch}', which leaves it in ~/.keras/models, and {how}"
                )
            raise BackboneError(f"features.weights={weights}: no file {path}; nothing is downloaded, so {how}")
        return path


@contextmanager
def channels_last() -> Iterator[None]:
    """Within it, networks are built for (height, width, channels), whatever the user's keras.json says."""
    import keras

    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


@contextmanager
def faults_of(path: Path, network: str) -> Iterator[None]:
    """Turns the errors of a damaged file, or of another network's weights, into one line."""
    try:
        yield
    except BackboneError:
        raise
    except (Misfit, ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        fault = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(f"{path} does not hold weights of {network}: {fault}; give another file") from error
