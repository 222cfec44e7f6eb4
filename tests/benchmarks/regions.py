"""What the ideas of system S5 bring: attention, regions, thirtyfold changes, balanced draws, in small trainings.

Every row is a small `face_vgg` on a share of FER2013's training part, judged on its test part; seeds draw other images,
weights and orders, the same for all rows. `--share 1` takes all images but copies of those of the test part. `--votes`
has it learn FER+'s votes beside the labels, and judges it by their majority too. Intervals of the difference to `plain`
are 95 %, by Student's t over seeds. Jittered rows are the attention of that seed, judged again with an error on every
landmark.

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
JUDGED, MAJORITY = ("accuracy", "macro_f1"), ("majority_accuracy", "majority_macro_f1")
STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # 97.5 %, by the number of seeds
JITTERS = (2, 5, 10)  # mean error of a landmark, in pixels of a 224-pixel crop
PARTS = {"train": "train.tar.gz", "test": "test.tar"}
VOTES = "ferplus"  # the name of the task of FER+'s votes
EXPRESSIONS = 8  # the first of FER+'s columns; the others are "unknown" and "NF"


@dataclass(frozen=True)
class Row:
    """A training: what differs from `plain`.

    Attributes:
        share: of the training images, 1 over this; None for the one that is asked for.
        settings: of the recipe.
    """

    name: str
    backbone: str = "face_vgg"
    share: int | None = None
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


@dataclass(frozen=True)
class Faces:
    """Images of a part of FER2013.

    Attributes:
        pixels: (n, 48, 48, 1) uint8.
        labels: of FER2013.
        shares: (n, classes) float32 shares of FER+'s votes; 0 in all of a row without any. None unless asked for.
    """

    pixels: np.ndarray
    labels: list[str]
    shares: np.ndarray | None = None

    def some(self, rows: Any) -> Faces:
        """Returns those rows."""
        rows = np.arange(len(self.labels))[rows]
        labels = [self.labels[row] for row in rows]
        return Faces(self.pixels[rows], labels, None if self.shares is None else self.shares[rows])

    def examples(self, classes: list[str]) -> Any:
        """Returns what a training takes."""
        from models.training.trainer import Examples, one_hot

        targets, weights = {"labels": one_hot(self.labels, classes)}, {}
        if self.shares is not None:
            targets[VOTES], weights[VOTES] = self.shares, self.shares.any(1).astype(np.float32)
        return Examples(self.pixels, targets, weights)


def faces(path: Path, votes: Any = None) -> Faces:
    """Returns the images of a tar of class folders."""
    import cv2

    pixels, labels, shares = [], [], []
    with tarfile.open(path) as opened:
        for member in opened:
            file = opened.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            pixels.append(cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_GRAYSCALE))
            labels.append(member.name.partition("/")[0])
            if votes is not None:
                found = votes.of(member.name)
                shares.append(np.zeros(len(votes.classes), np.float32) if found is None else found)
    return Faces(np.stack(pixels)[..., None], labels, np.stack(shares) if shares else None)


def recipe_of(row: Row, seed: int, options: Any) -> Any:
    """Returns the recipe of a training: no random changes but a mirror, unless the row has others."""
    from models.training.recipe import Recipe

    still = dict.fromkeys(("shift", "rotation", "scale", "shrink", "contrast", "brightness", "blur", "erase"), 0.0)
    plain = Recipe(
        epochs=options.epochs * (4 if row.share == 100 else 1),
        batch_size=32 if row.share == 100 else 64,
        learning_rate=0.05,
        warmup_epochs=1,
        weight_decay=1e-3,
        ema_decay=0.9,
        crop=0,
        seed=seed,
        precision=options.precision,
        **still,
    )
    return replace(plain, **dict(row.settings))


def trained(row: Row, seed: int, options: Any, data: dict[str, Faces], place: Path) -> Any:
    """Returns a network after its training, resumed from `place` if it was begun."""
    import keras

    from models.backbones.backbone import TrainingOptions
    from models.backbones.registry import backbone
    from models.backbones.shape import FaceVggShape
    from models.training.augment import augmentation
    from models.training.trainer import Task, fit

    classes = classes_of(data)
    share = row.share or options.share
    count = len(data["train"].labels)
    rows = np.random.default_rng([seed, share]).permutation(count)[: count // share]
    recipe = recipe_of(row, seed, options)
    tasks = [Task("labels", tuple(classes))]
    if (shares := data["train"].shares) is not None:
        tasks.append(Task(VOTES, tuple(map(str, range(shares.shape[1]))), soft=True))
    keras.utils.set_random_seed(seed)
    how = TrainingOptions(
        shape=FaceVggShape(*SHAPE),
        top_dropout=recipe.top_dropout,
        statistics_momentum=0.9,  # 0.99 is too slow for so few steps
        augment=augmentation(recipe),
        seed=seed,
        dtype=recipe.precision,
    )
    network = backbone(row.backbone).build_for_training({task.name: len(task.classes) for task in tasks}, how)
    some = data["train"].some(rows).examples(classes)
    judged = data["test"].some(slice(256)).examples(classes)  # chooses nothing
    fit(network, some, judged, tasks, recipe, place)
    return network


def classes_of(data: dict[str, Faces]) -> list[str]:
    """Returns FER2013's classes in alphabetical order."""
    return sorted(set(data["train"].labels))


