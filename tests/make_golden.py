"""Writes golden_features.npz: what the networks made of fixed pictures, with weights drawn from a seed.

Run it after a change that is meant to change features, together with a higher `REVISION` in
`models/backbones/backbone.py` or `models/runtimes/device.py`: python tests/make_golden.py
The weights are drawn by NumPy, so that the file is the same for every backend and every version of Keras.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("golden_features.npz")
CASES = {  # name: backbone, pooling, (height, width)
    "face_vgg_multi_48x48": ("face_vgg", "multi", (48, 48)),
    "face_vgg_flatten_32x48": ("face_vgg", "flatten", (32, 48)),
    "vgg16_multi_48x48": ("vgg16", "multi", (48, 48)),
}


def pictures_of(height: int, width: int, channels: int) -> np.ndarray:
    """Returns (3, height, width, channels) uint8: a ramp, coarse squares and noise."""
    draw = np.random.default_rng(11)
    rows, columns = np.mgrid[0:height, 0:width]
    ramp = np.repeat(((rows * 3 + columns * 2) % 256)[..., None], channels, axis=2)
    squares = np.kron(draw.integers(0, 256, (4, 4, channels)), np.ones((height // 4, width // 4, 1)))
    noise = draw.integers(0, 256, (height, width, channels))
    return np.stack([ramp, squares, noise]).astype(np.uint8)


def write_weights(name: str, size: tuple[int, int], path: Path) -> None:
    """Writes weights drawn from a seed, scaled so that features neither vanish nor grow from layer to layer."""
    from models.backbones.registry import BACKBONES

    network = BACKBONES[name].build(*size)
    draw = np.random.default_rng(12)
    for layer in network.layers:
        if layer.get_weights():
            kernel, bias = layer.get_weights()
            spread = (2 / np.prod(kernel.shape[:-1])) ** 0.5
            layer.set_weights(
                [
                    draw.normal(0, spread, kernel.shape).astype(np.float32),
                    draw.normal(0, 0.1, bias.shape).astype(np.float32),
                ]
            )
    network.save_weights(path)


def features() -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name of each case, and what the device of this process makes of it."""
    from models.backbones.registry import BACKBONES
    from models.runtimes.device import Device
    from models.runtimes.feature_settings import FeatureSettings

    with tempfile.TemporaryDirectory() as folder:
        for case, (name, pooling, (height, width)) in CASES.items():
            weights = Path(folder) / f"{case}.weights.h5"
            write_weights(name, (height, width), weights)
            device = Device(FeatureSettings(name, str(weights), pooling, height, width, batch_size=8))
            yield case, device.features(pictures_of(height, width, BACKBONES[name].channels))


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **dict(features()))
    sys.stdout.write(f"{GOLDEN}: {GOLDEN.stat().st_size:,} bytes\n")
