"""Reads the bytes inside a gzip file in bounded memory, up to the first damage."""

from __future__ import annotations

import struct
import zlib

from transforms.formats.shards.forward import DamagedFileError, Forward, Readable

_PACKED_BYTES = 16 * 2**10  # fed to zlib at once; damage in a piece loses the whole piece


class Gunzip:
    """The bytes inside a gzip file, of all its members; memory is bounded by the size of a read.

    Headers and checksums are parsed here and not by zlib, which returns nothing of a piece with a wrong checksum.
    So the bytes before the damage can be read. `read` raises DamagedFileError if the file is truncated, its checksum
    is wrong, or it is not a gzip file.
    """

    def __init__(self, file: Readable) -> None:
        self._raw = Forward(file)
        self._packed = b""
        self._inflate = bare_inflater()
        self._crc, self._size = 0, 0
        self._inside = False
        self._begun = False
        self._sound = True

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes, b"" only at the proper end."""
        while self._sound:
            if not self._inside and not self._start_member():
                return b""
            if piece := self._decompress(size):
                return piece
        raise DamagedFileError("the checksum of the gzip stream is wrong")

    def _start_member(self) -> bool:
        """Reads a member's header; False at the end of the file."""
        padding = True
        while self._begun and padding:  # zeros between members are legal
            piece = self._raw.take(_PACKED_BYTES)
            rest = piece.lstrip(b"\0")
            self._raw.put_back(len(rest))
            padding = bool(piece) and not rest
        head = self._raw.take(10)
        if not head and self._begun:
            return False
        if len(head) < 10 or head[:3] != b"\x1f\x8b\x08":
            raise DamagedFileError("this is not a gzip stream")
        flags = head[3]
        if flags & 0x04:
            self._raw.take(int.from_bytes(self._raw.take(2), "little"))
        for _ in range((flags >> 3 & 1) + (flags >> 4 & 1)):  # a name, a comment
            while self._raw.take(1) not in (b"\0", b""):
                pass
        if flags & 0x02:
            self._raw.take(2)
        self._inflate, self._crc, self._size = bare_inflater(), 0, 0
        self._inside = self._begun = True
        return True

    def _decompress(self, size: int) -> bytes:
        self._packed = self._packed or self._raw.take(_PACKED_BYTES)
        at_end = not self._packed
        try:
            piece = self._inflate.decompress(self._packed, size)
        except zlib.error as error:
            raise DamagedFileError(f"the gzip stream is damaged: {error}") from error
        self._packed = self._inflate.unconsumed_tail
        self._crc, self._size = zlib.crc32(piece, self._crc), self._size + len(piece)
        if self._inflate.eof:
            self._raw.put_back(len(self._inflate.unused_data))
            self._packed, self._inside = b"", False
            self._sound = self._raw.take(8) == struct.pack("<2I", self._crc, self._size & 0xFFFFFFFF)
        elif at_end and not piece:
            raise DamagedFileError("the gzip stream is truncated")
        return piece


def bare_inflater() -> zlib._Decompress:
    return zlib.decompressobj(-15)  # a bare deflate stream
