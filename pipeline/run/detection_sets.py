"""The training and validation data of a detector, read from the sets that a recipe names."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from models.evaluation.box_map import BoxMap
from models.training.detection.photos import Photo, read_crops, read_photos, read_scenes, read_tiles
from models.training.detection.scenes import Material
from pipeline.errors import UsageError
from pipeline.settings.detector_recipe import EmptySet, FaceSet, Sets, TileSet

T = TypeVar("T")


@dataclass(frozen=True)
class DetectionData:
    """The training data, and what is held out.

    Attributes:
        material: for training.
        validation: photos with faces of other groups, and the scenes kept out.
    """

    material: Material
    validation: list[Photo]


def read_sets(sets: Sets, data: Path) -> DetectionData:
    """Returns the sets below `data`, split.

    Raises:
        UsageError: a file is missing or damaged; the message names it.
    """
    photos, validation = [], []
    for one in sets.photos:
        listed = _reading(one.archive, partial(read_photos, data / one.archive, data / one.table, _maps(one)))
        held = [held_out(number, photo, sets.validation_every) for number, photo in enumerate(listed)]
        photos.append(([photo for photo, out in zip(listed, held, strict=True) if not out], one.share))
        validation += [photo for photo, out in zip(listed, held, strict=True) if out]
    tiles = [(_tiles(one, data), one.share) for one in sets.tiles]
    tiles += [
        (_reading(one.archive, partial(read_crops, data / one.archive, np.asarray(one.box))), one.share)
        for one in sets.crops
    ]
    empty: list[Photo] = []
    for scene in sets.empty:
        kept, out = _empty(scene, data)
        empty += kept
        validation += out
    if not (any(listed for listed, _ in photos) and any(listed for listed, _ in tiles) and empty and validation):
        raise UsageError("the recipe's sets are too small: photos, tiles and scenes are needed, and some to hold out")
    return DetectionData(Material(photos, tiles, empty), validation)


def _tiles(one: TileSet, data: Path) -> list[Photo]:
    read = partial(read_tiles, data / one.archive, data / one.table, _maps(one), covered=one.covered)
    return _reading(one.archive, read)


def held_out(number: int, photo: Photo, every: int) -> bool:
    """Returns True if a photo is held out: the number of its group, or else its own, is a multiple."""
    return (int(photo.group) if photo.group.isdecimal() else number) % every == 0


def _empty(scene: EmptySet, data: Path) -> tuple[list[Photo], list[Photo]]:
    """Returns the scenes to learn from and those held out."""
    left_out = _reading(scene.scores or "", lambda: _suspected(scene, data))
    listed = _reading(scene.archive, lambda: read_scenes(data / scene.archive, left_out))
    if scene.keep_out is None:
        return listed, []
    step, first = scene.keep_out
    out = [number % step == first for number in range(len(listed))]
    return (
        [photo for photo, kept_out in zip(listed, out, strict=True) if not kept_out],
        [photo for photo, kept_out in zip(listed, out, strict=True) if kept_out],
    )


def _suspected(scene: EmptySet, data: Path) -> frozenset[str]:
    """Returns the names of images that may show a person."""
    if scene.scores is None:
        return frozenset()
    with (data / scene.scores).open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows, None)
        return frozenset(name for name, score in rows if float(score) >= scene.above)


def _maps(one: FaceSet) -> dict[str, BoxMap]:
    return {start: BoxMap(*numbers) for start, numbers in one.maps.items()}


def _reading(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except OSError as error:
        raise UsageError(f"--data: {error.filename or name} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, tarfile.TarError, csv.Error) as error:
        raise UsageError(f"--data: {name} is damaged or not a set of this kind: {error}") from error


def counted(data: DetectionData) -> Sequence[str]:
    """Returns the amount of data, in words."""
    faces = sum(len(photo.boxes) for listed, _ in data.material.photos for photo in listed)
    return [
        f"{sum(len(listed) for listed, _ in data.material.photos):,} photos with {faces:,} faces",
        f"{sum(len(listed) for listed, _ in data.material.tiles):,} tiles",
        f"{len(data.material.empty):,} scenes without faces",
        f"{len(data.validation):,} images held out",
    ]
