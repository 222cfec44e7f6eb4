"""The table of runtimes. A new one is a file beside this one and a line here."""

from __future__ import annotations

from models.runtimes.default import default_runtime
from models.runtimes.jax import Jax
from models.runtimes.keras import KerasRuntime
from models.runtimes.onnx import Onnx
from models.runtimes.openvino import OpenVino
from models.runtimes.runtime import Runtime, RuntimeUnavailable
from models.runtimes.tensorflow import TensorFlow

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (TensorFlow(), Jax(), Onnx(), OpenVino())}


def runtime(name: str) -> Runtime:
    """Returns the runtime of that name.

    Raises:
        RuntimeUnavailable: there is none; lists the known names.
    """
    if name not in RUNTIMES:
        raise RuntimeUnavailable(
            f"the runtime {name!r} is not one of {', '.join(RUNTIMES)}; set features.runtime, or KERAS_BACKEND "
            "(else keras.json), which is read where features.runtime is null"
        )
    return RUNTIMES[name]


def start_keras(seed: int | None = None) -> None:
    """Imports Keras on its backend, to train.

    Args:
        seed: of all random numbers from here on; None does not set one.

    Raises:
        RuntimeUnavailable: the backend is not installed, or not one of the runtimes.
    """
    chosen = runtime(default_runtime())
    if not isinstance(chosen, KerasRuntime):
        raise RuntimeUnavailable(f"nothing is trained on {chosen.name}; set KERAS_BACKEND to tensorflow or jax")
    chosen.start()
    if seed is not None:
        import keras

        keras.utils.set_random_seed(seed)
