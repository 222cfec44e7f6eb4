"""A photo with its faces, as pages and pictures show them."""

from __future__ import annotations

from dataclasses import dataclass

KEPT = 150  # faces kept of one photo: the page draws no more


@dataclass(frozen=True, slots=True)
class Face:
    """A face: its number in the photo, its box (x, y, width, height in pixels of the upright image), its label."""

    number: int
    box: tuple[int, int, int, int]
    label: int
    confidence: float
    score: float


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of the run.

    Attributes:
        row: in the order of ids.
        digest: SHA-256 of its bytes in hex, "" where there were none.
        faces: at most `KEPT`. `face_count`: all.
        label_counts: label and faces of it, of all faces; empty stands for those of `faces`.
    """

    row: int
    image_id: str
    digest: str
    width: int
    height: int
    true_label: str | None
    faces: tuple[Face, ...]
    face_count: int
    label_counts: tuple[tuple[int, int], ...] = ()
