"""A runner elsewhere, for tests: it takes the graph as a proto alone, and works after the driver's files are gone.

Not a test: other tests `import remote_runner` and give `--runner=remote_runner.Elsewhere`.
"""

from __future__ import annotations

import base64
import bz2
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner
from apache_beam.transforms.environments import EmbeddedPythonEnvironment

RUNNER = f"{__name__}.Elsewhere"


class Elsewhere(PipelineRunner):
    """Runs the proto of a graph in this process, as a cluster would.

    Attributes:
        hidden: files and folders of the driver's disk that are moved away before the work begins.
        proto: of the last graph.
    """

    hidden: ClassVar[list[Path]] = []
    proto: ClassVar[Any] = None

    def run_pipeline(self, pipeline: Any, options: Any) -> Any:
        """Runs the graph to its end."""
        type(self).proto = pipeline.to_runner_api(default_environment=EmbeddedPythonEnvironment.default())
        for path in self.hidden:
            shutil.move(path, path.with_name(path.name + ".hidden"))
        try:
            return FnApiRunner().run_via_runner_api(self.proto, options)
        finally:
            for path in self.hidden:
                shutil.move(path.with_name(path.name + ".hidden"), path)


def texts(proto: Any) -> Iterator[bytes]:
    """Yields every string of a graph's proto, what is pickled in it unpacked."""
    if isinstance(proto, bytes):
        parsed = _parsed(proto)
        yield from (_unpacked(proto) if parsed is None else texts(parsed))
        return
    if isinstance(proto, str):
        yield proto.encode()
        return
    for _, value in proto.ListFields():
        values: Any = value.values() if hasattr(value, "items") else value
        if hasattr(values, "ListFields") or isinstance(values, str | bytes):
            values = [values]
        elif not hasattr(values, "__iter__"):
            continue
        for one in values:
            if hasattr(one, "ListFields") or isinstance(one, str | bytes):
                yield from texts(one)


def _parsed(data: bytes) -> Any:
    """Returns the payload of a ParDo as a message, None for anything else."""
    payload = beam_runner_api_pb2.ParDoPayload()
    try:
        payload.ParseFromString(data)
    except Exception:  # noqa: BLE001 - protobuf has no public class for it
        return None
    return payload if payload.do_fn.urn else None


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Yields the bytes, and what they are when Beam's packing is taken off."""
    yield data
    for unpack in _PACKINGS:
        try:
            yield unpack(base64.b64decode(data, validate=True))
        except (ValueError, OSError, zlib.error):
            continue


_PACKINGS: tuple[Callable[[bytes], bytes], ...] = (bz2.decompress, zlib.decompress)
