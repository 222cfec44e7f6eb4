"""Photos, tiles and scenes without faces that a detector learns from: read once, held decoded in memory.

Sets are tar archives with a table beside them, as `../docs/detectors.md` describes: a row a face, boxes in pixels of
the stored image. Every set states how its boxes become the one convention that is learned: brow to chin, tight.
"""

from __future__ import annotations

import csv
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.evaluation.box_map import BoxMap

TIGHT = ("tx", "ty", "tw", "th")  # columns of a tight box, where a table has them
BOX = ("x", "y", "w", "h")


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded photo and its faces.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        boxes: (m, 4) float32 x, y, width, height in pixels, of the learned convention.
        ignored: (k, 4) float32, faces without a box of that convention.
        group: photos of one group are near copies; "" where the table names none.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    group: str = ""


def members(archive: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, (h, w, 3) uint8 RGB) of an archive's images in its order.

    Raises:
        ValueError: a member is no image.
    """
    with tarfile.open(archive) as opened:
        for member in opened:
            file = opened.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
            if pixels is None:
                raise ValueError(f"{archive}: {member.name} is not an image")
            yield member.name, np.ascontiguousarray(pixels[..., ::-1])


def read_photos(archive: Path, table: Path, maps: Mapping[str, BoxMap]) -> list[Photo]:
    """Returns the photos of a set, in the archive's order.

    Args:
        maps: by beginning of the image's name ("" fits all): from the set's convention to the learned one. A face with
            a tight box needs none; one without either is ignored in training.
    """
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows[row["image"]].append(row)
    return [_photo(pixels, name, rows[name], maps) for name, pixels in members(archive) if name in rows]


def _photo(pixels: np.ndarray, name: str, rows: list[dict[str, str]], maps: Mapping[str, BoxMap]) -> Photo:
    boxes, ignored = [], []
    for row in rows:
        if not row["x"]:
            continue
        box = np.asarray([[float(row[key]) for key in BOX]], np.float32)
        fitting = [start for start in maps if name.startswith(start)]
        if row.get("tx"):
            boxes.append(np.asarray([[float(row[key]) for key in TIGHT]], np.float32))
        elif fitting:
            boxes.append(maps[max(fitting, key=len)](box))
        else:
            ignored.append(box)
    return Photo(pixels, _stacked(boxes), _stacked(ignored), rows[0].get("group") or "")


def _stacked(boxes: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(boxes).astype(np.float32) if boxes else np.zeros((0, 4), np.float32)


def read_tiles(archive: Path, table: Path, maps: Mapping[str, BoxMap], *, covered: bool = False) -> list[Photo]:
    """Returns the tiles of a set of mosaics as photos of one face each.

    Args:
        maps: by how the box was made (column `box_from`); rows of others are left out.
        covered: faces with masks too.
    """
    side = 96  # pixels of a tile
    sheets = dict(members(archive))
    tiles = []
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["box_from"] not in maps or (row["occlusion"] != "none" and not covered):
                continue
            top, left = int(row["row"]) * side, int(row["col"]) * side
            box = np.asarray([[float(row[key]) for key in BOX]], np.float32)
            pixels = np.ascontiguousarray(sheets[row["sheet"]][top : top + side, left : left + side])
            tiles.append(Photo(pixels, maps[row["box_from"]](box).astype(np.float32), _stacked([]), row["group"]))
    return tiles


def read_crops(archive: Path, box: np.ndarray) -> list[Photo]:
    """Returns an archive's images, each a face cropped in one frame, as photos of one face.

    Args:
        box: (4,) x, y, width, height of the tight box in shares of the image's width and height.
    """
    return [
        Photo(pixels, (box * np.tile(pixels.shape[1::-1], 2)).astype(np.float32)[None], _stacked([]))
        for _, pixels in members(archive)
    ]


def read_scenes(archive: Path, left_out: frozenset[str] = frozenset()) -> list[Photo]:
    """Returns an archive's images as photos without faces, but those whose names are left out."""
    return [Photo(pixels, _stacked([]), _stacked([])) for name, pixels in members(archive) if name not in left_out]
