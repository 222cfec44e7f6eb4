"""Keeps what C libraries print about an image off the screen: it names no file, and the image's row says it all.

libjpeg and libpng, built into OpenCV, write to C's `stderr`, and nothing of OpenCV's own can stop them. While an image
is decoded that variable leads to nowhere. Python's own lines do not go through it. Where there is no such variable
(macOS, musl) the lines appear as ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator


def _stream_and_nowhere() -> tuple[memoryview, int]:
    """Returns C's variable `stderr`, one number, and the address of a stream to nowhere; where that fails, a dummy."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.fopen.restype = ctypes.c_void_p
        nowhere = library.fopen(os.devnull.encode(), b"w")
        stream = memoryview(ctypes.c_size_t.in_dll(library, "stderr")).cast("B").cast("P")
        if nowhere and stream[0]:
            return stream, nowhere
    return memoryview(bytearray(ctypes.sizeof(ctypes.c_size_t))).cast("P"), 0


_STREAM, _NOWHERE = _stream_and_nowhere()
_REAL = _STREAM[0]
_INSIDE: list[None] = []  # an item for each who wants silence; a lock would cost 2 % of a small PNG


def silence() -> None:
    """Leads C's `stderr` to nowhere until each who called this has called `voice`."""
    _INSIDE.append(None)
    _STREAM[0] = _NOWHERE


def voice() -> None:
    """Ends what `silence` began."""
    _INSIDE.pop()
    if not _INSIDE:
        _STREAM[0] = _REAL
        if _INSIDE:  # another thread began in between
            _STREAM[0] = _NOWHERE


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A context of silence."""
    silence()
    try:
        yield
    finally:
        voice()