def scores(network: Any, data: dict[str, Faces]) -> dict[str, float]:
    """Returns accuracy and macro F1 on the test part, and with votes the same by their majority."""
    from sklearn.metrics import f1_score

    from models.training.trainer import predict_logits

    classes, test = classes_of(data), data["test"]
    logits = predict_logits(network, test.pixels)
    truth = np.asarray([classes.index(label) for label in test.labels])
    found = logits["labels"].argmax(1)
    results = {
        "accuracy": float((found == truth).mean()),
        "macro_f1": float(f1_score(truth, found, average="macro")),
    }
    if test.shares is not None:
        ordered = np.sort(test.shares, axis=1)
        leading, led = test.shares.argmax(1), ordered[:, -1] > ordered[:, -2]
        told = led & (leading < EXPRESSIONS)
        named = logits[VOTES][:, :EXPRESSIONS].argmax(1)
        results["majority_accuracy"] = float((named == leading)[told].mean())
        results["majority_macro_f1"] = float(f1_score(leading[told], named[told], average="macro"))
    return results


def jittered(network: Any, pixels_of_224: float, data: dict[str, Faces]) -> dict[str, float]:
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
    votes = None
    if options.votes:
        from transforms.formats.soft_labels import read_votes

        with (options.data / "fer2013" / "ferplus.csv").open("rb") as file:
            votes = read_votes(file, "ferplus.csv")
    data = {part: faces(options.data / "fer2013" / name, votes) for part, name in PARTS.items()}
    seen = {image.tobytes() for image in data["test"].pixels}
    data["train"] = data["train"].some([image.tobytes() not in seen for image in data["train"].pixels])
    if options.small:
        data["test"] = data["test"].some(slice(128))
    for row, seed in runs(options):
        folder = place / f"{row.name.replace(' ', '_').replace(',', '').replace('%', 'percent')}-{seed}"
        if (folder / "scores.json").exists():
            continue
        before = time.process_time()
        network = trained(row, seed, options, data, folder)
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
    judged = (
        [JUDGED, MAJORITY]
        if any(MAJORITY[0] in one for seeds in found.values() for one in seeds.values())
        else [JUDGED]
    )
    heads = ["row", "seeds"]
    for accuracy, macro in judged:
        heads += [accuracy.replace("_", " "), macro.replace("_", " "), "difference to plain"]
    lines = [f"| {' | '.join([*heads, 'CPU-seconds'])} |", "|---" * (len(heads) + 1) + "|"]
    order = [row.name for row in ROWS]
    for name in sorted(found, key=lambda name: (order.index(name) if name in order else 1.5, len(name), name)):
        seeds = found[name]
        against = found.get("plain, 1 %" if name.endswith("1 %") else "plain", {})
        cells = [name, str(len(seeds))]
        for accuracy, macro in judged:
            cells += [f"{statistics.mean(one[key] for one in seeds.values()):.3f}" for key in (accuracy, macro)]
            pairs = [seeds[seed][accuracy] - against[seed][accuracy] for seed in seeds if seed in against]
            cells.append("–" if name.startswith("plain") else difference(pairs))
        lines.append(f"| {' | '.join(cells)} | {statistics.mean(one['cpu_s'] for one in seeds.values()):.0f} |")
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
    parser.add_argument("--epochs", type=int, default=6, help="four times as many of 1 %% of the images")
    parser.add_argument("--share", type=int, default=10, help="learn from one in so many images (default: %(default)s)")
    parser.add_argument("--votes", action="store_true", help="learn FER+'s votes too, and judge by their majority")
    parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
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
