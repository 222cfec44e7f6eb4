"""Detectors side by side: recall and false positives on photos with known faces, false faces elsewhere, CPU time.

Every photo goes through all detectors in turn, each with OpenCV's threads at one. Boxes and faces are matched one to
one (`models/evaluation/detection.py`); masked, invalid and machine-made faces do not count. Recall is reported at the
detector's own threshold and, from its curve, at the false positives an image that are aimed at.

Sets (`--data`): mac_eval, cmumit, eden_eval, samples (faces/), fddb_multi (faces_more/), cats_dogs/test (1.6 times as
large, as the scores beside it were made), and every third image of negatives and negatives_colour, which trainings
leave out. Both were screened with YuNet, colour with RFB too: their own figures there say nothing.

By group: tiles of UTKFace and All-Age-Faces in scenes (`detector_sets.py` says how). The tiles were chosen and boxed by
YuNet at 0.6, which flatters it; compare groups within a detector.

`--ours NAME=THRESHOLD` names detectors of the program; without it, all of its own at their own thresholds. With
`--work DIR` the boxes of the others are kept there and read again; `--alone` leaves the others out.
"""

from __future__ import annotations

import hashlib
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import detector_sets as sets
import measuring
import numpy as np
from detector_peers import Boxes, Contestant, Find, contestants, own_thresholds
from detector_sets import Scene

from models.evaluation.detection import Curve, Judgement, Photo, fit_map, judge, mapped, recall_at

FRACTIONS = (0.10, 0.05, 0.02)  # in the table of times
TIMED_PHOTOS, ROUNDS = 24, 3
KEPT = "boxes"  # folder below --work
OWN_FLOOR = 0.1  # of the scores of the program's own detectors that are kept
NEAR = 0.01  # how far an anchor may be off


@dataclass(frozen=True)
class Question:
    """A column of the table of recall.

    Attributes:
        title: above it. name: of the set. overlap: above which a face is found.
        with_map: True to fit a box map first. rates: false positives an image at which recall is reported.
        least_px: smaller faces do not count.
    """

    title: str
    name: str
    overlap: float
    with_map: bool = False
    rates: tuple[float, ...] = ()
    least_px: float = 0


QUESTIONS = (
    Question("mac_eval, IoU .5 mapped", "mac_eval", 0.5, with_map=True, rates=(0.4, 0.5)),
    Question("mac_eval, IoU .3", "mac_eval", 0.3),
    Question("cmumit, IoU .3", "cmumit", 0.3, rates=(0.1, 0.3)),
    Question("fddb_multi, IoU .3", "fddb_multi", 0.3, rates=(0.1, 0.2)),
    Question("eden_eval, IoU .5", "eden_eval", 0.5),
    Question("samples ≥ 24 px, IoU .5", "samples", 0.5, least_px=24),
)
ANCHORS: dict[tuple[str, str], tuple[float, float | None]] = {  # (contestant, question): recall, false positives
    ("Haar, min 10 %", "mac_eval, IoU .5 mapped"): (0.695, 0.35),
    ("Haar, min 10 %", "mac_eval, IoU .3"): (0.722, 0.29),
    ("Haar, min 10 %", "cmumit, IoU .3"): (0.517, 0.26),
    ("Haar, min 10 %", "eden_eval, IoU .5"): (0.185, 0.93),
    ("Haar, min 10 %", "samples ≥ 24 px, IoU .5"): (0.367, None),
    ("YuNet 0.6", "mac_eval, IoU .5 mapped"): (0.949, 0.67),
    ("YuNet 0.6", "mac_eval, IoU .3"): (0.976, 0.62),
    ("YuNet 0.6", "cmumit, IoU .3"): (0.935, 0.09),
    ("YuNet 0.6", "eden_eval, IoU .5"): (0.893, 1.97),
    ("YuNet 0.6", "fddb_multi, IoU .3"): (0.977, 0.14),
    ("YuNet 0.6", "samples ≥ 24 px, IoU .5"): (0.938, None),
    ("YuNet 0.9", "mac_eval, IoU .5 mapped"): (0.824, 0.05),
    ("YuNet 0.9", "mac_eval, IoU .3"): (0.834, 0.03),
    ("YuNet 0.9", "cmumit, IoU .3"): (0.378, 0.0),
    ("YuNet 0.9", "eden_eval, IoU .5"): (0.337, 0.03),
    ("YuNet 0.9", "fddb_multi, IoU .3"): (0.834, 0.0),
    ("YuNet 0.9", "samples ≥ 24 px, IoU .5"): (0.781, None),
    ("RFB-640 0.7", "mac_eval, IoU .5 mapped"): (0.953, 0.63),
    ("RFB-640 0.7", "mac_eval, IoU .3"): (0.973, 0.58),
    ("RFB-640 0.7", "cmumit, IoU .3"): (0.859, 0.06),
    ("RFB-640 0.7", "eden_eval, IoU .5"): (0.876, 1.08),
    ("RFB-640 0.7", "samples ≥ 24 px, IoU .5"): (0.883, None),
}


