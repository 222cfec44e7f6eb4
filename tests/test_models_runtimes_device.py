"""The compiled extractor: one shape, the same bits whatever the batch, one copy a process."""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_golden
import numpy as np
import pytest

from models.backbones.backbone import BackboneError
from models.runtimes import device as module
from models.runtimes.default import default_runtime
from models.runtimes.device import Device, DeviceOutOfMemory, get_device, weights_digest
from models.runtimes.feature_settings import FeatureSettings

SMALL = FeatureSettings("face_vgg", "random", "multi", 48, 48, batch_size=8)
VGG16 = FeatureSettings("vgg16", "random", "multi", 32, 32, batch_size=8)
MIRRORED = FeatureSettings("face_vgg", "random", "multi", 48, 48, batch_size=8, flip_average=True)
NARROWER = FeatureSettings("face_vgg", "random", "multi", 48, 48, batch_size=8, flip_average=True, flip_cut=0.0625)


@functools.cache
def device(settings: FeatureSettings = SMALL, batch_size: int = 8) -> Device:
    return Device(
        FeatureSettings(**{name: getattr(settings, name) for name in settings.__slots__} | {"batch_size": batch_size})
    )


def crops(count: int, settings: FeatureSettings = SMALL) -> np.ndarray:
    """Returns noise and ramps: no two alike."""
    channels = device(settings).input_shape[3]
    draw = np.random.default_rng(9)
    noise = draw.integers(0, 256, (count, settings.height, settings.width, channels))
    return np.asarray(noise // draw.integers(1, 4, (count, 1, 1, 1)), np.uint8)


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_features_are_rows_of_float16() -> None:
    features = device().features(crops(3))
    assert (features.shape, features.dtype) == ((3, 864), np.float16)
    assert device().width == 864
    assert np.isfinite(features).all()
    assert len({row.tobytes() for row in features}) == 3


@pytest.mark.parametrize("settings", [SMALL, VGG16, MIRRORED, NARROWER])
def test_features_are_the_same_bits_for_any_batch_position_and_neighbours(settings: FeatureSettings) -> None:
    images = crops(24, settings)
    alone = np.concatenate([device(settings).features(images[n : n + 1]) for n in range(24)])
    for batch_size in (8, 32, 64):
        sized = device(settings, batch_size)
        parts = [sized.features(images[n : n + batch_size]) for n in range(0, 24, batch_size)]
        assert np.array_equal(np.concatenate(parts), alone), batch_size
    order = np.random.default_rng(1).permutation(24)
    assert np.array_equal(device(settings, 32).features(images[order]), alone[order])


def test_a_crop_and_its_mirror_image_have_the_same_mirrored_bits() -> None:
    images = crops(8)
    turned = np.ascontiguousarray(images[:, :, ::-1])
    assert np.array_equal(device(MIRRORED).features(images), device(MIRRORED).features(turned))
    assert not np.array_equal(device().features(images), device().features(turned))


def test_crops_need_not_be_square() -> None:
    wide = Device(FeatureSettings("face_vgg", "random", "flatten", 48, 64, batch_size=8))
    assert wide.input_shape == (8, 48, 64, 1)
    features = wide.features(np.random.default_rng(0).integers(0, 256, (8, 48, 64, 1), np.uint8))
    assert features.shape == (8, 3 * 4 * 384)


def test_bfloat16_runs_and_is_near() -> None:
    half = Device(FeatureSettings("face_vgg", "random", "multi", 48, 48, batch_size=8, precision="bfloat16"))
    images = crops(8)
    exact, near = device().features(images).astype(np.float32), half.features(images).astype(np.float32)
    assert not np.array_equal(near, exact)
    assert np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


def test_what_float16_cannot_hold_becomes_its_largest_number() -> None:
    one = stand_in(lambda _: np.asarray([[1e6, -1e6, 1.5]] * 8, np.float32))
    assert one.features(np.zeros((1, 48, 48, 1), np.uint8)).tolist() == [[65504.0, -65504.0, 1.5]]


@pytest.mark.parametrize("case", sorted(make_golden.CASES))
def test_features_are_those_of_the_golden_file(case: str) -> None:
    with np.load(make_golden.GOLDEN) as stored:
        golden = stored[case].astype(np.float64)
    found = golden_features()[case].astype(np.float64)
    # other processors pick other kernels (1e-6), and float16 rounds to one part in a thousand
    assert np.allclose(found, golden, rtol=1e-3, atol=1e-3)


@functools.cache
def golden_features() -> dict[str, np.ndarray]:
    return dict(make_golden.features())


# --- what goes in -----------------------------------------------------------------------------------------------------


def stand_in(call: Callable[[np.ndarray], Any], batch_size: int = 8) -> Device:
    """A device whose compiled function is `call`."""
    made = object.__new__(Device)
    made.settings = FeatureSettings("face_vgg", "random", "avg", 48, 48, batch_size=batch_size)
    made.input_shape = (batch_size, 48, 48, 1)
    made._lock = threading.Lock()
    made._call = call
    return made


@pytest.mark.parametrize("count", [0, 1, 7, 8])
def test_the_compiled_function_sees_one_shape(count: int) -> None:
    shapes: list[Any] = []

    def call(images: np.ndarray) -> np.ndarray:
        shapes.append((images.shape, images.dtype))
        return images.reshape(8, -1)[:, :2].astype(np.float32)

    assert stand_in(call).features(np.full((count, 48, 48, 1), 7, np.uint8)).tolist() == [[7, 7]] * count
    assert shapes == [((8, 48, 48, 1), np.uint8)]


class Queued:
    """A result that is there only when it is asked for, as on a GPU."""

    def __init__(self, log: list[str], value: int) -> None:
        self._log, self._value = log, value

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        self._log.append(f"wait {self._value}")
        return np.full((8, 2), self._value, np.float32)


def test_a_batch_is_handed_over_while_the_one_before_is_computed() -> None:
    log: list[str] = []

    def call(images: np.ndarray) -> Queued:
        log.append(f"queue {images[0, 0, 0, 0]}")
        return Queued(log, int(images[0, 0, 0, 0]))

    one = stand_in(call)
    first, second = (one.start(np.full((count, 48, 48, 1), count, np.uint8)) for count in (8, 3))
    assert log == ["queue 8", "queue 3"]
    assert first.features().tolist() == [[8, 8]] * 8
    assert second.features().tolist() == [[3, 3]] * 3
    assert log == ["queue 8", "queue 3", "wait 8", "wait 3"]


def test_batches_in_flight_have_the_bits_of_batches_one_by_one() -> None:
    images = crops(19)
    parts = [images[:8], images[8:16], images[16:]]
    started = [device().start(part) for part in parts]
    for batch, part in zip(started, parts, strict=True):
        assert np.array_equal(batch.features(), device().features(part))
    assert device().in_flight == (2 if device().has_accelerator() else 1)


def test_what_does_not_fit_may_show_only_when_the_features_are_taken() -> None:
    class Failing:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            raise XlaRuntimeError("RESOURCE_EXHAUSTED: 3 GB")

    batch = stand_in(lambda _: Failing(), 64).start(np.zeros((1, 48, 48, 1), np.uint8))
    with pytest.raises(DeviceOutOfMemory, match=r"features\.batch_size=32"):
        batch.features()


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_batch_below_eight_is_refused(size: int) -> None:
    with pytest.raises(BackboneError, match=rf"features\.batch_size={size} is too small; use 8 or more"):
        Device(FeatureSettings("face_vgg", "random", "avg", 48, 48, batch_size=size))


# --- faults -----------------------------------------------------------------------------------------------------------


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


class XlaRuntimeError(RuntimeError):
    """Named as JAX's."""


@pytest.mark.parametrize(
    "error",
    [
        ResourceExhaustedError("OOM when allocating"),
        XlaRuntimeError("RESOURCE_EXHAUSTED: 3 GB"),
        MemoryError(),
        RuntimeError("failed to alloc: CUDA_ERROR_OUT_OF_MEMORY"),
        RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
@pytest.mark.parametrize(
    "size, cure", [(64, "features.batch_size=32"), (12, "features.batch_size=8"), (8, "features.input_size")]
)
def test_out_of_memory_names_what_to_try(error: Exception, size: int, cure: str) -> None:
    def call(_: np.ndarray) -> np.ndarray:
        raise error

    with pytest.raises(DeviceOutOfMemory) as ended:
        stand_in(call, size).features(np.zeros((1, 48, 48, 1), np.uint8))
    assert re.search(rf"batch(, | of ){size};", str(ended.value))
    assert cure in str(ended.value)
    assert ended.value.__cause__ is error


def test_every_other_error_passes_as_it_is() -> None:
    error = ValueError("wrong shape")

    def call(_: np.ndarray) -> np.ndarray:
        raise error

    with pytest.raises(ValueError, match="wrong shape") as ended:
        stand_in(call).features(np.zeros((1, 48, 48, 1), np.uint8))
    assert ended.value is error
    assert ended.value.__cause__ is None


# --- one a process ----------------------------------------------------------------------------------------------------


def test_eight_threads_build_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[FeatureSettings] = []

    class Slow:
        def __init__(self, settings: FeatureSettings) -> None:
            time.sleep(0.05)
            built.append(settings)

    monkeypatch.setattr(module, "Device", Slow)
    monkeypatch.setattr(module, "_devices", {})
    with ThreadPoolExecutor(8) as pool:
        devices = list(pool.map(get_device, [SMALL] * 8))
    assert built == [SMALL]
    assert len({id(one) for one in devices}) == 1
    assert get_device(VGG16) is not devices[0]
    assert get_device(SMALL) is devices[0]


def test_other_weights_under_one_name_are_another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_devices", {})
    monkeypatch.setattr(module, "Device", lambda settings: object())
    settings = replace(SMALL, weights=str(tmp_path / "w.npz"))
    (tmp_path / "w.npz").write_bytes(b"one")
    first = get_device(settings)
    assert get_device(settings) is first
    (tmp_path / "w.npz").write_bytes(b"two")
    assert get_device(settings) is not first


def test_weights_that_are_replaced_while_they_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(b"one")
    monkeypatch.setattr(module, "_devices", {})
    monkeypatch.setattr(module, "Device", lambda settings: path.write_bytes(b"two"))
    with pytest.raises(BackboneError, match=r"w\.npz was replaced while it was read"):
        get_device(replace(SMALL, weights=str(path)))
    assert module._devices == {}


def test_threads_take_turns_and_get_their_own_features() -> None:
    images = crops(8)
    expected = device().features(images)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda n: device().features(images[n : n + 1]), list(range(8)) * 4))
    assert np.array_equal(np.concatenate(rows), np.tile(expected, (4, 1)))


# --- what it is called ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variable, file, name",
    [
        (None, None, "tensorflow"),
        ("", None, "tensorflow"),
        ("", '{"backend": "jax"}', "jax"),
        ("jax", None, "jax"),
        ("jax", '{"backend": "torch"}', "jax"),
        (None, '{"backend": "jax"}', "jax"),
        (None, "{}", "tensorflow"),
        (None, "{damaged", "tensorflow"),
    ],
)
def test_the_backend_is_known_without_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, file: str | None, name: str
) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    if variable is not None:
        monkeypatch.setenv("KERAS_BACKEND", variable)
    if file is not None:
        (tmp_path / "keras.json").write_text(file)
    assert default_runtime() == name


def test_the_device_is_named() -> None:
    names = device().device_names()
    assert names
    assert all(isinstance(name, str) and name for name in names)
    assert json.loads(json.dumps(names)) == names


def test_weights_are_named_by_their_bytes_or_their_seed(tmp_path: Path) -> None:
    (tmp_path / "w.npz").write_bytes(b"abc")
    of_file = FeatureSettings("face_vgg", str(tmp_path / "w.npz"), "avg", 48, 48)
    assert weights_digest(of_file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert weights_digest(FeatureSettings("face_vgg", "random", "avg", 48, 48, seed=3)) == "random-3"
    with pytest.raises(BackboneError, match=r"gone\.npz"):
        weights_digest(FeatureSettings("face_vgg", str(tmp_path / "gone.npz"), "avg", 48, 48))
