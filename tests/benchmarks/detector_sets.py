"""Photos with known faces for detectors.py, as they are and changed; photos without a face; tiles pasted into scenes.

No benchmark itself. Images are (h, w, 3) uint8 RGB, boxes (n, 4) x, y, width, height in pixels.
"""

from __future__ import annotations

import csv
import itertools
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from models.evaluation import image_changes
from models.evaluation.image_changes import KnownPhoto

TILE = 96  # pixels of a tile in a mosaic
PASTED, CANVAS, FEATHER = 64, 192, 4  # pixels of a pasted tile, of the scene around it, of the soft edge between them
PET_ZOOM = 1.6  # as yunet_score.csv
RACES = ("white", "black", "asian", "indian", "other")  # of UTKFace
AGES = (0, 10, 20, 40, 60, 200)


@dataclass(frozen=True)
class Scene:
    """A photo and its known faces.

    Attributes:
        known: (n, 4). ignored: (n,) bool, faces that do not count.
        words: said of each face. group: of the photo, where recall is reported by group.
    """

    name: str
    image: np.ndarray
    known: np.ndarray
    ignored: np.ndarray
    words: tuple[str, ...] = ()
    group: tuple[str, ...] = ()


def members(archive: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and pixels of the images of an archive."""
    with tarfile.open(archive) as opened:
        for member in opened:
            file = opened.extractfile(member) if member.isfile() else None
            pixels = None if file is None else cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
            if pixels is not None:
                yield member.name, pixels


def table_of(path: Path) -> dict[str, list[dict[str, str]]]:
    """Returns the rows of a table by image; one without faces has none."""
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found = rows[row["image"]]
            if row["x"]:
                found.append(row)
    return rows


def read_set(data: Path, name: str, least_px: float = 0) -> list[Scene]:
    """Returns the photos of a set with boxes by people; masked, invalid and smaller faces do not count."""
    folder = data / ("faces_more" if name == "fddb_multi" else "faces")
    rows = table_of(folder / f"{name}.csv")
    scenes = []
    for image, pixels in members(folder / f"{name}.tar"):
        if image not in rows:
            continue
        faces = [row for row in rows[image] if row.get("box_from", "human") == "human"]
        known = np.asarray([[float(row[key]) for key in "xywh"] for row in faces], float).reshape(-1, 4)
        out = [row.get("occlusion", "none") != "none" or "invalid1" in row.get("flags", "") for row in faces]
        small = known[:, 2:].min(axis=1, initial=np.inf) < least_px
        words = tuple(row.get("flags", "") for row in faces)
        scenes.append(Scene(image, pixels, known, np.asarray(out, bool) | small, words))
    return scenes


def without_faces(archive: Path, *, every_third: bool = False, zoom: float = 1.0) -> list[Scene]:
    """Returns photos in which nothing is to be found.

    Args:
        every_third: True for those kept out of training: the third, sixth, … of the archive's order.
        zoom: enlargement.
    """
    scenes = []
    for number, (name, image) in enumerate(members(archive)):
        if every_third and number % 3 != 2:
            continue
        if zoom != 1:
            image = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
        scenes.append(Scene(name, image, np.zeros((0, 4)), np.zeros(0, bool)))
    return scenes


# --- changes ----------------------------------------------------------------------------------------------------------


def _applied(change: Callable[[KnownPhoto], KnownPhoto]) -> Callable[[Scene], Scene]:
    def to_scene(scene: Scene) -> Scene:
        changed = change(KnownPhoto(scene.image, scene.known, scene.ignored))
        return replace(scene, image=changed.pixels, known=changed.known)

    return to_scene


CHANGES: dict[str, Callable[[Scene], Scene]] = {
    "as they are": lambda scene: scene,
    **{name: _applied(change) for name, change in image_changes.CHANGES.items()},
}


# --- tiles by group ---------------------------------------------------------------------------------------------------


def pasted_tiles(data: Path, name: str, count: int) -> list[Scene]:
    """Returns tiles of crops_utk or crops_aaf, evenly chosen, each in the middle of a scene without faces.

    A tile of 96 pixels becomes 64 in 192 × 192 of a scene of negatives_colour's held-out third (in turn), with a soft
    edge of 4 pixels. UTKFace's tiles are tight: hair and chin are cut off, which no photo does.
    """
    scenes = [scene.image for scene in without_faces(data / "negatives_colour/negatives_colour.tar", every_third=True)]
    sheets = dict(members(data / "faces" / f"{name}.tar"))
    with (data / "faces" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    return [_pasted(row, sheets[row["sheet"]], scenes[i % len(scenes)]) for i, row in enumerate(chosen)]


def _pasted(row: dict[str, str], sheet: np.ndarray, scene: np.ndarray) -> Scene:
    top, left = int(row["row"]) * TILE, int(row["col"]) * TILE
    tile = cv2.resize(sheet[top : top + TILE, left : left + TILE], (PASTED, PASTED), interpolation=cv2.INTER_AREA)
    canvas = cv2.resize(scene, (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR).astype(float)
    ramp = np.minimum(np.minimum(np.arange(PASTED) + 1, PASTED - np.arange(PASTED)) / (FEATHER + 1), 1)
    soft = np.minimum(ramp[:, None], ramp)[..., None]
    at = (CANVAS - PASTED) // 2
    inner = canvas[at : at + PASTED, at : at + PASTED]
    canvas[at : at + PASTED, at : at + PASTED] = inner * (1 - soft) + tile * soft
    box = np.asarray([[float(row[key]) for key in "xywh"]]) * PASTED / TILE + [at, at, 0, 0]
    return Scene(row["group"], np.round(canvas).astype(np.uint8), box, np.zeros(1, bool), group=groups_of(row["attr"]))


def groups_of(attributes: str) -> tuple[str, ...]:
    """Returns the groups of a tile's face: age, and sex and skin where the set tells them as UTKFace names them.

    >>> groups_of("age33 g1 r0")
    ('age 20–39', 'women', 'white')
    """
    groups = []
    for word in attributes.split():
        if word.startswith("age"):
            age = int(word.removeprefix("age"))
            low, high = next((a, b) for a, b in itertools.pairwise(AGES) if a <= age < b)
            groups.append(f"age {low}–{high - 1}" if high < 200 else f"age {low}+")
        elif word[0] == "g":
            groups.append(("men", "women")[int(word[1:])])
        elif word[0] == "r":
            groups.append(RACES[int(word[1:])])
    return tuple(groups)
