"""The compiled feature extractor: uint8 crops in, float16 features out, one shape, one copy per process.

The only module that names a runtime under Keras, as Keras's API has no compiled call of a fixed shape besides
`predict`. TensorFlow compiles with `tf.function` (with weights frozen into the graph for small networks, a tenth faster
on a CPU), JAX with `jax.jit`. Any other backend runs `predict_on_batch`.

Why one padded shape: with TensorFlow's oneDNN kernels and a batch of at least 8, the features of an image have the same
bits, whatever its neighbours, its place in the batch or the batch size.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.backbones.backbone import BackboneError
from models.backbones.features import build_features
from models.backbones.registry import BACKBONES

logger = logging.getLogger("pipeline.device")

REVISION = 1  # part of the cache key: raise it when the same weights would give other features
BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")  # of Keras 3
SMALLEST_BATCH = 8  # below it oneDNN picks other kernels, and features would depend on the batch
FROZEN_PARAMETERS = 10_000_000  # larger networks gain nothing from frozen weights and take seconds to freeze


class DeviceOutOfMemory(RuntimeError):
    """The device cannot hold a batch; the message names the batch size to try."""


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """The settings that determine the compiled function.

    Attributes:
        backbone: a key of `BACKBONES`.
        weights: `bundled`, `imagenet`, `random` or a path.
        pooling: `avg`, `multi` or `flatten`.
        height, width: of the crops, in pixels.
        batch_size: crops per call, at least 8; does not change features.
        precision: `float32` or `bfloat16`.
        seed: of random weights.
        mirrored: True for the mean of the features of the crop and of its mirror image.
        mirror_cut: fraction of the side cut off each edge of that mirror image.
    """

    backbone: str
    weights: str
    pooling: str
    height: int
    width: int
    batch_size: int = 64
    precision: str = "float32"
    seed: int = 0
    mirrored: bool = False
    mirror_cut: float = 0.0


class Device:
    """A backbone, compiled and warm, behind a lock that the threads of a process share."""

    def __init__(self, settings: FeatureSettings) -> None:
        if settings.batch_size < SMALLEST_BATCH:
            raise BackboneError(f"features.batch_size={settings.batch_size} is too small; use {SMALLEST_BATCH} or more")
        self.settings = settings
        self._lock = threading.Lock()
        channels = BACKBONES[settings.backbone].channels
        self.input_shape = (settings.batch_size, settings.height, settings.width, channels)
        start_engine()
        self._call = _compile(settings, self.input_shape)
        self.width = self.features(np.zeros((1, *self.input_shape[1:]), np.uint8)).shape[1]
        gc.collect()  # else freeze would also keep the present garbage
        gc.freeze()  # a runtime has half a million lasting objects; scanning them takes 0.1 to 0.6 s each time

    def features(self, crops: np.ndarray) -> np.ndarray:
        """Returns (n, d) float16 features of (n, h, w, c) uint8 crops, n at most the batch size.

        Raises:
            DeviceOutOfMemory: a batch does not fit; the message names a batch size to try.
        """
        count = len(crops)
        if count < self.input_shape[0]:
            padded = np.zeros(self.input_shape, np.uint8)
            padded[:count] = crops
            crops = padded
        try:
            with self._lock:
                result = self._call(crops)
        except Exception as error:
            if _is_out_of_memory(error):
                raise DeviceOutOfMemory(_smaller_batch(self.settings.batch_size)) from error
            raise
        return _half(result[:count])

    def device_names(self) -> list[str]:
        """Returns the devices that the process computes on, as the backend names them."""
        return device_names()


_devices: dict[tuple[FeatureSettings, str], Device] = {}  # by settings and digest of the weights
_devices_lock = threading.Lock()


def get_device(settings: FeatureSettings) -> Device:
    """Returns the process's only device for these settings and weights; the first call builds and warms it up.

    Raises:
        BackboneError: the weights file was replaced while it was loaded.
    """
    with _devices_lock:
        digest = weights_digest(settings)
        if (settings, digest) not in _devices:
            made = Device(settings)
            if weights_digest(settings) != digest:
                raise BackboneError(f"features.weights={settings.weights} was replaced while it was read; run again")
            _devices[settings, digest] = made
        return _devices[settings, digest]


def backend() -> str:
    """Returns the name of Keras's backend without importing Keras: it decides the cache key."""
    if os.environ.get("KERAS_BACKEND"):  # an empty one is none to Keras
        return os.environ["KERAS_BACKEND"]
    import json

    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
    try:
        return str(json.loads(home.read_text()).get("backend", "tensorflow"))
    except (OSError, ValueError):
        return "tensorflow"


