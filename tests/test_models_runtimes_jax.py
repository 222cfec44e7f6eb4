"""JAX under Keras gives the features and the labels that TensorFlow gives, as near as its rounding allows."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_models_backbones import write_npz

from models.backbones.shape import FaceVggShape
from models.runtimes.device import Device
from models.runtimes.feature_settings import FeatureSettings

ROOT = Path(__file__).parents[1]
COUNT = 1200
CLASSES = 7

SCRIPT = """
import sys
import numpy as np
from models.runtimes.device import Device
from models.runtimes.default import default_runtime
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.registry import runtime
if sys.argv[4] == "mirrored":
    assert default_runtime() == "tensorflow"
    runtime("jax").claim()  # the tests' modules import Keras
assert default_runtime() == "jax"
from test_models_runtimes_jax import features
made = features(sys.argv[1], sys.argv[2], flip_average=sys.argv[4] == "mirrored", runtime="jax")
assert "jax" in sys.modules and "tensorflow" not in sys.modules, "another runtime was loaded"
np.save(sys.argv[3], made)
"""


def pictures() -> np.ndarray:
    """Returns (n, 48, 48, 1) uint8: coarse squares with some noise."""
    draw = np.random.default_rng(21)
    coarse = np.kron(draw.integers(0, 200, (COUNT, 6, 6, 1)), np.ones((1, 8, 8, 1)))
    return (coarse + draw.integers(0, 56, coarse.shape)).astype(np.uint8)


def features(weights: str, precision: str, *, flip_average: bool = False, runtime: str = "tensorflow") -> np.ndarray:
    """Returns what a runtime makes of the pictures, the last batch not full."""
    chosen = FeatureSettings(
        "face_vgg",
        weights,
        "multi",
        48,
        48,
        batch_size=64,
        precision=precision,
        flip_average=flip_average,
        flip_cut=0.0625,
        runtime=runtime,
    )
    device = Device(chosen)
    images = pictures()
    return np.concatenate([device.features(images[n : n + 64]) for n in range(0, COUNT, 64)])


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX: pip install jax")
@pytest.mark.parametrize("kind", ["plain", "mirrored"])
def test_features_and_labels_agree_with_tensorflow(tmp_path: Path, kind: str) -> None:
    weights = str(write_npz(tmp_path / "w.npz"))
    environment = {
        **os.environ,
        "KERAS_BACKEND": "" if kind == "mirrored" else "jax",  # chosen by features.runtime, or by Keras's own variable
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    command = [sys.executable, "-c", SCRIPT, weights, "float32", str(tmp_path / "jax.npy"), kind]
    other = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    ours = features(weights, "float32", flip_average=kind == "mirrored").astype(np.float64)
    _, reported = other.communicate(timeout=300)
    assert other.returncode == 0, reported[-2000:]
    theirs = np.load(tmp_path / "jax.npy").astype(np.float64)
    assert theirs.shape == ours.shape == (COUNT, sum(FaceVggShape().widths))
    assert np.allclose(theirs, ours, rtol=1e-3, atol=1e-3)  # the last bit of float16 is a thousandth
    head = np.random.default_rng(2).normal(0, 1, (ours.shape[1], CLASSES))
    spread = ours.std(0) + 1e-3
    labels, others = (((f - ours.mean(0)) / spread @ head).argmax(1) for f in (ours, theirs))
    assert len(set(labels.tolist())) == CLASSES
    assert (labels == others).mean() >= 0.999
