"""The table next to rendered pictures: the image, face and label of each file."""

from __future__ import annotations

PICTURE_INDEX = "index.csv"
INDEX_HEAD = ("file", "kind", "image_id", "face_index", "label", "confidence")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # as in every CSV for spreadsheets


def is_picture_index(start: bytes) -> bool:
    """True if a file that starts so is such a table."""
    return start.startswith(BYTE_ORDER_MARK + ",".join(INDEX_HEAD).encode())
