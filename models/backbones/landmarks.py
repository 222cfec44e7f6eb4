"""The network that finds 68 landmarks in a face, for networks that look at places: layers, and their weights in a file.

Points are in the order of 300-W (Sagonas et al. 2013): 0-16 jaw, 17-26 brows, 27-35 nose, 36-47 eyes, 48-67 mouth. The
network is our own, trained by `tests/benchmarks/landmarks.py`; `models/weights/landmarks.json` says how well it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.backbones.backbone import Misfit
from models.backbones.keras_files import compare_shapes

if TYPE_CHECKING:
    import keras

BUNDLED_LANDMARKS = Path(__file__).parents[1] / "weights" / "landmarks.npz"
POINTS = 68
SIDE = 48  # pixels of the square that the network sees, whatever the size of the crop
WIDTHS = (16, 32, 64, 96)  # channels of its convolutions, each followed by a 2x2 max-pool
HIDDEN = 128
PREFIX = "landmarks_"


def landmark_kernels() -> dict[str, tuple[int, ...]]:
    """Returns the shape of each kernel by the name of its layer, starting at the image."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 1
    for number, width in enumerate(WIDTHS, 1):
        shapes[f"{PREFIX}conv{number}"] = (3, 3, channels, width)
        channels = width
    last = (SIDE >> len(WIDTHS)) ** 2 * channels
    return shapes | {f"{PREFIX}hidden": (last, HIDDEN), f"{PREFIX}points": (HIDDEN, 2 * POINTS)}


def find_points(unit: Any, *, trainable: bool = False) -> Any:
    """Returns (n, 68, 2) x and y of the landmarks, in shares of the width and the height of the image.

    Args:
        unit: (n, height, width, 1) Keras tensor of grey pixels from 0 to 1.
        trainable: False for layers that keep their weights while the rest is trained.
    """
    import keras

    kinds: dict[str, Any] = {"dtype": "float32", "trainable": trainable}
    x = unit
    if tuple(unit.shape[1:3]) != (SIDE, SIDE):
        x = keras.layers.Resizing(SIDE, SIDE, dtype="float32", name=f"{PREFIX}size")(x)
    for number, width in enumerate(WIDTHS, 1):
        name = f"{PREFIX}conv{number}"
        x = keras.layers.Conv2D(
            width, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=name, **kinds
        )(x)
        x = keras.layers.MaxPooling2D(dtype="float32", name=f"{PREFIX}pool{number}")(x)
    x = keras.layers.Flatten(dtype="float32", name=f"{PREFIX}flat")(x)
    x = keras.layers.Dense(HIDDEN, activation="relu", kernel_initializer="he_normal", name=f"{PREFIX}hidden", **kinds)(
        x
    )
    x = keras.layers.Dense(
        2 * POINTS, bias_initializer=keras.initializers.Constant(0.5), name=f"{PREFIX}points", **kinds
    )(x)
    return keras.layers.Reshape((POINTS, 2), dtype="float32", name=f"{PREFIX}xy")(x)


def landmark_network() -> keras.Model:
    """Returns the network alone, for training: (n, 48, 48, 1) uint8 -> (n, 68, 2) shares of the side."""
    import keras

    image = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="image")
    unit = keras.layers.Rescaling(1 / 255, dtype="float32", name="unit")(image)
    return keras.Model(image, find_points(unit, trainable=True), name="landmarks")


def landmark_arrays(network: keras.Model) -> dict[str, np.ndarray]:
    """Returns the weights of the landmark layers of a network as float16, by name."""
    arrays: dict[str, np.ndarray] = {}
    for layer in landmark_kernels():
        for part, value in zip(("kernel", "bias"), network.get_layer(layer).get_weights(), strict=True):
            arrays[f"{layer}/{part}"] = np.asarray(value).astype(np.float16)
    return arrays


def check_landmarks(stored: Mapping[str, np.ndarray]) -> None:
    """Raises Misfit if a file lacks the landmark layers, or has others."""
    for layer, shape in landmark_kernels().items():
        for part, wanted in (("kernel", shape), ("bias", shape[-1:])):
            if f"{layer}/{part}" not in stored:
                raise Misfit(f"{layer}/{part} is missing")
            compare_shapes(f"{layer}/{part}", stored[f"{layer}/{part}"].shape, wanted)


def set_landmarks(network: keras.Model, path: Path) -> None:
    """Sets the landmark layers of a network to the weights of a file.

    Raises:
        Misfit: the file has no such layers.
    """
    with np.load(path, allow_pickle=False) as stored:
        check_landmarks(stored)
        for layer in landmark_kernels():
            parts = (stored[f"{layer}/{part}"].astype(np.float32) for part in ("kernel", "bias"))
            network.get_layer(layer).set_weights(list(parts))
