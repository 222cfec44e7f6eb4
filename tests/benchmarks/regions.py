"""What the ideas of system S5 bring: attention, regions, thirtyfold changes, balanced draws, in small trainings.

Every row is a small `face_vgg` on a share of FER2013's training part, judged on its test part; seeds draw other images,
weights and orders, the same for all rows. Intervals of the difference to `plain` are 95 %, by Student's t over seeds.
Jittered rows are the attention of that seed, judged again with an error on every landmark.

Everything is read once, and every training resumes after its last whole epoch: run the same command with the same
`--work` after a kill. The table holds the finished trainings. One thread.
"""

from __future__ import annotations

import json
import os
import statistics
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import measuring
import numpy as np

SHAPE = ((24, 48, 96, 128), 1)  # widths and convolutions of small.yaml
STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # 97.5 %, by the number of seeds
JITTERS = (2, 5, 10)  # mean error of a landmark, in pixels of a 224-pixel crop
PARTS = {"train": "train.tar.gz", "test": "test.tar"}


@dataclass(frozen=True)
class Row:
    """A training: what differs from `plain`.

    Attributes:
        share: of the training images, 1 over this.
        settings: of the recipe.
    """

    name: str
    backbone: str = "face_vgg"
    share: int = 10
    settings: tuple[tuple[str, Any], ...] = ()


PLAIN = Row("plain")
ROWS = (
    PLAIN,
    Row("attention", "face_vgg_attention"),
    Row("regions", "face_vgg_regions"),
    Row("even grid", "face_vgg_grid"),
    Row("thirtyfold", settings=(("thirtyfold", True),)),
    Row("balanced draws", settings=(("imbalance", "balanced_draws"),)),
    Row("class weights", settings=(("imbalance", "inverse_sqrt"),)),
    Row("plain, 1 %", share=100),
    Row("thirtyfold, 1 %", share=100, settings=(("thirtyfold", True),)),
)


def images(path: Path) -> tuple[np.ndarray, list[str]]:
    """Returns (n, 48, 48, 1) uint8 pixels and the labels of a tar of class folders."""
    import cv2

    pixels, labels = [], []
    with tarfile.open(path) as opened:
        for member in opened:
            file = opened.extractfile(member) if member.isfile() else None
            if file is not None:
                pixels.append(cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_GRAYSCALE))
                labels.append(member.name.partition("/")[0])
    return np.stack(pixels)[..., None], labels


def recipe_of(row: Row, seed: int, epochs: int) -> Any:
    """Returns the recipe of a training: no random changes but a mirror, unless the row has others."""
    from models.training.recipe import Recipe

    still = dict.fromkeys(("shift", "rotation", "scale", "shrink", "contrast", "brightness", "blur", "erase"), 0.0)
    plain = Recipe(
        epochs=epochs * (4 if row.share == 100 else 1),
        batch_size=32 if row.share == 100 else 64,
        learning_rate=0.05,
        warmup_epochs=1,
        weight_decay=1e-3,
        ema_decay=0.9,
        crop=0,
        seed=seed,
        precision="float32",
        **still,
    )
    return replace(plain, **dict(row.settings))


