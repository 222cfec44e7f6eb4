"""Normalises names of classes for comparison: composed (NFC), since a Mac stores folder names decomposed."""

from __future__ import annotations

import unicodedata
from typing import overload


@overload
def class_name(text: str) -> str: ...
@overload
def class_name(text: None) -> None: ...
@overload
def class_name(text: str | None) -> str | None: ...
def class_name(text: str | None) -> str | None:
    """Returns the composed form of a name or label; None stays None."""
    return text if text is None or text.isascii() else unicodedata.normalize("NFC", text)
