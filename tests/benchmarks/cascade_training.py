"""Trains variants of the cascade: `python tests/benchmarks/cascade_training.py DATA FOLDER VARIANT …`.

Run again, it goes on where it was. Variants: shipped, source, normalised, mined, joined (see `VARIANTS`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

from models.detectors.cascade.shapes import SOURCE, multi_resolution, normalised
from models.training.detection.cascade.levels import CascadeMaterial, CascadeTraining, train_cascade
from models.training.detection.cascade.one_network import NetworkRecipe
from models.training.detection.scenes import Material
from pipeline.run.detection_sets import read_sets
from pipeline.settings.detector_recipe import load_recipe

RECIPE = Path(__file__).parents[2] / "configs/detectors/one_shot.yaml"
PHOTOS = 0.6  # share of the faces that are drawn from photos, not from tiles
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
    "shipped": CascadeTraining(recipes=recipes((1000, 1000, 900), (1000, 600, 500), "float32"), share=0.35, each=24),
    "source": CascadeTraining(shapes=SOURCE, recipes=_BRIEF, batches=_SMALLER, mined=False),
    "normalised": CascadeTraining(shapes=_NORMALISED, recipes=_BRIEF, batches=_SMALLER, mined=False),
    "mined": CascadeTraining(shapes=_NORMALISED, recipes=_BRIEF, batches=_SMALLER),
    "joined": CascadeTraining(shapes=multi_resolution(_NORMALISED), recipes=_BRIEF, batches=_SMALLER),
}


def read_material(data: Path) -> CascadeMaterial:
    """Returns the sets that the one-shot detector learns from, photos and tiles together in one draw of faces."""
    sets = read_sets(load_recipe(RECIPE).sets, data)
    photos = [(some, share * PHOTOS) for some, share in sets.material.photos]
    tiles = [(some, share * (1 - PHOTOS)) for some, share in sets.material.tiles]
    with_faces = tuple(photo for photo in sets.validation if len(photo.boxes))
    return CascadeMaterial(Material(photos, tiles, sets.material.empty), with_faces)


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
