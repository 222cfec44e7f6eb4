"""TensorFlow under Keras, compiled by `tf.function`: Keras has no compiled call of a fixed shape besides `predict`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.gpus import named
from models.runtimes.keras import KerasRuntime, network_of
from models.runtimes.runtime import Call

logger = logging.getLogger("pipeline.device")

FROZEN_PARAMETERS = 10_000_000  # larger networks gain nothing from frozen weights and take seconds to freeze


class TensorFlow(KerasRuntime):
    """TensorFlow; the weights of small networks are frozen into the graph, a tenth faster on a CPU."""

    name = "tensorflow"
    package = "tensorflow"

    def _import(self) -> None:
        """Imports TensorFlow without its start-up messages and without claiming a whole GPU's memory."""
        with silent_stderr():
            import tensorflow as tf

            gpus = tf.config.list_physical_devices("GPU")  # warns without a driver; run.json names the device anyway
        for gpu in gpus:
            try:
                tf.config.experimental.set_memory_growth(gpu, True)
            except RuntimeError:
                logger.info("%s is already in use, so its memory setting stays", gpu.name)

    def compile(self, settings: FeatureSettings, shape: tuple[int, ...]) -> Call:
        """Returns the compiled extractor, see `Runtime`."""
        import tensorflow as tf

        model = network_of(settings)

        def forward(crops: Any) -> Any:
            return model(crops, training=False)

        crops_like = [tf.TensorSpec(shape, tf.uint8)]
        extract: Any = tf.function(forward, input_signature=crops_like, autograph=False, jit_compile=False)
        function = extract
        if model.count_params() <= FROZEN_PARAMETERS:
            from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

            function = convert_variables_to_constants_v2(extract.get_concrete_function())

        def call(crops: np.ndarray) -> Any:
            result = function(tf.constant(crops))  # on a GPU this returns when the work is queued
            return result[0] if isinstance(result, list | tuple) else result

        return call

    def devices(self) -> list[str]:
        """Returns the name of the first GPU, which TensorFlow computes on unless it is placed, or else of the CPU."""
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        device = (gpus or tf.config.list_physical_devices("CPU"))[0]
        name = str(tf.config.experimental.get_device_details(device).get("device_name", device.device_type))
        return [named(name) if gpus else name]

    def has_accelerator(self) -> bool:
        """True if TensorFlow sees a GPU."""
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))


@contextmanager
def silent_stderr() -> Iterator[None]:
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
