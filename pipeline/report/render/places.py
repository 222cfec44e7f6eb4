"""Where labels go on a photo: next to their faces, never on another label, on a face or over the edge.

Arithmetic alone: no pixels, no fonts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

GAP = 2  # pixels between a box and its label
STEPS = 3  # heights of a label that it may move away from its box
LEADER_PX = 4  # width of a line that leads to a box
INSIDE = 0.4  # of a box's height: as much a label inside it may hide


Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the canvas


@dataclass(frozen=True, slots=True)
class Place:
    """Where a label goes.

    Attributes:
        words: which of the offered wordings, from 0.
        at: its rectangle.
        leader: rectangle of the line that leads from it to its box; None where it touches the box.
    """

    words: int
    at: Rectangle
    leader: Rectangle | None = None


def places(
    boxes: np.ndarray,
    canvas: tuple[int, int],
    sizes: Callable[[int], Sequence[tuple[int, int]]],
    order: Sequence[int],
) -> dict[int, Place]:
    """Returns a place for the label of each face that has room for one.

    Args:
        boxes: (m, 4) left, top, right, bottom of all faces, in pixels of the canvas.
        canvas: (width, height).
        sizes: of a face, by its row: (width, height) of each wording of its label, the best first.
        order: rows of the faces that have a label; the first are placed first.
    """
    taken = np.zeros((len(boxes) + 2 * len(order), 4), np.int64)  # boxes, then labels and the lines that lead to them
    taken[: len(boxes)] = boxes
    count = len(boxes)
    found: dict[int, Place] = {}
    for row in order:
        place = _place(row, taken[:count], canvas, sizes(row))
        if place is not None:
            found[row] = place
            for rectangle in (place.at, place.leader):
                if rectangle is not None:
                    taken[count] = rectangle
                    count += 1
    return found


def _place(row: int, taken: np.ndarray, canvas: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> Place | None:
    """Returns the first free place for the best wording that has one; inside its own box where there is no other."""
    box: Rectangle = tuple(taken[row].tolist())
    for words, (width, height) in enumerate(sizes):
        if width <= canvas[0] and (found := _first_free(_beside(box, width, height, canvas), taken)) is not None:
            return Place(words, *found)
    others = np.delete(taken, row, axis=0)
    for words, (width, height) in enumerate(sizes):
        inside = _inside(box, canvas, width, height)
        if inside is not None and not _meet(np.asarray([inside]), others)[0]:
            return Place(words, inside)
    return None


def _first_free(
    offered: Iterable[tuple[Rectangle, Rectangle | None]], taken: np.ndarray
) -> tuple[Rectangle, Rectangle | None] | None:
    every = list(offered)
    if not every:
        return None
    labels = _meet(np.asarray([at for at, _ in every]), taken)
    leaders = _meet(np.asarray([leader or at for at, leader in every]), taken)
    free = np.flatnonzero(~(labels | leaders))
    return every[free[0]] if len(free) else None


def _beside(
    box: Rectangle, width: int, height: int, canvas: tuple[int, int]
) -> Iterator[tuple[Rectangle, Rectangle | None]]:
    """Yields places on the canvas with their leaders: above the box, below, beside, then farther above and below."""
    x0, y0, x1, y1 = box
    lefts = [max(0, min(left, canvas[0] - width)) for left in (x0, x1 - width, (x0 + x1 - width) // 2)]
    for step in range(STEPS):
        away = step * height + GAP
        for top in (y0 - away - height, y1 + away):
            if 0 <= top <= canvas[1] - height:
                for left in lefts:
                    at = (left, top, left + width, top + height)
                    yield at, _leader(at, box) if step else None
        if step == 0:
            for left in (x1 + GAP, x0 - GAP - width):
                for top in (y0, y1 - height):
                    if 0 <= left <= canvas[0] - width and 0 <= top <= canvas[1] - height:
                        yield (left, top, left + width, top + height), None


def _leader(at: Rectangle, box: Rectangle) -> Rectangle:
    """Returns the line from a label to the middle of its box, as straight up as it can be."""
    middle = min(max((box[0] + box[2]) // 2, at[0] + LEADER_PX), at[2] - LEADER_PX)
    top, bottom = (at[3], box[1]) if at[3] <= box[1] else (box[3], at[1])
    return middle - LEADER_PX // 2, top, middle + LEADER_PX // 2, bottom


def _inside(box: Rectangle, canvas: tuple[int, int], width: int, height: int) -> Rectangle | None:
    """Returns the place at the upper edge of a box that is much larger than its label, or None."""
    x0, y0 = max(0, box[0]), max(0, box[1])
    x1, y1 = min(canvas[0], box[2]), min(canvas[1], box[3])
    if x1 - x0 < width or (y1 - y0) * INSIDE < height:
        return None
    return x0, y0, x0 + width, y0 + height


def _meet(places: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Returns (n,) bool: which of (n, 4) rectangles share a pixel with one of (m, 4)."""
    a, b = places[:, None], taken[None]
    apart = (a[..., 0] >= b[..., 2]) | (b[..., 0] >= a[..., 2]) | (a[..., 1] >= b[..., 3]) | (b[..., 1] >= a[..., 3])
    return np.asarray((~apart).any(axis=1))
