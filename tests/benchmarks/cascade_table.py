"""What variants of the cascade find: `python tests/benchmarks/cascade_table.py DATA FOLDER [VARIANT …]`.

FOLDER holds what `cascade_training.py` made, a folder a variant; `bundled` is the cascade that ships. A row a variant
and a way of looking, one thread: recall at given false positives an image on three sets, windows and CPU-ms an image
by step. `--regrouping` compares batching generators with and without regrouping, alternating; `--picture FILE` draws
the ten panels of the photo `--photo` of fddb_multi (it shows people who were not asked: keep it).
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from models.boxes import iou
from models.detectors.cascade.detector import Cascade
from models.detectors.cascade.options import CascadeOptions
from models.detectors.cascade.overlaps import overlap
from models.detectors.cascade.panels import panels
from models.detectors.cascade.weights import WEIGHTS
from models.training.detection.cascade_windows import squares_of
from models.training.detection.photos import members

LOW = 0.02  # last threshold of a run: the curve down to here
AT = (0.2, 0.5, 1.0, 2.0)  # false positives an image at which recall is told
ON_FACE = 0.4  # intersection over union of a window that a level left with a face's square
Found = list[tuple[np.ndarray, np.ndarray]]  # boxes and scores an image


@dataclass(frozen=True)
class Set:
    """Photos with known faces.

    Attributes:
        names, images: of the photos.
        faces, ignored: (m, 4) boxes an image; the second may be found or not.
        overlap: intersection over union of a hit.
        mapped: boxes are brought to the set's convention first by one affine map, fitted on what is found.
    """

    name: str
    names: list[str]
    images: list[np.ndarray]
    faces: list[np.ndarray]
    ignored: list[np.ndarray]
    overlap: float = 0.3
    mapped: bool = False


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


# --- hits and misses ----------------------------------------------------------------------------------------------


def matched(faces: np.ndarray, boxes: np.ndarray, least: float) -> np.ndarray:
    """Returns (boxes,) int, the face that each box finds, -1 for none: one to one, the best-scored box first."""
    between, taken = iou(boxes, faces), np.full(len(boxes), -1)
    for number in range(len(boxes)):
        if len(faces) and between[number].max() >= least:
            taken[number] = between[number].argmax()
            between[:, taken[number]] = 0
    return taken


def mapped(some: Set, found: Found) -> Found:
    """Returns the boxes moved and stretched by the medians over matched pairs."""
    moves = []
    for faces, (boxes, _) in zip(some.faces, found, strict=True):
        index = matched(faces, boxes, 0.3)
        a, b = faces[index[index >= 0]], boxes[index >= 0]
        moves.append(
            np.concatenate([(a[:, :2] + a[:, 2:] / 2 - b[:, :2] - b[:, 2:] / 2) / b[:, 2:], a[:, 2:] / b[:, 2:]], 1)
        )
    shift = np.median(np.concatenate(moves), axis=0)
    result = []
    for boxes, scores in found:
        sides = boxes[:, 2:] * shift[2:]
        middle = boxes[:, :2] + boxes[:, 2:] * (0.5 + shift[:2])
        result.append((np.concatenate([middle - sides / 2, sides], axis=1), scores))
    return result


@dataclass(frozen=True)
class Curve:
    """Recall and false positives an image by falling score, and the mean overlap of hits."""

    scores: np.ndarray
    recall: np.ndarray
    false: np.ndarray
    overlap: float

    def at_false(self, most: float) -> float:
        below = self.recall[self.false <= most]
        return float(below[-1]) if len(below) else 0.0

    def at_score(self, least: float) -> tuple[float, float]:
        count = int((self.scores >= least).sum())
        return (float(self.recall[count - 1]), float(self.false[count - 1])) if count else (0.0, 0.0)


def curve(some: Set, found: Found) -> Curve:
    found = mapped(some, found) if some.mapped else found
    rows, overlaps = [], []
    for faces, ignored, (boxes, scores) in zip(some.faces, some.ignored, found, strict=True):
        index = matched(faces, boxes, some.overlap)
        free = iou(boxes, ignored).max(axis=1, initial=0) >= 0.3
        overlaps += [float(iou(boxes[n : n + 1], faces[i : i + 1])[0, 0]) for n, i in enumerate(index) if i >= 0]
        rows += [(score, hit) for score, hit, skip in zip(scores, index >= 0, free, strict=True) if hit or not skip]
    rows.sort(key=lambda row: -row[0])
    hits = np.asarray([hit for _, hit in rows], float)
    recall = hits.cumsum() / sum(map(len, some.faces))
    false = (1 - hits).cumsum() / len(some.images)
    return Curve(np.asarray([score for score, _ in rows]), recall, false, float(np.mean(overlaps)))


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
            cascade = Cascade(replace(asked, **WAYS[way]), path)  # type: ignore[arg-type]
            thresholds = cascade.options.thresholds or (0.5, 0.5, 0.5)
            opened = Cascade(replace(cascade.options, thresholds=(*thresholds[:2], LOW)), path)
            for some in sets:
                ran = run(opened, some)
                for one in (some, *([replace(some, overlap=0.5, mapped=True)] if some.name == "mac_eval" else [])):
                    found = curve(one, ran.found)
                    recall, false = found.at_score(thresholds[2])
                    by_false = ", ".join(f"{found.at_false(most):.3f}" for most in AT)
                    label = f"{one.name} IoU {one.overlap}{' mapped' if one.mapped else ''}"
                    figures = f"{recall:.3f}, {false:.2f} | {by_false} | {found.overlap:.3f}"
                    print(f"| {variant} | {way} | {label} | {figures} |")
                steps(ran, len(some.images))


def steps(ran: Ran, images: int) -> None:
    for name, seconds in ran.seconds.items():
        left = (
            f"{ran.windows[name]:7.1f} windows, {ran.covered[name]:.3f} of faces covered" if name in ran.windows else ""
        )
        print(f"    {name:14} {seconds / images * 1e3:6.2f} CPU-ms  {left}")
    print(f"    {'all':14} {sum(ran.seconds.values()) / images * 1e3:6.2f} CPU-ms", flush=True)


def regrouping(path: Path, some: Set, asked: CascadeOptions, pairs: int = 3) -> None:
    """Prints CPU-ms an image with and without regrouping, batches of 16 photos, alternating."""
    ways = {regroup: Cascade(replace(asked, regroup=regroup), path) for regroup in (True, False)}
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
    parser.add_argument("--fraction", type=float, default=0.05, help="smallest face")
    parser.add_argument("--regrouping", action="store_true")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--photo", type=int, default=0)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    asked = CascadeOptions(min_face_fraction=arguments.fraction)
    paths = {
        name: WEIGHTS if name == "bundled" else arguments.folder / name / "cascade.npz" for name in arguments.variants
    }
    where = {"fddb_multi": "faces_more", "cmumit": "faces", "mac_eval": "faces"}
    sets = [read_set(name, arguments.data / where[name]) for name in arguments.sets]
    if arguments.picture:
        some, first = read_set("fddb_multi", arguments.data / "faces_more"), next(iter(paths.values()))
        image = some.images[arguments.photo]
        picture = panels(image, Cascade(asked, first).traced(image), some.faces[arguments.photo])
        cv2.imwrite(str(arguments.picture), picture[..., ::-1])
    elif arguments.regrouping:
        regrouping(next(iter(paths.values())), sets[0], asked)
    else:
        table(paths, sets, arguments.ways, asked)


if __name__ == "__main__":
    main()