def trained(row: Row, seed: int, epochs: int, data: dict[str, Any], place: Path) -> Any:
    """Returns a network after its training, resumed from `place` if it was begun."""
    import keras

    from models.backbones.backbone import TrainingOptions
    from models.backbones.registry import backbone
    from models.backbones.shape import FaceVggShape
    from models.training.augment import augmentation
    from models.training.trainer import Examples, Task, fit, one_hot

    pixels, labels = data["train"]
    classes = data["classes"]
    rows = np.random.default_rng([seed, row.share]).permutation(len(labels))[: len(labels) // row.share]
    recipe = recipe_of(row, seed, epochs)
    keras.utils.set_random_seed(seed)
    options = TrainingOptions(
        shape=FaceVggShape(*SHAPE),
        top_dropout=recipe.top_dropout,
        statistics_momentum=0.9,  # 0.99 is too slow for so few steps
        augment=augmentation(recipe),
        seed=seed,
    )
    network = backbone(row.backbone).build_for_training({"labels": len(classes)}, options)
    some = Examples(pixels[rows], {"labels": one_hot([labels[r] for r in rows], classes)}, {})
    judged = Examples(data["test"][0][:256], {"labels": one_hot(data["test"][1][:256], classes)}, {})  # chooses nothing
    fit(network, some, judged, [Task("labels", tuple(classes))], recipe, place)
    return network


def scores(network: Any, data: dict[str, Any]) -> dict[str, float]:
    """Returns accuracy and macro F1 on the test part."""
    from sklearn.metrics import f1_score

    from models.training.trainer import predict_logits

    pixels, labels = data["test"]
    truth = np.asarray([data["classes"].index(label) for label in labels])
    found = predict_logits(network, pixels)["labels"].argmax(1)
    return {
        "accuracy": float((found == truth).mean()),
        "macro_f1": float(f1_score(truth, found, average="macro")),
    }


def jittered(network: Any, pixels_of_224: float, data: dict[str, Any]) -> dict[str, float]:
    """Returns the scores with an error on each landmark of so many pixels in the mean, of a 224-pixel crop."""
    layer = network.get_layer("centres")
    layer.jitter = pixels_of_224 / 224 / 1.2533  # a Gaussian along x and y has this mean length per deviation
    network.make_predict_function(force=True)
    found = scores(network, data)
    layer.jitter = 0.0
    return found


def runs(options: Any) -> Iterator[tuple[Row, int]]:
    """Yields every row of a seed before the next seed, so that a table can be made early."""
    for seed in range(options.seeds):
        for row in ROWS:
            if not options.rows or row.name in options.rows:
                yield row, seed


def measure(options: Any, place: Path) -> None:
    """Trains what is not measured yet, and writes a file of results after each."""
    from models.runtimes.registry import start_keras

    start_keras(0)
    data: dict[str, Any] = {part: images(options.data / "fer2013" / name) for part, name in PARTS.items()}
    data["classes"] = sorted(set(data["train"][1]))
    if options.small:
        data = {
            "train": data["train"],
            "test": (data["test"][0][:128], data["test"][1][:128]),
            "classes": data["classes"],
        }
    for row, seed in runs(options):
        folder = place / f"{row.name.replace(' ', '_').replace(',', '').replace('%', 'percent')}-{seed}"
        if (folder / "scores.json").exists():
            continue
        before = time.process_time()
        network = trained(row, seed, options.epochs, data, folder)
        results = {"row": row.name, "seed": seed, **scores(network, data)}
        if row.backbone == "face_vgg_attention":
            results["jittered"] = {str(error): jittered(network, error, data) for error in JITTERS}
        results["cpu_s"] = time.process_time() - before
        partial = folder / ".scores"
        partial.write_text(json.dumps(results))
        os.replace(partial, folder / "scores.json")
        print(json.dumps(results), flush=True)


def table(place: Path) -> list[str]:
    """Returns the lines of the table of what is measured: a mean over seeds, and the difference to `plain`."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted(place.glob("*/scores.json")):
        one = json.loads(path.read_text())
        found.setdefault(one["row"], {})[one["seed"]] = one
        for error, judged in one.get("jittered", {}).items():
            found.setdefault(f"attention, {error} px of error", {})[one["seed"]] = judged | {"cpu_s": 0.0}
    lines = ["| row | seeds | accuracy | macro F1 | difference to plain | CPU-seconds |", "|---|---|---|---|---|---|"]
    order = [row.name for row in ROWS]
    for name in sorted(found, key=lambda name: (order.index(name) if name in order else 1.5, len(name), name)):
        seeds = found[name]
        means = [statistics.mean(one[key] for one in seeds.values()) for key in ("accuracy", "macro_f1", "cpu_s")]
        against = found.get("plain, 1 %" if name.endswith("1 %") else "plain", {})
        pairs = [seeds[seed]["accuracy"] - against[seed]["accuracy"] for seed in seeds if seed in against]
        shown = "–" if name.startswith("plain") else difference(pairs)
        lines.append(f"| {name} | {len(seeds)} | {means[0]:.3f} | {means[1]:.3f} | {shown} | {means[2]:.0f} |")
    return lines


def difference(pairs: list[float]) -> str:
    """Returns the mean of differences with its interval; without one for a single seed."""
    if len(pairs) < 2:
        return f"{pairs[0]:+.3f}" if pairs else "–"
    mean = statistics.mean(pairs)
    half = STUDENT_T[len(pairs)] * statistics.stdev(pairs) / len(pairs) ** 0.5
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def main() -> None:
    """Measures, and prints the table."""
    parser = measuring.parser(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6, help="of 10 %% of the images; four times as many of 1 %%")
    parser.add_argument("--rows", nargs="*", help="names of rows; default: all")
    parser.add_argument("--table", action="store_true", help="print what is measured; train nothing")
    options = parser.parse_args()
    measuring.needed(*(options.data / "fer2013" / name for name in PARTS.values()))
    if options.small:
        options.seeds, options.epochs, options.rows = 1, 1, ["plain, 1 %"]
    with measuring.workplace(
        options, keep=[path.name for path in options.work.glob("*")] if options.work else ()
    ) as place:
        if not options.table:
            measure(options, place)
        print("\n".join(table(place)))


if __name__ == "__main__":
    main()
