"""What variants of the cascade find: `python tests/benchmarks/cascade_table.py DATA FOLDER [VARIANT …]`.

FOLDER holds what `cascade_training.py` made, a folder a variant; `bundled` is the cascade that ships, `all` are all
variants. With `--train`, those that are missing are trained first, so that

    python tests/benchmarks/cascade_table.py DATA out/cascade all --train --ways "calibrated, stride 4"

is the whole comparison in one command; killed, it goes on where it was. `--length 0.01 --photos 8` rehearses it. A row
a variant and a way of looking, one thread: recall at given false positives an image on three sets, windows and CPU-ms
an image by step. `--regrouping` compares batching generators with and without regrouping, alternating; `--picture FILE`
draws the ten panels of the photo `--photo` of fddb_multi (it shows people who were not asked: keep it).
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from cascade_training import train

from models.detectors.cascade.detector import Cascade
from models.detectors.cascade.overlaps import overlap
from models.detectors.cascade.weights import WEIGHTS
from models.detectors.options import CascadeOptions
from models.evaluation.detection import Judgement, Photo, fit_map, judge, mapped, recall_at
from models.training.detection.cascade.variants import VARIANTS
from models.training.detection.cascade.windows import squares_of
from models.training.detection.photos import members

LOW = 0.02  # last threshold of a run: the curve down to here
AT = (0.2, 0.5, 1.0, 2.0)  # false positives an image at which recall is reported
ON_FACE = 0.4  # intersection over union of a window that a level left with a face's square
Found = list[tuple[np.ndarray, np.ndarray]]  # boxes and scores an image


@dataclass(frozen=True)
class Set:
    """Photos with known faces.

    Attributes:
        names, images: of the photos.
        faces, ignored: (m, 4) boxes an image; the second may be found or not.
    """

    name: str
    names: list[str]
    images: list[np.ndarray]
    faces: list[np.ndarray]
    ignored: list[np.ndarray]


def read_set(name: str, folder: Path) -> Set:
    """Returns an evaluation set: unmasked faces that people marked; masked ones are ignored."""
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows[row["image"]].append(row)
    photos = [(image, pixels) for image, pixels in members(folder / f"{name}.tar") if image in rows]
    boxes: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for image, _ in photos:
        marked = [row for row in rows[image] if row["x"] and row.get("box_from", "human") == "human"]
        for kind in boxes:
            some = [[float(row[key]) for key in "xywh"] for row in marked if (row["occlusion"] == "none") == kind]
            boxes[kind].append(np.asarray(some, float).reshape(-1, 4))
    return Set(name, [image for image, _ in photos], [pixels for _, pixels in photos], boxes[True], boxes[False])


def first_of(some: Set, count: int | None) -> Set:
    """Returns the first photos of a set; None for all."""
    kept = slice(count)
    return Set(some.name, some.names[kept], some.images[kept], some.faces[kept], some.ignored[kept])


@dataclass
class Ran:
    """What a run over a set gave: boxes, and by step windows, faces that are still covered, and CPU-seconds."""

    found: Found = field(default_factory=list)
    windows: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    covered: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def run(cascade: Cascade, some: Set, together: int = 16) -> Ran:
    ran, faces = Ran(), sum(map(len, some.faces))
    for start in range(0, len(some.images), together):
        begin = time.process_time()
        items = list(cascade.begun(some.images[start : start + together]))
        ran.seconds["reduce"] += time.process_time() - begin
        for name, step in cascade.steps():
            begin = time.process_time()
            items = list(step(iter(items)))
            ran.seconds[name] += time.process_time() - begin
            for item in items:
                known = squares_of(some.faces[start + item.number])
                on_face = (overlap(known, item.windows.squares) >= ON_FACE).any(axis=1)
                ran.windows[name] += len(item.windows) / len(some.images)
                ran.covered[name] += on_face.sum() / faces
        ran.found += [(item.windows.squares[:, (0, 1, 2, 2)].astype(float), item.windows.scores) for item in items]
    return ran


# --- the table ----------------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, object]] = {
    "calibrated, stride 4": {},
    "not calibrated, stride 4": {"calibrate": (False, False, False)},
    "calibrated, stride 8": {"stride": 8},
    "not calibrated, stride 8": {"stride": 8, "calibrate": (False, False, False)},
    "summed, stride 4": {"averaging": "sum"},
}


def table(variants: dict[str, Path], sets: Sequence[Set], ways: Sequence[str], asked: CascadeOptions) -> None:
    print(
        "| variant | way | set | at its threshold: recall, FP | recall at FP "
        + ", ".join(map(str, AT))
        + " | mean IoU |"
    )
    print("|---|---|---|---|---|---|")
    for variant, path in variants.items():
        for way in ways:
            cascade = Cascade(replace(asked, model=str(path), **WAYS[way]))
            thresholds = cascade.options.thresholds or (0.5, 0.5, 0.5)
            opened = Cascade(replace(cascade.options, thresholds=(*thresholds[:2], LOW)))
            for some in sets:
                ran = run(opened, some)
                for label, judged in judged_ways(some, ran.found):
                    print(f"| {variant} | {way} | {label} | {figures(judged, thresholds[2])} |")
                steps(ran, len(some.images))


def judged_ways(some: Set, found: Found) -> Iterator[tuple[str, Judgement]]:
    """Yields the set judged as the issue asks: mac_eval also at 0.5 after one affine map of boxes."""
    photos = [
        Photo(np.concatenate([faces, ignored]), None, np.arange(len(faces) + len(ignored)) >= len(faces), boxes, scores)
        for faces, ignored, (boxes, scores) in zip(some.faces, some.ignored, found, strict=True)
    ]
    yield f"{some.name} IoU .3", judge(photos, least_overlap=0.3)
    if some.name == "mac_eval":
        yield f"{some.name} IoU .5 mapped", judge(mapped(photos, fit_map(photos)), least_overlap=0.5)


def figures(judged: Judgement, threshold: float) -> str:
    """Returns recall and false alarms at a threshold, recall at given false alarms, and the mean overlap of hits."""
    met = int((judged.curve.score >= threshold).sum()) - 1
    recall = judged.curve.discrete()[met] if met >= 0 else 0.0
    false = judged.curve.false_alarms[met] / judged.curve.images if met >= 0 else 0.0
    allowed = ", ".join(f"{recall_at(judged.curve, most).recall:.3f}" for most in AT)
    return f"{recall:.3f}, {false:.2f} | {allowed} | {judged.mean_overlap or 0:.3f}"


def steps(ran: Ran, images: int) -> None:
    for name, seconds in ran.seconds.items():
        left = (
            f"{ran.windows[name]:7.1f} windows, {ran.covered[name]:.3f} of faces covered" if name in ran.windows else ""
        )
        print(f"    {name:14} {seconds / images * 1e3:6.2f} CPU-ms  {left}")
    print(f"    {'all':14} {sum(ran.seconds.values()) / images * 1e3:6.2f} CPU-ms", flush=True)


def regrouping(path: Path, some: Set, asked: CascadeOptions, pairs: int = 3) -> None:
    """Prints CPU-ms an image with and without regrouping, batches of 16 photos, alternating."""
    ways = {regroup: Cascade(replace(asked, model=str(path), regroup=regroup)) for regroup in (True, False)}
    spent: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * pairs):
        regroup = number % 2 == 0
        begin = time.process_time()
        for start in range(0, len(some.images), 16):
            ways[regroup].detect_batch(some.images[start : start + 16])
        spent[regroup].append((time.process_time() - begin) / len(some.images) * 1e3)
    print("regrouped", [round(ms, 2) for ms in spent[True]], "each image alone", [round(ms, 2) for ms in spent[False]])
    print(f"median ratio {np.median(np.divide(spent[False], spent[True])):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("variants", nargs="*", default=["bundled"])
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS)[:4])
    parser.add_argument("--sets", nargs="*", default=["fddb_multi", "cmumit", "mac_eval"])
    parser.add_argument("--train", action="store_true", help="train the variants that are missing")
    parser.add_argument("--length", type=float, default=1.0, help="with --train: factor of every network's steps")
    parser.add_argument("--photos", type=int, help="of each set at most so many")
    parser.add_argument("--fraction", type=float, default=0.05, help="smallest face")
    parser.add_argument("--regrouping", action="store_true")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--photo", type=int, default=0)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    asked = CascadeOptions(min_face_fraction=arguments.fraction)
    names = list(VARIANTS) if "all" in arguments.variants else arguments.variants
    if arguments.train:
        own = [name for name in names if name != "bundled"]
        train(arguments.data, arguments.folder, own, arguments.length, arguments.photos)
    paths = {name: WEIGHTS if name == "bundled" else arguments.folder / name / "cascade.npz" for name in names}
    where = {"fddb_multi": "faces_more", "cmumit": "faces", "mac_eval": "faces"}
    sets = [first_of(read_set(name, arguments.data / where[name]), arguments.photos) for name in arguments.sets]
    if arguments.picture:
        some, first = read_set("fddb_multi", arguments.data / "faces_more"), next(iter(paths.values()))
        image = some.images[arguments.photo]
        picture = Cascade(replace(asked, model=str(first))).explain(image, some.faces[arguments.photo])
        cv2.imwrite(str(arguments.picture), picture[..., ::-1])
    elif arguments.regrouping:
        regrouping(next(iter(paths.values())), sets[0], asked)
    else:
        table(paths, sets, arguments.ways, asked)


if __name__ == "__main__":
    main()
