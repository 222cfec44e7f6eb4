"""Training of the cascade, level by level: networks, thresholds for a stated recall, windows mined for the next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from models.detectors.cascade.detector import Cascade
from models.detectors.cascade.export import map_graph, windows_graph
from models.detectors.cascade.shapes import SHIPPED, SIDES, STRIDES, Shapes
from models.detectors.cascade.weights import CascadeWeights, write_weights
from models.detectors.options import CascadeOptions
from models.training.detection.cascade.mining import Mined, best_scores, mined, threshold_for
from models.training.detection.cascade.one_network import Batches, NetworkRecipe, Report, train_network
from models.training.detection.cascade.windows import (
    LARGEST,
    FacePatches,
    averaged,
    calibration_pairs,
    empty_windows,
    face_patches,
    face_windows,
    near_patterns,
    relit,
)
from models.training.detection.photos import Photo
from models.training.detection.scenes import Material

OPEN = 0.02  # a threshold that lets nearly all faces pass, while a level's own is looked for


@dataclass(frozen=True)
class CascadeMaterial:
    """What a cascade learns from.

    Attributes:
        training: photos, tiles and scenes without faces.
        validation: photos of other groups, for the thresholds.
    """

    training: Material
    validation: tuple[Photo, ...]


def _recipes() -> dict[str, NetworkRecipe]:
    steps = {"detect12": 1500, "calibrate12": 1500, "detect24": 1500, "calibrate24": 1500}
    recipes = {name: NetworkRecipe(number) for name, number in steps.items()}
    return {**recipes, "detect48": NetworkRecipe(2500), "calibrate48": NetworkRecipe(1500)}


@dataclass(frozen=True)
class CascadeTraining:
    """How a cascade is trained.

    Attributes:
        shapes: of the six networks by name.
        recipes: of their training by name.
        batches: windows of a batch at each level.
        faces: share of windows with a face in a batch of a detection network.
        recalls: share of the faces that reach a level and are to pass it.
        mined: windows for levels 2 and 3 come from what the levels before leave; if not, from anywhere.
        share: of the training photos that are searched for them.
        each: windows without a face that are mined of a photo.
        empty: windows without a face that are drawn anywhere, about.
        search: how faces are looked for meanwhile.
        seed: of all that is drawn.
    """

    shapes: Shapes = field(default_factory=lambda: SHIPPED)
    recipes: Mapping[str, NetworkRecipe] = field(default_factory=_recipes)
    batches: tuple[int, int, int] = (256, 256, 128)
    faces: float = 0.3
    recalls: tuple[float, float, float] = (0.99, 0.98, 0.95)
    mined: bool = True
    share: float = 1.0
    each: int = 16
    empty: int = 10_000
    search: CascadeOptions = field(default_factory=lambda: CascadeOptions(scale_step=1.4, max_windows=(600, 200)))
    seed: int = 0


def train_cascade(folder: Path, material: CascadeMaterial, training: CascadeTraining, report: Report) -> CascadeWeights:
    """Returns a trained cascade and writes it to `cascade.npz` in the folder.

    What the folder holds already is not made again: networks, mined windows and thresholds are kept as they are
    finished, a network's training goes on from its checkpoint.

    Args:
        folder: its own, one a training.
        report: is given a dictionary of metrics now and then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = CascadeWeights({}, ())
    stored = _stored(material.training, training)
    for level, side in enumerate(SIDES):
        faces = stored.faces.reduced_to(side)
        anywhere = averaged(stored.empty, LARGEST // side)
        left = _mined(folder, weights, material, training, level) if level and training.mined else None
        networks = dict(weights.networks)
        for kind in ("detect", "calibrate"):
            name = f"{kind}{side}"
            batches = (
                _detection(faces, anywhere, left, training, level)
                if kind == "detect"
                else partial(_calibration, faces, training, level)
            )
            networks.update(_network(folder, name, batches, training, report))
        weights = _with_threshold(folder, networks, weights, material, training)
        report({"level": level + 1, "thresholds": weights.thresholds})
    write_weights(folder / "cascade.npz", weights)
    return weights


def _network(folder: Path, name: str, batches: Batches, training: CascadeTraining, report: Report) -> dict[str, bytes]:
    shape = training.shapes[name]
    arrays = train_network(name, shape, batches, training.recipes[name], folder, report)
    if name == "detect12":
        return {f"{name}_{stride}": map_graph(shape, arrays, stride) for stride in STRIDES}
    return {name: windows_graph(shape, arrays)}


@dataclass(frozen=True)
class _Stored:
    """Windows of 48 pixels that all levels draw from."""

    faces: FacePatches
    empty: np.ndarray


_LAST: dict[str, Any] = {}  # what was drawn last: variants that are trained one after the other share it


def _stored(material: Material, training: CascadeTraining) -> _Stored:
    asked = (id(material), training.empty, training.seed)
    if _LAST.get("asked") != asked:
        faces = face_patches(material, training.seed)
        found = _Stored(faces, empty_windows(material, training.empty, training.seed))
        _LAST.update(asked=asked, material=material, found=found)
    return cast(_Stored, _LAST["found"])


# --- batches ------------------------------------------------------------------------------------------------------


def _calibration(faces: FacePatches, training: CascadeTraining, level: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng([training.seed, level, step, 1])
    return calibration_pairs(faces, training.batches[level], draw)


def _detection(
    faces: FacePatches, anywhere: np.ndarray, left: Mined | None, training: CascadeTraining, level: int
) -> Batches:
    size = training.batches[level]
    count = round(size * training.faces)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng([training.seed, level, step, 0])
        shown = [face_windows(faces, near_patterns(count, draw), draw)]
        hard = anywhere[:0]
        if left is not None:
            real = _drawn(left.faces, count // 3, draw)
            shown[0][: len(real)] = _flipped(real, draw)
            hard = _flipped(_drawn(left.empty, (size - count) * 4 // 5, draw), draw)
        shown += [hard, _flipped(_drawn(anywhere, size - count - len(hard), draw), draw)]
        classes = np.zeros(size, np.int32)
        classes[:count] = 1
        return relit(np.concatenate(shown), draw), classes

    return batch


def _drawn(windows: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Returns as many windows as are asked for; none if there are none to draw from."""
    return np.asarray(windows[draw.integers(len(windows), size=count)] if len(windows) else windows)


def _flipped(windows: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    windows = windows.copy()
    some = draw.random(len(windows)) < 0.5
    windows[some] = windows[some, :, ::-1]
    return windows


# --- between the levels -------------------------------------------------------------------------------------------


def _mined(
    folder: Path, weights: CascadeWeights, material: CascadeMaterial, training: CascadeTraining, level: int
) -> Mined:
    """Returns what the levels so far leave of the training photos, kept in the folder."""
    path = folder / f"mined{SIDES[level]}.npz"
    if not path.exists():
        photos = [photo for some, _ in material.training.photos for photo in some] + [*material.training.empty]
        drawn = np.random.default_rng([training.seed, level]).random(len(photos)) < training.share
        some = [photo for photo, chosen in zip(photos, drawn, strict=True) if chosen]
        found = mined(Cascade(training.search, weights=weights), some, SIDES[level], training.each, training.seed)
        with path.with_suffix(".tmp").open("wb") as file:
            np.savez(file, allow_pickle=False, faces=found.faces, empty=found.empty)
        path.with_suffix(".tmp").replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return Mined(stored["faces"], stored["empty"])


def _with_threshold(
    folder: Path,
    networks: Mapping[str, bytes],
    weights: CascadeWeights,
    material: CascadeMaterial,
    training: CascadeTraining,
) -> CascadeWeights:
    """Returns the weights with the new level's networks, and the threshold that lets the stated share of faces pass."""
    level = len(weights.thresholds)
    path = folder / f"threshold{SIDES[level]}.json"
    if not path.exists():
        opened = CascadeWeights(networks, (*weights.thresholds, OPEN))
        search = replace(training.search, max_windows=(4000, 1000), overlaps=(1.0, 1.0, 1.0))
        scores = best_scores(Cascade(search, weights=opened), material.validation, search.min_face_px)
        found = threshold_for(training.recalls[level], scores)
        path.write_text(json.dumps({"threshold": found, "recall": float((scores >= found).mean())}), encoding="utf-8")
    threshold = float(json.loads(path.read_text(encoding="utf-8"))["threshold"])
    return CascadeWeights(networks, (*weights.thresholds, threshold))