def device_names() -> list[str]:
    """Returns the accelerators (else the CPU) that this process computes on."""
    if backend() == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
        details = [tf.config.experimental.get_device_details(d).get("device_name", d.device_type) for d in devices]
        return [str(name) for name in details]
    if backend() == "jax":
        import jax

        return [d.device_kind for d in jax.devices()]
    return [backend()]


def weights_digest(settings: FeatureSettings) -> str:
    """Returns the SHA-256 of the weights file, or a name for random weights.

    Raises:
        BackboneError: there is no such file; the message names the expected path.
    """
    if settings.weights == "random":
        return f"random-{settings.seed}"
    path = BACKBONES[settings.backbone].weights_path(settings.weights)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _half(features: np.ndarray) -> np.ndarray:
    """Returns float16; values beyond its range are clipped to its largest number, so that heads never get infinity."""
    largest = np.finfo(np.float16).max
    return np.asarray(np.clip(features, -largest, largest), np.float16)


def start_engine(seed: int | None = None) -> None:
    """Imports the runtime under Keras, without its start-up messages and without claiming a whole GPU's memory.

    Args:
        seed: of all random numbers from here on; None does not set one.
    """
    if backend() == "tensorflow":
        _start_tensorflow()
    if seed is not None:
        import keras

        keras.utils.set_random_seed(seed)


def _start_tensorflow() -> None:
    with _silent_stderr():
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")  # warns without a driver, but run.json names the device anyway
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            logger.info("%s is already in use, so its memory setting stays", gpu.name)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Silences standard error: TensorFlow writes to the descriptor itself while loading, whatever its log level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _compile(settings: FeatureSettings, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    model = build_features(
        settings.backbone,
        settings.weights,
        pooling=settings.pooling,
        size=(settings.height, settings.width),
        precision=settings.precision,
        seed=settings.seed,
        mirrored=settings.mirrored,
        mirror_cut=settings.mirror_cut,
    )
    if backend() == "tensorflow":
        return _compile_tensorflow(model, shape)
    if backend() == "jax":
        return _compile_jax(model, shape)
    return lambda crops: np.asarray(model.predict_on_batch(crops))


def _compile_tensorflow(model: Any, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    def forward(crops: Any) -> Any:
        return model(crops, training=False)

    crops_like = [tf.TensorSpec(shape, tf.uint8)]
    extract: Any = tf.function(forward, input_signature=crops_like, autograph=False, jit_compile=False)
    function = extract
    if model.count_params() <= FROZEN_PARAMETERS:
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        function = convert_variables_to_constants_v2(extract.get_concrete_function())

    def call(crops: np.ndarray) -> np.ndarray:
        result = function(tf.constant(crops))
        return np.asarray((result[0] if isinstance(result, list | tuple) else result).numpy())

    return call


def _compile_jax(model: Any, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    import jax

    trainable = [v.value for v in model.trainable_variables]
    fixed = [v.value for v in model.non_trainable_variables]

    @jax.jit
    def extract(weights: Any, state: Any, crops: Any) -> Any:
        features, _ = model.stateless_call(weights, state, crops, training=False)
        return features

    return lambda crops: np.asarray(extract(trainable, fixed, crops))


_OUT_OF_MEMORY = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "CUDA_ERROR_OUT_OF_MEMORY", "CUDNN_STATUS_ALLOC_FAILED")


def _is_out_of_memory(error: Exception) -> bool:
    """True for the out-of-memory error of any runtime."""
    text = f"{type(error).__name__} {error}"
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def _smaller_batch(batch_size: int) -> str:
    if batch_size <= SMALLEST_BATCH:
        return f"the device has no memory for the smallest batch, {batch_size}; use a smaller features.input_size"
    smaller = max(SMALLEST_BATCH, batch_size // 2)
    return f"the device has no memory for a batch of {batch_size}; try --set features.batch_size={smaller}"
