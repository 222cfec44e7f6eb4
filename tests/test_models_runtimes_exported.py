"""ONNX Runtime and OpenVINO: TensorFlow's features, the same bits whatever the batch, and no Keras in the process."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
import runs
from test_models_backbones import crops, write_npz

from models.backbones.backbone import BackboneError
from models.backbones.registry import BACKBONES
from models.runtimes import exported
from models.runtimes.device import Device
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.registry import RUNTIMES, runtime

ROOT = Path(__file__).parents[1]
EXPORTED = sorted(name for name, one in RUNTIMES.items() if isinstance(one, exported.ExportedRuntime))
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs OpenVINO: pip install openvino"
)
each_runtime = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_openvino if name == "openvino" else ()) for name in EXPORTED]
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of weights by backbone: VGG16's in both layouts of Keras."""
    place = tmp_path_factory.mktemp("weights")
    network = BACKBONES["vgg16"].build(32, 32)
    network.save_weights(place / "vgg16.weights.h5")
    network.save(place / "vgg16.keras")
    own = str(write_npz(place / "w.npz"))
    return {"face_vgg": own, "vgg16": str(place / "vgg16.weights.h5"), "vgg16.keras": str(place / "vgg16.keras")}


def settings(weights: dict[str, str], name: str, kind: str = "face_vgg", **other: Any) -> FeatureSettings:
    given: dict[str, Any] = {"pooling": "multi", "height": 48, "width": 48, "batch_size": 8, **other}
    return FeatureSettings(kind.removesuffix(".keras"), weights[kind], runtime=name, **given)


MIRRORED = {"flip_average": True, "flip_cut": 0.0625}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "as shipped": ("face_vgg", MIRRORED),
    "odd sides": ("face_vgg", {"height": 37, "width": 51}),
    "flattened": ("face_vgg", {"pooling": "flatten", "height": 40, "width": 48}),
    "mirrored, nothing cut": ("face_vgg", {"flip_average": True, "pooling": "avg"}),
    "mirrored, odd sides, much cut": ("face_vgg", {"flip_average": True, "flip_cut": 0.2, "height": 37, "width": 51}),
    "vgg16, odd sides": ("vgg16", {"height": 37, "width": 51}),
    "vgg16, pixels from 0 to 1": ("vgg16", {"height": 37, "width": 51, "preprocess": "unit"}),
    "vgg16.keras, flattened, mirrored": ("vgg16.keras", {"pooling": "flatten", "flip_average": True, "flip_cut": 0.1}),
}


@each_runtime
@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_tensorflow(weights: dict[str, str], name: str, case: str) -> None:
    kind, other = CASES[case]
    chosen = settings(weights, name, kind, **other)
    images = crops(11, chosen.height, chosen.width, BACKBONES[chosen.backbone].channels)
    ours, theirs = (
        np.concatenate([device.features(images[:8]), device.features(images[8:])]).astype(np.float64)
        for device in (Device(chosen), Device(settings(weights, "tensorflow", kind, **other)))
    )
    assert ours.shape == theirs.shape
    assert len({row.tobytes() for row in ours}) == 11
    assert np.allclose(ours, theirs, rtol=2e-3, atol=2e-3 * np.abs(theirs).max())  # float16 has one part in a thousand


