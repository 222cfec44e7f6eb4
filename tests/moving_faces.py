"""Videos of faces that move across a plain background, made by code out of the sample's portraits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pictures import portrait

from models.detectors.cropping import resized
from transforms.formats.video import new_video

SIZE = (480, 640)  # height, width
BACKGROUND = (96, 110, 120)
RATE = 25.0


def head(number: int = 0) -> np.ndarray:
    """Returns (h, w, 3) uint8 RGB: head and shoulders of the portrait, as it is or mirrored by turns."""
    face = portrait()[0:256, 100:356]
    return face if number % 2 == 0 else np.ascontiguousarray(face[:, ::-1])


def frames(count: int, *, faces: int = 1, side: int = 200, size: tuple[int, int] = SIZE) -> Iterator[np.ndarray]:
    """Yields (h, w, 3) uint8 RGB frames; each face swings from side to side in a place of its own.

    Args:
        faces: how many, at most five.
        side: of a head's picture in pixels; the face is about half of it.
    """
    heads = [resized(head(number), (side, side)) for number in range(faces)]
    for number in range(count):
        frame = np.empty((*size, 3), np.uint8)
        frame[:] = BACKGROUND
        for one, (x, y) in zip(heads, places(number, faces, side, size), strict=True):
            frame[y : y + side, x : x + side] = one
        yield frame


def places(number: int, faces: int, side: int, size: tuple[int, int]) -> Sequence[tuple[int, int]]:
    """Returns left and top of each head in a frame: a column each, three in the upper row, the others below."""
    height, width = size
    columns = min(faces, 3)
    rows = -(-faces // 3)
    room = max(0, width // columns - side)
    found = []
    for face in range(faces):
        swing = (1 + math.sin(number / 12 + face)) / 2
        x = face % 3 * (width // columns) + round(room * swing)
        y = face // 3 * (height // rows) + max(0, (height // rows - side) // 2)
        found.append((x, y))
    return found


def write(path: Path, count: int, *, faces: int = 1, side: int = 200, size: tuple[int, int] = SIZE) -> Path:
    """Writes such a video, by the suffix of its name, and returns its path."""
    with new_video(str(path), size, RATE) as video:
        for frame in frames(count, faces=faces, side=side, size=size):
            video.write(frame)
    return path
