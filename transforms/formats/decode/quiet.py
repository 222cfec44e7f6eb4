"""Keeps what C libraries print about an image off the screen: it names no file, and the image's row says it all.

libjpeg and libpng, built into OpenCV, write to C's `stderr`, and nothing of OpenCV's own can stop them. While an image
is decoded that variable leads to nowhere. Python's own lines do not go through it. Where there is no such variable
(macOS, musl) the lines appear as ever.
"""

from __future__ import annotations

import ctypes
import os
import threading
from types import TracebackType


class _Quiet:
    """A context in which C's `stderr` leads to nowhere, shared by all threads that are inside."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._stream, self._nowhere = _stream_and_nowhere()
        self._real = None if self._stream is None else self._stream.value

    def __enter__(self) -> None:
        if self._stream is None:
            return
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._real = self._stream.value
                self._stream.value = self._nowhere

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._stream is None:
            return
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._stream.value = self._real


def _stream_and_nowhere() -> tuple[ctypes.c_void_p | None, int | None]:
    """Returns C's variable `stderr` and an open stream to nowhere, or None twice."""
    try:
        library = ctypes.CDLL(None)
        stream = ctypes.c_void_p.in_dll(library, "stderr")
        library.fopen.restype = ctypes.c_void_p
        nowhere = library.fopen(os.devnull.encode(), b"w")
    except (OSError, ValueError, AttributeError, TypeError):
        return None, None
    return (stream, nowhere) if nowhere else (None, None)


QUIET = _Quiet()
