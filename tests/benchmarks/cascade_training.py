"""Trains variants of the cascade: `python tests/benchmarks/cascade_training.py DATA FOLDER VARIANT …`.

Run again, it goes on where it was. `package` trains what ships, as it was trained; the variants are those of
`models/training/detection/cascade/variants.py`, `all` stands for all of them. `cascade_table.py --train` trains and
measures in one go. `--length 0.01 --photos 20` is a rehearsal: so much of every network's steps, on so many photos of
each set; give it a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from models.training.detection.cascade.levels import CascadeMaterial, CascadeTraining, train_cascade
from models.training.detection.cascade.one_network import NetworkRecipe
from models.training.detection.cascade.variants import VARIANTS, shortened, train_variants
from models.training.detection.scenes import Material
from pipeline.run.detection_sets import read_sets
from pipeline.settings.detector_recipe import load_recipe

RECIPE = Path(__file__).parents[2] / "configs/detectors/one_shot.yaml"
PHOTOS = 0.6  # share of the faces that are drawn from photos, not from tiles
STEPS = {
    "detect12": 1000,
    "calibrate12": 1000,
    "detect24": 1000,
    "calibrate24": 600,
    "detect48": 900,
    "calibrate48": 500,
}
SHIPPED = CascadeTraining(
    recipes={name: NetworkRecipe(steps) for name, steps in STEPS.items()}, share=0.35, each=24
)  # the cascade in the package


def read_material(data: Path, most: int | None = None) -> CascadeMaterial:
    """Returns the sets that the one-shot detector learns from, photos and tiles together in one draw of faces.

    Args:
        most: images of each set; None for all.
    """
    sets = read_sets(load_recipe(RECIPE)[0].sets, data)
    photos = [(some[:most], share * PHOTOS) for some, share in sets.material.photos]
    tiles = [(some[:most], share * (1 - PHOTOS)) for some, share in sets.material.tiles]
    with_faces = tuple(photo for photo in sets.validation if len(photo.boxes))
    return CascadeMaterial(Material(photos, tiles, sets.material.empty[:most]), with_faces[:most])


def train(data: Path, folder: Path, names: Sequence[str], length: float, most: int | None = None) -> None:
    """Trains what is not trained yet; prints lines of JSON."""
    start, busy = time.time(), time.process_time()

    def report(figures: dict[str, object]) -> None:
        spent = {"s": round(time.time() - start), "cpu_s": round(time.process_time() - busy)}
        print(json.dumps({**figures, **spent}), flush=True)

    missing = [name for name in names if not (folder / name / "cascade.npz").exists()]
    if not missing:
        return
    material = read_material(data, most)
    for name in missing:
        if name == "package":
            train_cascade(folder / name, material, shortened(SHIPPED, length), report)
        else:
            train_variants(folder, material, [name], report, length=length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("variants", choices=[*VARIANTS, "package", "all"], nargs="+")
    parser.add_argument("--length", type=float, default=1.0, help="factor of every network's steps")
    parser.add_argument("--photos", type=int, help="of each set at most so many")
    arguments = parser.parse_args()
    names = list(VARIANTS) if "all" in arguments.variants else arguments.variants
    train(arguments.data, arguments.folder, names, arguments.length, arguments.photos)


if __name__ == "__main__":
    main()
