"""What runtimes without Keras share: they execute an ONNX graph that is written once per process, in memory."""

from __future__ import annotations

import os
from typing import Any

from models.backbones.registry import backbone
from models.runtimes.feature_graph import REVISION
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.runtime import Runtime, RuntimeUnavailable


class ExportedRuntime(Runtime):
    """Executes the graph of `feature_graph.py`; imports neither Keras nor what is under it."""

    smallest_batch = 1  # a crop's bits are the same in any batch, which tests show
    concurrent = True

    def check(self, settings: FeatureSettings) -> None:
        """Refuses weights that only Keras can make, and what any runtime refuses."""
        super().check(settings)
        if not backbone(settings.backbone).is_convolutional:
            raise RuntimeUnavailable(
                f"features.runtime={self.name} cannot run {settings.backbone}; set it to tensorflow or jax"
            )
        if settings.weights == "random":
            raise RuntimeUnavailable(
                f"features.weights=random are drawn by Keras, which features.runtime={self.name} does without; "
                "set features.runtime to tensorflow or jax, or features.weights to a file"
            )

    def describe(self) -> dict[str, Any]:
        """Returns the name and the revision of the graph."""
        return {"backend": self.name, "graph": REVISION}


def cores() -> int:
    """Returns the number of cores that this process may use; a runtime takes as many threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