@each_runtime
@pytest.mark.parametrize("case", ["as shipped", "odd sides", "vgg16, odd sides"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_are_the_same_bits_for_any_batch_neighbours_and_threads(
    monkeypatch: pytest.MonkeyPatch, weights: dict[str, str], name: str, case: str, precision: str
) -> None:
    if precision not in runtime(name).precisions:
        pytest.skip(f"{name} has no {precision}")
    kind, other = CASES[case]
    chosen = functools.partial(settings, weights, name, kind, precision=precision, **other)
    images = crops(24, chosen().height, chosen().width, BACKBONES[chosen().backbone].channels)
    small = Device(chosen())
    alone = np.concatenate([small.features(images[n : n + 1]) for n in range(24)])
    order = np.random.default_rng(1).permutation(24)
    for batch_size, threads in ((1, 1), (1, 2), (2, 2), (3, 1), (4, 2), (8, 1), (8, 3), (32, 1), (32, 2)):
        monkeypatch.setattr(f"models.runtimes.{name}.cores", lambda threads=threads: threads)
        sized = Device(chosen(batch_size=batch_size))
        parts = [sized.features(images[order[n : n + batch_size]]) for n in range(0, 24, batch_size)]
        assert np.array_equal(np.concatenate(parts), alone[order]), (batch_size, threads)


@each_runtime
def test_calls_at_the_same_time_give_the_same_bits(weights: dict[str, str], name: str) -> None:
    images = crops(24, 48, 48, 1)
    one, many = (Device(settings(weights, name, batch_size=1, at_once=calls, **MIRRORED)) for calls in (1, 3))
    alone = np.concatenate([one.features(images[n : n + 1]) for n in range(24)])
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(lambda n: many.features(images[n : n + 1]), list(range(24)) * 3))
    assert np.array_equal(np.concatenate(rows), np.tile(alone, (3, 1)))


@each_runtime
def test_a_crop_and_its_mirror_image_have_the_same_mirrored_bits(weights: dict[str, str], name: str) -> None:
    images = crops(8, 48, 48, 1)
    turned = np.ascontiguousarray(images[:, :, ::-1])
    device = Device(settings(weights, name, flip_average=True))
    assert np.array_equal(device.features(images), device.features(turned))


@needs_openvino
def test_bfloat16_is_near(weights: dict[str, str]) -> None:
    images = crops(8, 48, 48, 1)
    exact, near = (
        Device(settings(weights, "openvino", precision=precision)).features(images).astype(np.float64)
        for precision in ("float32", "bfloat16")
    )
    assert not np.array_equal(near, exact)
    assert np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


@each_runtime
def test_devices_are_named(name: str) -> None:
    runtime(name).start()
    assert all(isinstance(device, str) and device for device in runtime(name).devices())


# --- what is refused --------------------------------------------------------------------------------------------------


@each_runtime
def test_what_only_keras_can_do_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    random = FeatureSettings("face_vgg", "random", "avg", 48, 48, runtime=name)
    with pytest.raises(BackboneError, match=rf"random are drawn by Keras, which features\.runtime={name} does without"):
        runtime(name).check(random)
    BACKBONES["face_vgg"].build(16, 16).save_weights(tmp_path / "own.weights.h5")
    with pytest.raises(BackboneError, match=r"own\.weights\.h5 can only be read by Keras; set features\.runtime"):
        Device(FeatureSettings("face_vgg", str(tmp_path / "own.weights.h5"), "avg", 16, 16, runtime=name))


def test_weights_of_another_network_are_refused_by_name(weights: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"w\.npz does not hold weights of vgg16: "):
        Device(FeatureSettings("vgg16", weights["face_vgg"], "avg", 32, 32, runtime="onnx"))
    (tmp_path / "w.npz").write_bytes(Path(weights["face_vgg"]).read_bytes()[:9000])
    with pytest.raises(BackboneError, match=r"w\.npz does not hold weights of face_vgg: "):
        Device(FeatureSettings("face_vgg", str(tmp_path / "w.npz"), "avg", 48, 48, runtime="onnx"))


def test_a_precision_that_onnx_runtime_lacks_ends_a_run_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--set", "features.runtime=onnx", "features.precision=bfloat16"]
    assert runs.main(["--input", str(tmp_path / "nothing"), "--output", str(tmp_path / "out"), *chosen]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "features.precision=bfloat16 is not one of float32, which features.runtime=onnx computes in" in line


# --- what is loaded ---------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pipeline.cli import main
status = main(sys.argv[1:])
print("loaded:", sorted({"tensorflow", "keras", "jax"} & set(sys.modules)), file=sys.stderr)
sys.exit(status)
"""


@each_runtime
def test_a_run_loads_neither_tensorflow_nor_keras(tmp_path: Path, name: str) -> None:
    source = pictures.write_folder(tmp_path / "faces", runs.faces(12, side=48))
    words = ["--runner=DirectRunner", "--input", str(source), "--output", str(tmp_path / "out"), "--quiet"]
    chosen = ["--set", f"features.runtime={name}", "faces.detector=none"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": ""}
    command = [sys.executable, "-c", SCRIPT, *words, *chosen]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=runs.PATIENCE_S, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stderr.splitlines()[-1] == "loaded: []"
    assert len(runs.submission(tmp_path / "out")) == 13


@pytest.mark.skipif(sys.platform == "win32", reason="no stacks for signals there")
@each_runtime
def test_engines_leave_the_stack_for_signals_alone(weights: dict[str, str], name: str) -> None:
    """A stack that goes with the engine leaves Ctrl-C without one: the process crashes."""
    before = stack_for_signals()
    engines = [Device(settings(weights, name)) for _ in range(2)]
    for engine in engines:
        engine.features(crops(3, 48, 48, 1))
    assert stack_for_signals() == before
    while engines:
        engines.pop(0)
        assert stack_for_signals() == before


def stack_for_signals() -> tuple[int | None, int]:
    """Address and size of the stack on which this thread answers signals."""

    class Stack(ctypes.Structure):
        _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address, stack.size
