"""JAX under Keras, compiled by `jax.jit`."""

from __future__ import annotations

from typing import Any

from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.gpus import named
from models.runtimes.keras import KerasRuntime, network_of
from models.runtimes.runtime import Call


class Jax(KerasRuntime):
    """JAX; the weights are arguments of the compiled function."""

    name = "jax"
    package = "jax"
    extra = "jax"

    def compile(self, settings: FeatureSettings, shape: tuple[int, ...]) -> Call:
        """Returns the compiled extractor, see `Runtime`; it is compiled for `shape` when it is first called."""
        import jax

        model = network_of(settings)
        trainable = [v.value for v in model.trainable_variables]
        fixed = [v.value for v in model.non_trainable_variables]

        @jax.jit
        def extract(weights: Any, state: Any, crops: Any) -> Any:
            features, _ = model.stateless_call(weights, state, crops, training=False)
            return features

        return lambda crops: extract(trainable, fixed, crops)  # returns when the work is queued

    def devices(self) -> list[str]:
        """Returns the kind of JAX's first device, which it uses by default."""
        import jax

        device = jax.devices()[0]
        return [named(device.device_kind) if device.platform != "cpu" else device.device_kind]

    def has_accelerator(self) -> bool:
        """True if JAX sees a GPU or a TPU."""
        import jax

        return any(device.platform != "cpu" for device in jax.devices())
