"""Pictures with a caption each, on one sheet: to see what numbers are about. Returns the bytes of a PNG.

Not here: reading the pictures, and choosing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.report.drawing import GREY, INK, as_png, new_figure, our_look, shortened

TILE_PX = 144  # side of a picture on the sheet
COLUMNS = 8
TILES = 40  # on a sheet, at most: what one looks at before tiring
_CELL_PX = 168
_CAPTION_PX = 58
_EDGE_PX = 14
_DPI = 144
_TITLE_PT, _NOTE_PT, _ID_PT = 7.0, 6.5, 5.0
_TITLE_LETTERS, _ID_LETTERS = 22, 28


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture and what stands below it.

    Attributes:
        image: (TILE_PX, TILE_PX, 3) uint8 RGB, or None if the picture is unavailable.
        title, note: a line each.
        id: of the image; its end is shown.
    """

    image: np.ndarray | None
    title: str
    note: str
    id: str


def sheet_png(tiles: Sequence[Tile]) -> bytes:
    """Returns a sheet of up to `TILES` pictures, row by row."""
    tiles = tiles[:TILES]
    columns = min(COLUMNS, len(tiles))
    lines = -(-len(tiles) // columns)
    width = 2 * _EDGE_PX + columns * _CELL_PX
    height = 2 * _EDGE_PX + lines * (TILE_PX + _CAPTION_PX)
    with our_look():
        figure = new_figure(width / _DPI, height / _DPI)
        figure.set_dpi(_DPI)
        canvas = np.full((height, width, 3), 255, np.uint8)
        for number, tile in enumerate(tiles):
            left = _EDGE_PX + number % columns * _CELL_PX + (_CELL_PX - TILE_PX) // 2
            top = _EDGE_PX + number // columns * (TILE_PX + _CAPTION_PX)
            canvas[top : top + TILE_PX, left : left + TILE_PX] = _picture(tile)
            middle = (left + TILE_PX / 2) / width
            for text, size, colour, down in (
                (shortened(tile.title, _TITLE_LETTERS), _TITLE_PT, INK, 3),
                (shortened(tile.note, _TITLE_LETTERS), _NOTE_PT, INK, 20),
                (shortened(tile.id, _ID_LETTERS, keep_end=True), _ID_PT, GREY, 36),
            ):
                y = 1 - (top + TILE_PX + down) / height
                figure.text(middle, y, text, fontsize=size, color=colour, ha="center", va="top")
        figure.figimage(canvas, origin="upper")
        return as_png(figure, _DPI)


def _picture(tile: Tile) -> np.ndarray:
    if tile.image is not None:
        return tile.image
    blank = np.full((TILE_PX, TILE_PX, 3), 235, np.uint8)
    diagonal = np.arange(TILE_PX)
    blank[diagonal, diagonal] = blank[diagonal, TILE_PX - 1 - diagonal] = 200
    return blank
