"""A file of which only the bytes that are asked for are fetched: exact ranges, or large pieces from first to last."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

AHEAD_BYTES = 2 * 2**20  # at most, fetched beyond what is asked for where reading goes on without a gap
FORWARD_BYTES = 8 * 2**20  # a piece of a file that is read to its end; the next one is fetched meanwhile


class RangeFile(io.RawIOBase):
    """A seekable file over a function that reads ranges.

    A read after a seek fetches exactly its bytes. A read that goes on where the last one ended fetches up to twice as
    much as before, so that small steps do not cost a request each.

    Args:
        read_range: (start, stop) -> the bytes, fewer only at the end of the file.
        size: returns the file's size in bytes; asked once, if at all.
        forward: True if the file will be read from first to last; then pieces are large and fetched ahead.
    """

    def __init__(
        self, read_range: Callable[[int, int], bytes], size: Callable[[], int], *, forward: bool = False
    ) -> None:
        super().__init__()
        self._read_range, self._ask_size = read_range, size
        self._forward = forward
        self._size: int | None = None
        self._at = self._read_to = 0
        self._start, self._window = 0, b""
        self._pool: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[bytes]] | None = None

    def read(self, size: int = -1, /) -> bytes:
        """Returns the next `size` bytes, fewer at the end; all of the rest by default."""
        if size is None or size < 0:
            size = max(0, self._whole() - self._at)
        pieces: list[bytes] = []
        while size > 0:
            piece = self._held(size) or self._fetched(size)
            if not piece:
                break
            pieces.append(piece)
            self._at += len(piece)
            size -= len(piece)
        self._read_to = self._at
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: Any, /) -> int:
        """Fills the buffer and returns the number of bytes, 0 at the end."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def peek(self, size: int = 0, /) -> bytes:
        """Returns bytes that come next without moving; `readline` looks for the line's end here."""
        return self._held(max(size, 2**16)) or self._filled(max(size, 2**16))

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Moves to another offset and returns it; fetches nothing."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
        self._at = max(0, offset + (self._whole() if base is None else base))
        return self._at

    def tell(self) -> int:
        """Returns the offset of the next byte."""
        return self._at

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Drops what is held; a second call does nothing."""
        self._window, self._next = b"", None
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _whole(self) -> int:
        if self._size is None:
            self._size = self._ask_size()
        return self._size

    def _held(self, size: int) -> bytes:
        at = self._at - self._start
        return self._window[at : at + size] if 0 <= at < len(self._window) else b""

    def _fetched(self, size: int) -> bytes:
        if not self._forward and self._at != self._read_to:  # exact, and kept for no one
            return self._clamped(self._at, size)
        self._filled(size)
        return self._held(size)

    def _filled(self, size: int) -> bytes:
        """Fetches a window that starts here and returns it."""
        ahead = FORWARD_BYTES if self._forward else min(2 * len(self._window), AHEAD_BYTES)
        want = max(size, ahead)
        waiting, self._next = self._next, None
        if waiting is not None and waiting[0] == self._at:
            self._window = waiting[1].result()
        else:
            self._window = self._clamped(self._at, want)
        self._start = self._at
        if self._forward and len(self._window) >= FORWARD_BYTES:
            self._fetch_next(self._start + len(self._window))
        return self._window

    def _fetch_next(self, start: int) -> None:
        if self._size is not None and start >= self._size:
            return
        self._pool = self._pool or ThreadPoolExecutor(1, "read-ahead")
        self._next = start, self._pool.submit(self._clamped, start, FORWARD_BYTES)

    def _clamped(self, start: int, size: int) -> bytes:
        if self._size is not None:
            size = min(size, self._size - start)
        return self._read_range(start, start + size) if size > 0 else b""
