"""ONNX Runtime on the CPU: starts in a fraction of the time that TensorFlow takes."""

from __future__ import annotations

import numpy as np

from models.runtimes.exported import ExportedRuntime, cores
from models.runtimes.feature_graph import INPUT, OUTPUT, feature_graph
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.runtime import Call


class Onnx(ExportedRuntime):
    """ONNX Runtime's CPU provider, which computes in float32."""

    name = "onnx"
    package = "onnxruntime"
    precisions = ("float32",)

    def start(self) -> None:
        """Imports ONNX Runtime."""
        self.check_installed()
        with self.loading():
            import onnxruntime  # noqa: F401

    def compile(self, settings: FeatureSettings, shape: tuple[int, ...]) -> Call:
        """Returns the compiled extractor, see `Runtime`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = max(1, cores() // settings.at_once)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoding needs the cores meanwhile
        graph = feature_graph(settings, shape)
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda crops: np.asarray(session.run([OUTPUT], {INPUT: crops})[0])

    def devices(self) -> list[str]:
        """Returns the CPU."""
        return ["CPU"]
