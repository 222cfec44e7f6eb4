"""The compiled feature extractor: uint8 crops in, float16 features out, one shape, one copy per process.

What compiles and executes it is a runtime (`runtimes/registry.py`).

Why one padded shape: from the runtime's smallest batch on, which is 8 with TensorFlow's oneDNN kernels, the features of
an image have the same bits, whatever its neighbours, its place in the batch or the batch size.
"""

from __future__ import annotations

import gc
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from models.backbones.backbone import BackboneError
from models.backbones.registry import BACKBONES
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.registry import runtime

REVISION = 1  # part of the cache key: raise it when the same weights would give other features
SMALLEST_SETTING = 8  # that features.batch_size may be: what every runtime can do


class DeviceOutOfMemory(RuntimeError):
    """The device cannot hold a batch; the message names the batch size to try."""


class AcceleratorMissing(RuntimeError):
    """A worker was promised an accelerator and has none; the message says what to look at."""


class Device:
    """A backbone, compiled and warm, that the threads of a process share: `at_once` calls at a time, others wait."""

    def __init__(self, settings: FeatureSettings) -> None:
        self._runtime = runtime(settings.runtime)
        smallest = self._runtime.smallest_batch
        if settings.batch_size < smallest:
            raise BackboneError(f"features.batch_size={settings.batch_size} is too small; use {smallest} or more")
        self.settings = settings
        self._lock = threading.BoundedSemaphore(settings.at_once if self._runtime.concurrent else 1)
        channels = BACKBONES[settings.backbone].channels
        self.input_shape = (settings.batch_size, settings.height, settings.width, channels)
        self._runtime.start()
        self._call = self._runtime.compile(settings, self.input_shape)
        self.width = self.features(np.zeros((1, *self.input_shape[1:]), np.uint8)).shape[1]
        gc.collect()  # else freeze would also keep the present garbage
        gc.freeze()  # a runtime has half a million lasting objects; scanning them takes 0.1 to 0.6 s each time

    def features(self, crops: np.ndarray) -> np.ndarray:
        """Returns (n, d) float16 features of (n, h, w, c) uint8 crops, n at most the batch size.

        Raises:
            DeviceOutOfMemory: a batch does not fit; the message names a batch size to try.
        """
        count, crops = len(crops), self._padded(crops)
        with self._lock, self._naming_a_smaller_batch():
            result = np.asarray(self._call(crops))
        return _half(result[:count])

    def start(self, crops: np.ndarray) -> InFlight:
        """Hands a batch to the device, and returns as soon as the device lets go: a GPU copies it while it computes the
        one before.

        Args:
            crops: as for `features`; leave them as they are until the features are taken.

        Raises:
            DeviceOutOfMemory: as `features`.
        """
        padded = self._padded(crops)
        with self._lock, self._naming_a_smaller_batch():
            return InFlight(self, padded, self._call(padded), len(crops))

    @property
    def in_flight(self) -> int:
        """Batches to start before the features of the first are taken."""
        return 2 if self.has_accelerator() else 1

    def _padded(self, crops: np.ndarray) -> np.ndarray:
        if len(crops) == self.input_shape[0]:
            return crops
        padded = np.zeros(self.input_shape, np.uint8)
        padded[: len(crops)] = crops
        return padded

    @contextmanager
    def _naming_a_smaller_batch(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if _is_out_of_memory(error):
                raise DeviceOutOfMemory(_smaller_batch(self.settings.batch_size)) from error
            raise

    def device_names(self) -> list[str]:
        """Returns the devices that the process computes on, as the runtime names them."""
        return self._runtime.devices()

    def has_accelerator(self) -> bool:
        """True if the process computes on a GPU or another accelerator."""
        return self._runtime.has_accelerator()


class InFlight:
    """A batch that a device computes."""

    def __init__(self, device: Device, crops: np.ndarray, pending: Any, count: int) -> None:
        self._device, self._crops, self._pending, self._count = device, crops, pending, count  # crops may be read yet

    def features(self) -> np.ndarray:
        """Waits, and returns (n, d) float16 features of the n crops.

        Raises:
            DeviceOutOfMemory: the batch did not fit; some runtimes say so only here.
        """
        with self._device._naming_a_smaller_batch():
            return _half(np.asarray(self._pending)[: self._count])


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


def revision_of(name: str) -> dict[str, Any]:
    """Returns all of a runtime and of the calls here that can change features; part of the cache key.

    Raises:
        RuntimeUnavailable: there is no such runtime.
    """
    return {**runtime(name).describe(), "revision": REVISION}


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


_OUT_OF_MEMORY = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "CUDA_ERROR_OUT_OF_MEMORY", "CUDNN_STATUS_ALLOC_FAILED")


def _is_out_of_memory(error: Exception) -> bool:
    """True for the out-of-memory error of any runtime."""
    text = f"{type(error).__name__} {error}"
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def _smaller_batch(batch_size: int) -> str:
    if batch_size <= SMALLEST_SETTING:
        return f"the device has no memory for the smallest batch, {batch_size}; use a smaller features.input_size"
    smaller = max(SMALLEST_SETTING, batch_size // 2)
    return f"the device has no memory for a batch of {batch_size}; try --set features.batch_size={smaller}"