# --- running ----------------------------------------------------------------------------------------------------------


class Arena:
    """Runs every network over sets of scenes, image by image in turn, and keeps what they found."""

    def __init__(self, everyone: Sequence[Contestant], ours: Sequence[str], kept: Path | None) -> None:
        self.everyone = everyone
        self._kept, self._ours = kept, ours
        makers = {one.network: one.make for one in everyone}
        self._find: dict[str, Find] = {network: make(None) for network, make in makers.items()}

    def found(self, name: str, scenes: Sequence[Scene]) -> dict[str, list[Boxes]]:
        """Returns the boxes of every network in each scene of a set."""
        measuring.progress(f"{name}: {len(scenes)} images")
        boxes = {network: self._known(name, network, scenes) for network in self._find}
        missing = [network for network, there in boxes.items() if there is None]
        fresh: dict[str, list[Boxes]] = {network: [] for network in missing}
        for scene in scenes if missing else ():
            for network in missing:
                fresh[network].append(self._find[network](scene.image))
        for network, there in fresh.items():
            self._keep(name, network, scenes, there)
        return {network: fresh[network] if there is None else there for network, there in boxes.items()}

    def _path(self, name: str, network: str, scenes: Sequence[Scene]) -> Path | None:
        if self._kept is None or network in self._ours:
            return None
        digest = hashlib.sha256()
        for scene in scenes:
            digest.update(scene.image.tobytes())
        return self._kept / f"{network}-{digest.hexdigest()[:24]}.npz"

    def _known(self, name: str, network: str, scenes: Sequence[Scene]) -> list[Boxes] | None:
        path = self._path(name, network, scenes)
        if path is None or not path.exists():
            return None
        with np.load(path) as held:
            parts = np.cumsum(held["counts"])[:-1]
            return list(zip(np.split(held["boxes"], parts), np.split(held["scores"], parts), strict=True))

    def _keep(self, name: str, network: str, scenes: Sequence[Scene], found: list[Boxes]) -> None:
        path = self._path(name, network, scenes)
        if path is None or not found:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        counts = np.asarray([len(scores) for _, scores in found])
        boxes = np.concatenate([boxes for boxes, _ in found])
        np.savez(path, counts=counts, boxes=boxes, scores=np.concatenate([scores for _, scores in found]))


def judged(
    scenes: Sequence[Scene], found: Sequence[Boxes], one: Contestant, question: Question
) -> tuple[Judgement, Curve]:
    """Returns what became of the boxes at the contestant's threshold, and its curve, after a map of that threshold."""
    least = -np.inf if one.threshold is None else one.threshold
    photos = [
        Photo(scene.known, None, scene.ignored, boxes, scores)
        for scene, (boxes, scores) in zip(scenes, found, strict=True)
    ]
    if question.with_map:
        photos = mapped(photos, fit_map(photos, least_score=least))
    result = judge(photos, least_overlap=question.overlap, least_score=least)
    return result, result.curve


# --- tables -----------------------------------------------------------------------------------------------------------


def recall_tables(arena: Arena, data: Path, small: bool) -> dict[tuple[str, str], tuple[float, float]]:
    """Prints recall and false positives, and recall at stated rates; returns the first by contestant and question."""
    figures: dict[tuple[str, str], tuple[float, float]] = {}
    at_rates: dict[str, list[str]] = {one.name: [] for one in arena.everyone}
    for question in QUESTIONS:
        scenes = sets.read_set(data, question.name, question.least_px)[: 12 if small else None]
        found = arena.found(question.name, scenes)
        for one in arena.everyone:
            result, curve = judged(scenes, found[one.network], one, question)
            figures[one.name, question.title] = (result.recall or 0.0, result.false_alarms_an_image)
            at_rates[one.name] += [_at(curve, rate) for rate in question.rates]
    measuring.show(
        "Recall, false positives an image, at the detector's own threshold",
        ("", *(question.title for question in QUESTIONS)),
        [
            (one.name, *("{:.3f}, {:.2f}".format(*figures[one.name, question.title]) for question in QUESTIONS))
            for one in arena.everyone
        ],
    )
    rates = [f"{question.title}, ≤ {rate}" for question in QUESTIONS for rate in question.rates]
    measuring.show(
        "Recall at false positives an image, from the curve (* its end: a lower threshold may find more)",
        ("", *rates),
        [(one.name, *at_rates[one.name]) for one in arena.everyone],
    )
    return figures


