"""Trains variants of the cascade: `python tests/benchmarks/cascade_training.py DATA FOLDER VARIANT …`.

Run again, it goes on where it was. Variants: shipped, source, normalised, mined, joined (see `VARIANTS`).
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Mapping
from pathlib import Path

from models.detectors.cascade.shapes import SOURCE, multi_resolution, normalised
from models.evaluation.box_map import BoxMap
from models.training.detection.cascade import CascadeMaterial, CascadeTraining, train_cascade
from models.training.detection.cascade_networks import NetworkRecipe
from models.training.detection.photos import Photo, read_photos, read_scenes, read_tiles
from models.training.detection.scenes import Material

MASKS = {"mt_": BoxMap(0.0, 0.06, 0.755, 0.81), "ft_": BoxMap(-0.02, -0.12, 0.965, 1.13)}  # to YuNet's tight box
HUMAN = BoxMap(0.0, 0.04, 0.8, 0.87)  # the same for crops_human
ON_PEOPLE = 0.88  # YuNet's score of a photo of pets from which a person may be in it
PRECISE = "mixed_bfloat16"


def recipes(
    detect: tuple[int, int, int], calibrate: tuple[int, int, int], precision: str
) -> Mapping[str, NetworkRecipe]:
    named = zip((12, 24, 48), zip(detect, calibrate, strict=True), strict=True)
    return {
        f"{kind}{side}": NetworkRecipe(count, precision=precision if side == 48 else "float32")
        for side, counts in named
        for kind, count in zip(("detect", "calibrate"), counts, strict=True)
    }


_BRIEF = recipes((1200, 600, 600), (1200, 600, 500), PRECISE)  # the variants: as long as each other, not to the end
_SMALLER = (256, 256, 64)
_NORMALISED = normalised(SOURCE)
VARIANTS = {
    "shipped": CascadeTraining(recipes=recipes((1000, 1000, 1500), (1000, 800, 800), "float32"), share=0.5, each=24),
    "source": CascadeTraining(shapes=SOURCE, recipes=_BRIEF, batches=_SMALLER, mined=False),
    "normalised": CascadeTraining(shapes=_NORMALISED, recipes=_BRIEF, batches=_SMALLER, mined=False),
    "mined": CascadeTraining(shapes=_NORMALISED, recipes=_BRIEF, batches=_SMALLER),
    "joined": CascadeTraining(shapes=multi_resolution(_NORMALISED), recipes=_BRIEF, batches=_SMALLER),
}


def held_out(number: int) -> bool:
    """Whether a scene without faces is kept out of training: every third."""
    return number % 3 == 2


def photos_with_faces(data: Path) -> tuple[list[list[Photo]], list[Photo]]:
    """Returns the photos for training, set by set, and those for validation: one group in twelve."""
    more, faces = data / "faces_more", data / "faces"
    sets = [read_photos(more / f"{name}.tar", more / f"{name}.csv", {}) for name in ("hf_train", "fddb_single")]
    training = [[photo for photo in some if int(photo.group) % 12] for some in sets]
    validation = [photo for some in sets for photo in some if not int(photo.group) % 12]
    masks = read_photos(faces / "train_full.tar", faces / "train_full.csv", MASKS)
    training.append([photo for number, photo in enumerate(masks) if number % 12])
    return training, validation + masks[::12]


def read_material(data: Path) -> CascadeMaterial:
    training, validation = photos_with_faces(data)
    faces = data / "faces"
    tiles = [
        (read_tiles(faces / f"crops_{name}.tar", faces / f"crops_{name}.csv", {made: box}), share)
        for name, made, box, share in (
            ("utk", "yunet", BoxMap(), 0.12),
            ("aaf", "yunet", BoxMap(), 0.12),
            ("ytf", "yunet", BoxMap(), 0.1),
            ("human", "human", HUMAN, 0.06),
        )
    ]
    empty = [
        photo
        for name in ("negatives", "negatives_colour")
        for number, photo in enumerate(read_scenes(data / name / f"{name}.tar"))
        if not held_out(number)
    ]
    with (data / "cats_dogs/yunet_score.csv").open(newline="", encoding="utf-8") as file:
        people = {row["image"] for row in csv.DictReader(file) if float(row["yunet_max_score"]) >= ON_PEOPLE}
    empty += read_scenes(data / "cats_dogs/train.tar.gz", frozenset(people))
    shares = [(some, share) for some, share in zip(training, (0.3, 0.2, 0.1), strict=True)]
    return CascadeMaterial(Material(shares, tiles, empty), tuple(validation))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("variants", choices=VARIANTS, nargs="+")
    arguments = parser.parse_args()
    start, busy = time.time(), time.process_time()

    def report(figures: dict[str, object]) -> None:
        spent = {"s": round(time.time() - start), "cpu_s": round(time.process_time() - busy)}
        print(json.dumps({**figures, **spent}), flush=True)

    material = read_material(arguments.data)
    for variant in arguments.variants:
        train_cascade(arguments.folder / variant, material, VARIANTS[variant], report)
        report({"done": variant})


if __name__ == "__main__":
    main()
