"""Pictures of what a detector found, missed and took for a face: one by one, and on sheets as `sheets.py` draws them.

Not here: the outlines (`models/evaluation/outlines.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.evaluation.detection import Judgement, Outcome
from models.evaluation.outlines import FOUND, KNOWN, WRONG, Colour, outlined
from pipeline.report.known_and_found import Compared
from pipeline.report.page import Single
from pipeline.report.sheets import TILE_PX, TILES, Tile, sheet_png
from transforms.formats.decode import decode
from transforms.formats.encode import as_webp
from transforms.formats.records import Limits, RejectedContent
from transforms.read_again import read_pictures

SINGLE_PX, _QUALITY = 320, 70  # side of a picture by itself, and how well it is kept
HITS, MISSES, FALSE_ALARMS = "hits.png", "misses.png", "false_alarms.png"


@dataclass(frozen=True, slots=True)
class _Shown:
    """A picture that is wanted: the image, the box in its middle, and what stands below."""

    image: int
    box: np.ndarray
    title: str
    note: str


def sheets(
    compared: Compared, judged: Judgement, lines: Iterable[bytes], limits: Limits
) -> tuple[dict[str, bytes], dict[str, list[Single]]]:
    """Returns the sheets by file name, those that have something to show, and their pictures one by one, by their key.

    Args:
        judged: of `compared`.
        lines: of the plan, to read the pictures from.

    Raises:
        InputFault: an image is gone or cannot be read.
    """
    chosen = {
        HITS: _hits(compared, judged),
        MISSES: _misses(compared, judged),
        FALSE_ALARMS: _false_alarms(compared, judged),
    }
    wanted = {one.image for some in chosen.values() for one in some}
    pixels = _pixels(compared, wanted, lines, limits)
    outlines = {image: _outlines(compared, judged, image) for image in wanted}
    drawn = {
        name: sheet_png([_tile(compared, one, pixels, outlines, TILE_PX) for one in some])
        for name, some in chosen.items()
        if some
    }
    singles = {
        name.removesuffix(".png"): list(_singles(_tile(compared, one, pixels, outlines, SINGLE_PX) for one in some))
        for name, some in chosen.items()
    }
    return drawn, singles


def _singles(tiles: Iterable[Tile]) -> Iterator[Single]:
    for tile in tiles:
        if tile.image is not None:
            yield Single(as_webp(tile.image, _QUALITY), tile.title, tile.note, tile.id)


def _hits(compared: Compared, judged: Judgement) -> list[_Shown]:
    """Returns hits from the surest to the least sure, evenly spread over all."""
    rows = np.flatnonzero(judged.outcome == Outcome.HIT)
    rows = rows[np.argsort(-judged.score[rows], kind="stable")]
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(TILES, len(rows))).astype(int))] if len(rows) else rows
    return [
        _Shown(
            image,
            _box(compared, judged, row),
            f"score {judged.score[row]:.3f}",
            f"overlap {judged.box_overlap[row]:.2f}",
        )
        for row, image in zip(rows.tolist(), judged.box_image[rows].tolist(), strict=True)
    ]


def _misses(compared: Compared, judged: Judgement) -> list[_Shown]:
    """Returns the largest faces that were missed."""
    rows = np.flatnonzero(judged.counts & ~judged.found)
    rows = rows[np.argsort(-judged.longer_side[rows], kind="stable")][:TILES]
    shown = []
    for row in rows.tolist():
        image = int(judged.face_image[row])
        box = compared.photos[image].known[judged.face_row[row]]
        words = compared.words[image][int(judged.face_row[row])]
        shown.append(_Shown(image, box, f"missed, {box[2]:.0f}×{box[3]:.0f} px", " ".join(sorted(words))))
    return shown


def _false_alarms(compared: Compared, judged: Judgement) -> list[_Shown]:
    """Returns the surest false alarms."""
    rows = np.flatnonzero(judged.outcome == Outcome.FALSE_ALARM)
    rows = rows[np.argsort(-judged.score[rows], kind="stable")][:TILES]
    shown = []
    for row in rows.tolist():
        overlap = judged.box_overlap[row]
        note = f"overlap {overlap:.2f} only" if overlap else "finds no known face"
        image = int(judged.box_image[row])
        shown.append(_Shown(image, _box(compared, judged, row), f"score {judged.score[row]:.3f}", note))
    return shown


def _box(compared: Compared, judged: Judgement, row: int) -> np.ndarray:
    return np.asarray(compared.photos[int(judged.box_image[row])].found[judged.box_row[row]])


def _outlines(compared: Compared, judged: Judgement, image: int) -> list[tuple[np.ndarray, Colour]]:
    """Returns every known face and every box that counts of an image."""
    known = [(box, KNOWN) for box in compared.photos[image].known]
    rows = np.flatnonzero(judged.box_image == image).tolist()
    wrong = [judged.outcome[row] == Outcome.FALSE_ALARM for row in rows]
    return [
        *known,
        *((_box(compared, judged, row), WRONG if bad else FOUND) for row, bad in zip(rows, wrong, strict=True)),
    ]


def _pixels(compared: Compared, wanted: set[int], lines: Iterable[bytes], limits: Limits) -> dict[int, np.ndarray]:
    row_of = {compared.images[image].id: image for image in wanted}
    asked = {name: compared.images[image].digest for name, image in row_of.items()}
    pixels = {}
    for name, data in read_pictures(lines, asked, limits):
        try:
            pixels[row_of[name]] = decode(data, channels=3, limits=limits).image
        except RejectedContent:  # was readable as grey a moment ago
            continue
    return pixels


def _tile(
    compared: Compared,
    one: _Shown,
    pixels: Mapping[int, np.ndarray],
    outlines: Mapping[int, Sequence[tuple[np.ndarray, Colour]]],
    side: int,
) -> Tile:
    image = pixels.get(one.image)
    picture = None if image is None else outlined(image, one.box, outlines[one.image], side)
    return Tile(picture, one.title, one.note, compared.images[one.image].id)
