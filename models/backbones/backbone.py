"""The description of a network that the rest of the program uses before the network is built."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.backbones.preprocess import Preprocess

if TYPE_CHECKING:
    import keras


REVISION = 2  # part of the feature space: raise it when any network here computes other numbers
POOLINGS = ("avg", "multi", "flatten")


class BackboneError(ValueError):
    """A backbone cannot be built with these settings; the message names the setting and the cure."""


@dataclass(frozen=True)
class Backbone:
    """A network, described before it is built.

    Attributes:
        name: its name in settings.
        channels: of the crops, 1 for grey or 3 for RGB.
        native_size: (height, width) in pixels at which the weights were trained.
        smallest_size: the smallest height or width at which the last block's map still has a pixel.
        preprocess: the map of uint8 pixels inside the compiled function.
        build: (height, width, weights file or None) -> a Keras model from float images to the list of block outputs.
        bundled: the file with our own weights, if we ship any.
    """

    name: str
    channels: int
    native_size: tuple[int, int]
    smallest_size: int
    preprocess: Preprocess
    build: Callable[[int, int, Path | None], keras.Model]
    bundled: Path | None = None
    imagenet: str | None = None

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
                fetch = f"import keras; keras.applications.{self.name.upper()}(include_top=False)"
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
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        fault = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(f"{path} does not hold weights of {network}: {fault}; give another file") from error