def _at(curve: Curve, rate: float) -> str:
    at = recall_at(curve, rate)
    return f"{at.recall or 0:.3f}{'*' if at.at_end else ''}"


def false_faces(arena: Arena, data: Path, small: bool) -> None:
    """Prints what is found where there is no face."""
    archives = {
        "pets": (data / "cats_dogs" / "test.tar.gz", False, sets.PET_ZOOM),
        "negatives": (data / "negatives" / "negatives.tar", True, 1.0),
        "negatives_colour": (data / "negatives_colour" / "negatives_colour.tar", True, 1.0),
    }
    cells: dict[str, list[str]] = {one.name: [] for one in arena.everyone}
    for name, (archive, every_third, zoom) in archives.items():
        scenes = sets.without_faces(archive, every_third=every_third, zoom=zoom)[: 20 if small else None]
        found = arena.found(name, scenes)
        for one in arena.everyone:
            least = -np.inf if one.threshold is None else one.threshold
            counts = np.asarray([int((scores >= least).sum()) for _, scores in found[one.network]])
            cells[one.name].append(f"{(counts > 0).mean() * 100:.1f} %" if name == "pets" else f"{counts.mean():.4f}")
    measuring.show(
        "Where there is no face: share of pet photos with a false one; false positives an image of held-out scenes",
        ("", *archives),
        [(one.name, *cells[one.name]) for one in arena.everyone],
    )


def changed(arena: Arena, data: Path, small: bool) -> None:
    """Prints recall on changed photos."""
    plain = [*sets.read_set(data, "fddb_multi"), *sets.read_set(data, "mac_eval")][:: 20 if small else 1]
    question = Question("", "", 0.3)
    cells: dict[str, list[str]] = {one.name: [] for one in arena.everyone}
    for reported, change in sets.CHANGES.items():
        scenes = [change(scene) for scene in plain]
        found = arena.found(reported, scenes)
        for one in arena.everyone:
            result, _ = judged(scenes, found[one.network], one, question)
            cells[one.name].append(f"{result.recall or 0:.3f}, {result.false_alarms_an_image:.2f}")
    posed = sets.read_set(data, "samples")
    turned_away = [
        Scene(s.name, s.image, s.known, s.ignored | np.asarray(["pose1" not in w for w in s.words], bool), s.words)
        for s in posed
    ]
    faces = sum(int((~scene.ignored).sum()) for scene in turned_away)
    found = arena.found("samples, pose1", turned_away[: 3 if small else None])
    for one in arena.everyone:
        result, _ = judged(turned_away[: 3 if small else None], found[one.network], one, question)
        cells[one.name].append("–" if result.recall is None else f"{result.recall:.3f}")
    measuring.show(
        "Recall, false positives an image, IoU .3: fddb_multi and mac_eval together, changed; last, WIDER's unusual "
        f"poses in samples ({faces} faces)",
        ("", *sets.CHANGES, "unusual pose"),
        [(one.name, *cells[one.name]) for one in arena.everyone],
    )


def by_group(arena: Arena, data: Path, tiles: int) -> None:
    """Prints recall by skin, sex and age."""
    for name in ("crops_utk", "crops_aaf"):
        scenes = sets.pasted_tiles(data, name, tiles)
        found = arena.found(name, scenes)
        groups = sorted({group for scene in scenes for group in scene.group}, key=_by_age)
        members = {group: np.asarray([group in scene.group for scene in scenes]) for group in groups}
        lines = []
        for one in arena.everyone:
            result, _ = judged(scenes, found[one.network], one, Question("", "", 0.3))
            shares = [float(result.found[inside].mean()) for inside in members.values()]
            lines.append((one.name, *(f"{share:.3f}" for share in shares), f"{max(shares) - min(shares):.3f}"))
        head = [f"{group} ({int(inside.sum())})" for group, inside in members.items()]
        measuring.show(f"Recall by group, IoU .3: {name}, pasted", ("", *head, "largest difference"), lines)


