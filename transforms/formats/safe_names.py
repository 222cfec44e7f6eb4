"""File names from arbitrary texts, which may contain slashes, line ends, quotes or 4,000 characters.

The number of the image in its run comes first, so two images never give one name, and files sort as their ids do.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

STEM_BYTES = 80  # of a name, as UTF-8: leaves room below the 255 of file systems for the number and the ending
DIGITS = 7  # of the number, at least: ten million images sort by name
PHOTO = re.compile(rf"\d{{{DIGITS},}}-[^/]+\.(jpg|png)")  # names that `photo_name` and `face_name` give
SHEET = re.compile(r"sheet-\d{4,}\.(jpg|png)")
UNLABELLED = "unlabelled"  # class name of faces without a label
_KEPT = "-_."
_DIGEST = 12  # hex digits that distinguish two labels
_DIGESTED = re.compile(rf"-[0-9a-f]{{{_DIGEST}}}$", re.IGNORECASE)


def photo_name(row: int, image_id: str, ending: str) -> str:
    """Returns the name of the file made of one image.

    Args:
        row: of the image in its run, from 0.
        ending: with its dot.

    >>> photo_name(6, "trips/2024/a photo.jpg", ".png")
    '0000007-a_photo.png'
    """
    stem = image_id.rpartition("/")[2].rpartition(".")
    return f"{row + 1:0{DIGITS}d}-{_safe(stem[0] or stem[2]) or 'image'}{ending}"


def face_name(row: int, image_id: str, face: int, ending: str) -> str:
    """Returns the name of the file made of one face; `face_index` counts from 0, as in `predictions/`.

    >>> face_name(6, "a.jpg", 2, ".png")
    '0000007-a-face2.png'
    """
    return photo_name(row, image_id, f"-face{face}{ending}")


def sheet_name(number: int, ending: str) -> str:
    """Returns the name of a contact sheet; `number` counts from 0."""
    return f"sheet-{number + 1:04d}{ending}"


def folder_names(labels: Sequence[str]) -> list[str]:
    """Returns a folder name for each label: the label itself if it is safe and unique, ignoring case.

    >>> folder_names(["happy", "a/b", "Unlabelled"])
    ['happy', 'a_b-c14cddc033f6', 'Unlabelled-0d307ff59e98']
    """
    folded = [label.casefold() for label in labels]
    return [
        label if folded.count(fold) == 1 and _keeps_its_name(label) else _with_digest(label)
        for label, fold in zip(labels, folded, strict=True)
    ]


def _keeps_its_name(label: str) -> bool:
    return bool(label) and _safe(label) == label and label.casefold() != UNLABELLED and not _DIGESTED.search(label)


def _with_digest(label: str) -> str:
    digest = hashlib.sha256(label.encode("utf-8", "replace")).hexdigest()
    return f"{_safe(label) or 'label'}-{digest[:_DIGEST]}"


def unlabelled_name(classes: Sequence[str]) -> str:
    """Returns a class name for faces without a label, different from all classes.

    >>> unlabelled_name(["happy", "unlabelled"])
    'unlabelled_'
    """
    name = UNLABELLED
    while name in classes:
        name += "_"
    return name


def _safe(text: str) -> str:
    """Returns letters, digits and `-_.` of a text, anything else as `_`; never a dot or a dash first."""
    letters = "".join(map(_shown, unicodedata.normalize("NFC", text[:STEM_BYTES]))).lstrip("-.")
    return letters.encode("utf-8")[:STEM_BYTES].decode("utf-8", "ignore").rstrip(".")


def _shown(letter: str) -> str:
    return letter if letter in _KEPT or unicodedata.category(letter)[0] in "LN" else "_"
