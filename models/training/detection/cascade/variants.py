"""Variants of the cascade that are compared: one change at a time from the cascade of the source.

| variant | what is different |
|---|---|
| `source` | the write-up's and the paper's networks; windows without a face come from anywhere |
| `normalised` | as `source`, with batch normalisation and half the dropout |
| `mined` | as `normalised`; levels 2 and 3 learn on what the levels before leave |
| `one_set` | as `mined`, on one set of photos; no tiles and no other photos |
| `multi_resolution` | as `mined`, the smaller networks joined to those of levels 2 and 3 |
| `larger` | as `mined`, the last detection network twice as wide |
| `inceptron` | as `mined`, the last detection network of three inception modules; `inceptron4`: of four |
| `shipped` | the networks that ship, trained as long as those |
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from models.detectors.cascade.shapes import (
    SHIPPED,
    SOURCE,
    NetworkShape,
    inceptron,
    larger,
    multi_resolution,
    normalised,
)
from models.training.detection.cascade.levels import CascadeMaterial, CascadeTraining, train_cascade
from models.training.detection.cascade.one_network import NetworkRecipe, Report
from models.training.detection.scenes import Material

PRECISE = "mixed_bfloat16"
LEAST_STEPS = 2  # of a network, however much a training is shortened
LAST_LEVEL = ("detect48", "calibrate48", "threshold48")


@dataclass(frozen=True)
class Variant:
    """A cascade to compare.

    Attributes:
        training: how it is trained.
        same_levels: a variant with the same levels 1 and 2, which are taken from it once it is trained.
        one_set: True to learn from the first set of photos alone.
    """

    training: CascadeTraining
    same_levels: str | None = None
    one_set: bool = False


def _recipes(detect: tuple[int, int, int], calibrate: tuple[int, int, int]) -> Mapping[str, NetworkRecipe]:
    named = zip((12, 24, 48), zip(detect, calibrate, strict=True), strict=True)
    return {
        f"{kind}{side}": NetworkRecipe(count, precision=PRECISE if side == 48 else "float32")
        for side, counts in named
        for kind, count in zip(("detect", "calibrate"), counts, strict=True)
    }


_BRIEF = _recipes((1200, 600, 600), (1200, 600, 500))  # as long as each other, not to the end
_NORMALISED = normalised(SOURCE)


def _like_mined(last: NetworkShape) -> Variant:
    return Variant(_training({**_NORMALISED, "detect48": last}), same_levels="mined")


def _training(shapes: Mapping[str, NetworkShape], *, mined: bool = True) -> CascadeTraining:
    return CascadeTraining(shapes=shapes, recipes=_BRIEF, batches=(256, 256, 64), mined=mined)


VARIANTS: dict[str, Variant] = {
    "source": Variant(_training(SOURCE, mined=False)),
    "normalised": Variant(_training(_NORMALISED, mined=False)),
    "mined": Variant(_training(_NORMALISED)),
    "one_set": Variant(_training(_NORMALISED), one_set=True),
    "multi_resolution": Variant(_training(multi_resolution(_NORMALISED))),
    "larger": _like_mined(larger(_NORMALISED["detect48"])),
    "inceptron": _like_mined(inceptron(3)),
    "inceptron4": _like_mined(inceptron(4)),
    "shipped": Variant(_training(SHIPPED)),
}


def train_variants(
    folder: Path, material: CascadeMaterial, names: Iterable[str], report: Report, *, length: float = 1.0
) -> None:
    """Trains variants into folders of their names; what is finished there is not made again.

    Args:
        length: factor of the steps of every network. A folder is of one length.
        report: is given a dictionary of metrics now and then, with the variant's name.
    """
    alone = _first_set(material)
    for name in names:
        variant = VARIANTS[name]
        if variant.same_levels is not None:
            _take_levels(folder / variant.same_levels, folder / name)
        training = shortened(variant.training, length)
        label = {"variant": name}
        train_cascade(
            folder / name,
            alone if variant.one_set else material,
            training,
            lambda metrics, label=label: report({**label, **metrics}),  # type: ignore[misc]
        )


def shortened(training: CascadeTraining, length: float) -> CascadeTraining:
    """Returns the training with every network's steps, and the windows drawn anywhere, times `length`."""
    recipes = {
        name: replace(recipe, steps=max(LEAST_STEPS, round(recipe.steps * length)))
        for name, recipe in training.recipes.items()
    }
    return replace(training, recipes=recipes, empty=max(100, round(training.empty * min(1.0, length))))


def _first_set(material: CascadeMaterial) -> CascadeMaterial:
    photos = material.training.photos[:1]
    return replace(material, training=Material(photos, [], material.training.empty))


def _take_levels(source: Path, target: Path) -> None:
    """Copies what levels 1 and 2 have finished, and the windows mined by them: all but the last level's own."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*")) if source.exists() else ():
        own = path.name == "cascade.npz" or path.name.startswith(LAST_LEVEL) or ".checkpoint" in path.name
        if path.suffix in (".npz", ".json") and not own and not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
