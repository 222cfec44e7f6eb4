"""OpenVINO on the CPU, in float32 or, where the processor has it, bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np

from models.runtimes.exported import ExportedRuntime, cores
from models.runtimes.feature_graph import feature_graph
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.runtime import Call, RuntimeUnavailable

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names


class OpenVino(ExportedRuntime):
    """OpenVINO's CPU plugin."""

    name = "openvino"
    package = "openvino"
    extra = "openvino"

    def start(self) -> None:
        """Imports OpenVINO."""
        self.check_installed()
        with self.loading():
            import openvino  # noqa: F401

    def compile(self, settings: FeatureSettings, shape: tuple[int, ...]) -> Call:
        """Returns the compiled extractor, see `Runtime`.

        Raises:
            RuntimeUnavailable: the processor does not compute in this precision.
        """
        import openvino

        core = openvino.Core()
        if settings.precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RuntimeUnavailable("features.precision=bfloat16: this processor does not have it; set float32")
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[settings.precision],
            "INFERENCE_NUM_THREADS": cores(),
            "NUM_STREAMS": str(settings.at_once),  # they share the threads
        }
        model = core.read_model(feature_graph(settings, shape))
        compiled = _in_a_thread_of_its_own(lambda: core.compile_model(model, "CPU", options))
        idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(settings.at_once):
            idle.put(compiled.create_infer_request())

        def call(crops: np.ndarray) -> np.ndarray:
            request = idle.get()
            try:
                request.infer([np.ascontiguousarray(crops)], share_inputs=True)
                return np.array(request.get_output_tensor().data)  # a copy: the next call writes over it
            finally:
                idle.put(request)

        return call

    def devices(self) -> list[str]:
        """Returns the name of the processor."""
        import openvino

        return [str(openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"))]


def _in_a_thread_of_its_own(compiled: Callable[[], Any]) -> Any:
    """Returns what `compiled` returns; raises what it raises.

    A compiled model gives its thread a stack for signals and puts the former one back when it goes. Where two such
    models go in the order of their making, the thread keeps a stack that is freed: the next Ctrl-C would crash.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(compiled).result()
