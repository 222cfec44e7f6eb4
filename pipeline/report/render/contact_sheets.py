"""Contact sheets: photos in rows of equal height that fill the width, each with its boxes and a caption; no gaps.

A sheet is given out as soon as it is full, so one sheet is in memory, however many photos there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.detectors.cropping import reduced, resized
from pipeline.report.photo import Photo
from pipeline.report.render.drawn_photo import (
    INK,
    PAPER,
    SOFT,
    Item,
    Look,
    counted,
    draw_item,
    drawn_photo,
    item_width,
)
from pipeline.report.render.lettering import draw_text, height_of, shortened
from pipeline.report.visible_names import visible

WIDTH, HEIGHT = 1600, 2000  # pixels of a sheet, its height at most
ROW_PX = 250  # height of a row of photos, at most
EDGE, GAP = 16, 10
LETTERS = 13
CAPTION_PX = 2 * height_of(LETTERS) + 6
NARROWEST, WIDEST = 0.35, 3.5  # width by height: longer photos are shown in full, on grey
MAT = 235  # grey beside such a photo
_LOOK = Look(sure=False)


@dataclass(frozen=True, slots=True)
class _Tile:
    """A photo on its way to a sheet: reduced to `ROW_PX`, and how wide it is at height 1."""

    image: np.ndarray
    photo: Photo
    aspect: float


@dataclass(slots=True)
class ContactSheets:
    """Collects photos and gives out sheets, (h, w, 3) uint8 RGB each.

    Attributes:
        classes: of the head.
    """

    classes: Sequence[str]
    _row: list[_Tile] = field(default_factory=list)
    _rows: list[np.ndarray] = field(default_factory=list)

    def add(self, image: np.ndarray, photo: Photo) -> Iterator[np.ndarray]:
        """Takes a photo; yields a sheet if one is full.

        Args:
            image: (h, w, 3) uint8 RGB, the upright photo, reduced or not.
        """
        aspect = min(WIDEST, max(NARROWEST, photo.width / max(photo.height, 1)))
        longest = round(ROW_PX * max(1.0, photo.width / max(photo.height, 1)))
        small = np.array(reduced(image, min(longest, WIDTH)))  # a copy: the image itself must not stay in memory
        self._row.append(_Tile(small, photo, aspect))
        if self._height() <= ROW_PX:
            self._close_row()
            yield from self._full()

    def finish(self) -> Iterator[np.ndarray]:
        """Yields the last sheets, the last of which may be short."""
        if self._row:
            self._close_row()
        yield from self._full()
        if self._rows:
            yield self._sheet(self._rows)
            self._rows = []

    def _height(self) -> float:
        """Returns the height at which the present row fills the width."""
        room = WIDTH - 2 * EDGE - GAP * (len(self._row) - 1)
        return room / sum(tile.aspect for tile in self._row)

    def _close_row(self) -> None:
        height = min(ROW_PX, max(1, int(self._height())))
        fills = self._height() <= ROW_PX
        room = WIDTH - 2 * EDGE - GAP * (len(self._row) - 1)
        ends = np.cumsum([tile.aspect for tile in self._row])
        ends = np.round(ends * (room / ends[-1] if fills else height)).astype(int)
        row = np.full((height + CAPTION_PX, WIDTH, 3), PAPER, np.uint8)
        left = EDGE
        for tile, width in zip(self._row, np.diff(ends, prepend=0).tolist(), strict=True):
            _draw(row[:, left : left + width], tile, height, self.classes)
            left += width + GAP
        self._rows.append(row)
        self._row = []

    def _full(self) -> Iterator[np.ndarray]:
        height = 2 * EDGE
        for number, row in enumerate(self._rows):
            height += len(row) + GAP
            if height > HEIGHT:
                yield self._sheet(self._rows[:number])
                self._rows = self._rows[number:]
                return

    def _sheet(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        edge = np.full((EDGE, WIDTH, 3), PAPER, np.uint8)
        between = np.full((GAP, WIDTH, 3), PAPER, np.uint8)
        return np.concatenate([edge, *(part for row in rows for part in (row, between)), edge[: EDGE - GAP]])


def _draw(space: np.ndarray, tile: _Tile, height: int, classes: Sequence[str]) -> None:
    """Draws a photo and its caption into their space of a sheet."""
    width = space.shape[1]
    photo = tile.photo
    factor = min(width / max(photo.width, 1), height / max(photo.height, 1))
    size = (
        max(1, min(height, round(photo.height * factor))),
        max(1, min(width, round(photo.width * factor))),
    )
    if abs(size[0] - height) <= 1 and abs(size[1] - width) <= 1:
        size = (height, width)  # rounding must not leave a line of grey
    space[:height] = MAT
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    drawn = drawn_photo(resized(tile.image, size), photo, classes, size, _LOOK)
    space[top : top + size[0], left : left + size[1]] = drawn
    _caption(space[height:], photo, classes)


def _caption(space: np.ndarray, photo: Photo, classes: Sequence[str]) -> None:
    width, left = space.shape[1], 0
    for item in _fitting(counted(photo, classes), width):
        draw_item(space, item, left, 3, LETTERS)
        left += item_width(item, LETTERS) + LETTERS // 2
    name = shortened(visible(photo.image_id), LETTERS, width, keep_end=True)
    draw_text(space, name, 0, 3 + height_of(LETTERS), LETTERS, SOFT)


def _fitting(items: Sequence[Item], width: int) -> Iterator[Item]:
    """Yields the words that fit one line; the last one tells that others do not."""
    left = 0
    for number, item in enumerate(items):
        more = item_width(Item("..."), LETTERS) + LETTERS // 2 if number + 1 < len(items) else 0
        if left + item_width(item, LETTERS) + more > width:
            if number:
                yield Item("...")
            else:
                yield Item(shortened(item.text, LETTERS, max(0, width - LETTERS)), item.colour or INK)
            return
        left += item_width(item, LETTERS) + LETTERS // 2
        yield item