def _by_age(group: str) -> tuple[bool, int, str]:
    number = group.removeprefix("age ").partition("–")[0].rstrip("+")
    return (number.isdigit(), int(number) if number.isdigit() else 0, group)


def times(arena: Arena, data: Path, small: bool) -> None:
    """Prints the time of a photo of about 500 pixels, all detectors in turn on every photo."""
    photos = [scene.image for scene in sets.read_set(data, "mac_eval")[: 4 if small else TIMED_PHOTOS]]
    makers = {one.network: one.make for one in arena.everyone}
    names = {one.network: one.name.removesuffix(" 0.6").removesuffix(" 0.9") for one in arena.everyone}
    clocks: dict[int, Callable[[], float]] = {1: time.process_time, 2: time.perf_counter}
    cells: dict[str, list[str]] = {network: [] for network in makers}
    for threads, clock in clocks.items():
        cv2.setNumThreads(threads)
        for fraction in FRACTIONS:
            finders = {network: make(fraction) for network, make in makers.items()}
            for find in finders.values():
                find(photos[0])
            spent: dict[str, list[float]] = {network: [] for network in finders}
            for _ in range(1 if small else ROUNDS):
                for photo in photos:
                    for network, find in finders.items():
                        started = clock()
                        find(photo)
                        spent[network].append((clock() - started) * 1000)
            for network, all_ms in spent.items():
                cells[network].append(f"{np.mean(all_ms):.1f}")
    cv2.setNumThreads(1)
    sides = "/".join(f"{fraction * 100:.0f}" for fraction in FRACTIONS)
    measuring.show(
        f"Milliseconds a photo of about 500 px, smallest face {sides} % of the shorter side (YuNet, RFB: as they are)",
        (
            "",
            *(f"CPU, one thread, {f * 100:.0f} %" for f in FRACTIONS),
            *(f"wall, two, {f * 100:.0f} %" for f in FRACTIONS),
        ),
        [(names[network], *cells[network]) for network in cells],
    )


# --- the script -------------------------------------------------------------------------------------------------------


def anchored(figures: dict[tuple[str, str], tuple[float, float]]) -> Iterator[tuple[str, bool]]:
    """Yields whether the figures of others are those measured before, outside this program."""
    for (name, reported), (recall, false_positives) in ANCHORS.items():
        got, got_false = figures[name, reported]
        parts = [f"recall {got:.3f} for {recall:.3f}"]
        holds = abs(got - recall) <= NEAR + 1e-9
        if false_positives is not None:
            parts.append(f"false positives {got_false:.2f} for {false_positives:.2f}")
        yield f"{name} on {reported}: {', '.join(parts)}", holds


def options_of(arguments: Sequence[str] | None) -> Namespace:
    """Returns the options."""
    parser: ArgumentParser = measuring.parser(__doc__ or "")
    parser.add_argument("--ours", nargs="*", metavar="NAME=THRESHOLD", help="detectors of the program")
    parser.add_argument("--tiles", type=int, default=1000, help="of each set of tiles (default: %(default)s)")
    parts = ("recall", "false", "changed", "groups", "times")
    parser.add_argument("--only", nargs="*", choices=parts, default=parts, help="tables to make (default: all)")
    parser.add_argument("--alone", action="store_true", help="only the program's own detectors, much quicker")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; 1 if an anchor is off."""
    options = options_of(arguments)
    data = options.data
    measuring.needed(data / "faces" / "mac_eval.tar", data / "faces_more" / "fddb_multi.tar", data / "detectors")
    cv2.setNumThreads(1)
    stated = (text.partition("=") for text in options.ours or ())
    ours = own_thresholds() if options.ours is None else {name: float(threshold) for name, _, threshold in stated}
    with measuring.workplace(options, keep=(KEPT,)) as work:
        kept = work / KEPT if options.work is not None and not options.small else None
        everyone = [one for one in contestants(data, ours, OWN_FLOOR) if one.network in ours or not options.alone]
        arena = Arena(everyone, list(ours), kept)
        figures = recall_tables(arena, data, options.small) if "recall" in options.only else {}
        if "false" in options.only:
            false_faces(arena, data, options.small)
        if "changed" in options.only:
            changed(arena, data, options.small)
        if "groups" in options.only:
            by_group(arena, data, 40 if options.small else options.tiles)
        if "times" in options.only:
            times(arena, data, options.small)
    return measuring.verdict(anchored(figures) if figures and not (options.small or options.alone) else ())


if __name__ == "__main__":
    sys.exit(main())
