"""Which way is up, as EXIF and XMP blocks say it."""

from __future__ import annotations

import re
import struct

from transforms.formats.decode.tags import Directory

_ORIENTATION = 274
_IN_XMP = re.compile(rb"tiff:Orientation(?:\s*=\s*[\"']|>)\s*([1-8])\s*[\"'<]")


def of_exif(block: bytes) -> int:
    """Returns 1 to 8; 1 if the block states none, or nonsense."""
    if block[:2] not in (b"II", b"MM"):
        return 1
    try:
        found = Directory(block).first(_ORIENTATION, 1)
    except struct.error:
        return 1
    return found if 1 <= found <= 8 else 1


def of_xmp(packet: bytes) -> int:
    """Returns 1 to 8; 1 if the packet states none, or nonsense."""
    found = _IN_XMP.search(packet)
    return int(found[1]) if found else 1
