"""The file of the cascade's weights: six networks as ONNX and the thresholds that belong to them, in one `.npz`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.detectors.detections import read_model
from models.detectors.options import DetectorError

WEIGHTS = Path(__file__).parents[2] / "weights" / "detectors" / "cascade.npz"
_THRESHOLDS = "thresholds"


@dataclass(frozen=True)
class CascadeWeights:
    """What a cascade consists of.

    Attributes:
        networks: ONNX by name: detect12_2, detect12_4, detect12_8 (by stride), detect24, detect48, calibrate12,
            calibrate24, calibrate48. Levels that are not trained yet are missing.
        thresholds: of the levels' probabilities, as many as there are levels.
    """

    networks: Mapping[str, bytes]
    thresholds: tuple[float, ...]


def write_weights(path: Path, weights: CascadeWeights) -> None:
    """Writes the file; the same bytes for the same weights."""
    arrays = {name: np.frombuffer(data, np.uint8) for name, data in sorted(weights.networks.items())}
    np.savez(path, allow_pickle=False, **{_THRESHOLDS: np.asarray(weights.thresholds)}, **arrays)


def read_weights(path: Path) -> CascadeWeights:
    """Returns what a file holds.

    Raises:
        DetectorError: it cannot be read, or is no file of a cascade.
    """
    read_model(path, "cascade")
    try:
        with np.load(path, allow_pickle=False) as stored:
            networks = {name: stored[name].tobytes() for name in stored.files if name != _THRESHOLDS}
            return CascadeWeights(networks, tuple(float(value) for value in stored[_THRESHOLDS]))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as e:
        raise DetectorError(f"detector cascade: {path} is no file of a cascade's weights") from e


def thresholds_of(model: str | None) -> tuple[float, float, float]:
    """Returns the three thresholds in a file, None for the one that ships; 1 for a level that is not trained yet."""
    first, second, third = (*read_weights(Path(model) if model else WEIGHTS).thresholds, 1.0, 1.0)[:3]
    return first, second, third


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of a file as hex digits."""
    return read_model(path, "cascade")[1]
