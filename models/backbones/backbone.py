"""What the rest of the program has to know of a network before it is built."""

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
    """A backbone cannot be built as asked; the message names the setting and the cure."""


@dataclass(frozen=True)
class Backbone:
    """What the rest of the program has to know of a network before it is built.

    Attributes:
        name: the word used in settings.
        channels: 1 for grey, 3 for RGB: what the crops must have.
        native_size: (height, width) in pixels that the weights were trained at.
        smallest_size: the least height or width that does not collapse to nothing.
        preprocess: what happens to uint8 pixels inside the compiled function.
        build: (height, width, file of the weights or None) -> a Keras model from float images to the list of block
            outputs.
        bundled: the file with our own weights, where we ship some.
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
        """Raises BackboneError for crops of which the last block's map would have no pixel."""
        if min(height, width) < self.smallest_size:
            raise BackboneError(
                f"features.input_size={height}x{width} is too small: {self.name} needs {self.smallest_size} at least"
            )

    def weights_path(self, weights: str) -> Path:
        """Returns the file that `weights` means: `bundled`, `imagenet` or a path.

        Raises:
            BackboneError: there is none; says where it was looked for and what to do.
        """
        if weights == "bundled":
            if self.bundled is None:
                raise BackboneError(
                    f"no weights ship for {self.name}: set features.weights to a path, imagenet or random"
                )
            path = self.bundled
        elif weights == "imagenet":
            if self.imagenet is None:
                raise BackboneError(f"there are no ImageNet weights for {self.name}: give features.weights a path")
            path = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models" / self.imagenet
        else:
            path = Path(weights)
        if not path.is_file():
            raise BackboneError(
                f"features.weights={weights}: no file {path}; nothing is downloaded, so put it there or give its path"
            )
        return path


@contextmanager
def channels_last() -> Iterator[None]:
    """Networks are built for (height, width, channels), whatever the user's keras.json says."""
    import keras

    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


@contextmanager
def faults_of(path: Path, network: str) -> Iterator[None]:
    """Turns what a file of other weights, or a damaged one, raises into one line."""
    try:
        yield
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        fault = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(f"{path} does not hold weights of {network}: {fault}; give another file") from error
