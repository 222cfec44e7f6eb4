"""The page of `evaluate-detector`: one file that loads nothing, built from the same parts as the page of a run.

Not here: the numbers (`detection_files.py`), the pictures (`detection_plots.py`, `detection_sheets.py`), the tables
made on request (`detection_closer.py`), and how it looks (`templates/`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.evaluation.detection import FALSE_ALARMS as LEVELS
from pipeline.report.decimals import minus, number
from pipeline.report.detection_closer import Table, closer
from pipeline.report.page import Single
from pipeline.report.second_look import EXPLAINED
from pipeline.report.templating import render

ROC, SIZES = "roc.svg", "sizes.svg"
LEVELS_SHOWN = tuple(level for level in LEVELS if level in (0.02, 0.1, 0.5, 1.0))  # all of them are in the JSON
GALLERIES = {
    "hits": ("Hits", "Faces that were found, from the surest to the least sure."),
    "misses": ("Misses", "The largest known faces that were not found, with what the table says of them."),
    "false_alarms": ("False alarms", "The surest boxes that found no face, or one that was found already."),
}
PLOTS = {
    ROC: "FDDB’s curves: faces found against false alarms in all images, a point a threshold. Whole lines count a "
    "found face as 1 (discrete), dashed ones as its overlap (continuous).",
    SIZES: "Share of faces found by their longer side, overlap above 0.3. Lines: 95 % intervals (Wilson).",
}


@dataclass(frozen=True, slots=True)
class DetectionContent:
    """What the page shows.

    Attributes:
        metrics: as in `detection.json`.
        facts: what was evaluated, in words: a name and a value each.
        notes: what a reader must know before the numbers; a sentence each.
        pictures: plots and the explained image, bytes by file name; the page shows those that are there.
        galleries: single pictures by key of `GALLERIES`.
    """

    metrics: Mapping[str, Any]
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    pictures: Mapping[str, bytes]
    galleries: Mapping[str, Sequence[Single]]


def detection_page(content: DetectionContent) -> bytes:
    """Returns the page, UTF-8."""
    metrics = content.metrics
    galleries = [
        {"key": key.replace("_", "-"), "title": title, "words": words, "singles": content.galleries.get(key, ())}
        for key, (title, words) in GALLERIES.items()
    ]
    context = {
        "faces": metrics["scores"][0]["faces"],
        "images": metrics["account"]["judged"],
        "cards": list(_cards(metrics)),
        "facts": content.facts,
        "notes": content.notes,
        "scores": [_scores(metrics), _levels(metrics)],
        "sizes": _sizes(metrics),
        "plots": {
            name[:-4]: {"data": content.pictures[name], "words": words}
            for name, words in PLOTS.items()
            if name in content.pictures
        },
        "closer": list(closer(metrics)),
        "explained": metrics["explained"] if EXPLAINED in content.pictures else None,
        "explained_picture": content.pictures.get(EXPLAINED, b""),
        "galleries": galleries,
    }
    return render("detection.html.j2", style="run_report.css", **context)


def _cards(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    half, spent = metrics["scores"][0], metrics["cpu_ms_an_image"]
    mapped = next((one for one in metrics["scores"] if one["mapped"]), half)
    yield "faces found", number(half["recall"], 3), "overlap above 0.5, boxes as they are"
    yield "after a box map", number(mapped["recall"], 3), "overlap above 0.5, boxes as this set draws them"
    yield "false alarms", number(half["false_alarms_an_image"], 3), "an image, overlap above 0.5"
    yield "mean overlap", number(mapped["mean_overlap"], 3), "of faces found, after the map"
    yield "detection", f"{spent['detect']:.1f} ms", "CPU time an image"


def _scores(metrics: Mapping[str, Any]) -> Table:
    box_map = metrics["box_map"]
    return Table(
        "Faces found and false alarms",
        ("overlap above", "found", "faces", "false alarms", "an image", "mean overlap"),
        [
            (
                f"{one['overlap']}{', mapped' if one['mapped'] else ''}",
                number(one["recall"], 3),
                f"{one['hits']:,} of {one['faces']:,}",
                f"{one['false_alarms']:,}",
                number(one["false_alarms_an_image"], 3),
                number(one["mean_overlap"], 3),
            )
            for one in metrics["scores"]
        ],
        "Mapped: every box moved by "
        f"{_signed(box_map['dx'])} of its width and {_signed(box_map['dy'])} of its height, its sides times "
        f"{box_map['sw']:.2f} and {box_map['sh']:.2f}: medians over {box_map['pairs']:,} pairs, the habit of those who "
        "annotated this set.",
    )


def _levels(metrics: Mapping[str, Any]) -> Table:
    return Table(
        "Faces found at so many false alarms an image",
        ("overlap above", *(f"≤ {level:g}" for level in LEVELS_SHOWN)),
        [
            (
                f"{one['overlap']}{', mapped' if one['mapped'] else ''}",
                *(_at(at) for at in one["recall_at"] if at["allowed"] in LEVELS_SHOWN),
            )
            for one in metrics["scores"]
        ],
        "In brackets: the least score that gives it. A star: all boxes count there; a lower threshold of the detector "
        "itself may find more.",
    )


def _at(at: Mapping[str, Any]) -> str:
    score = "" if at["score"] is None else f" ({at['score']:.3f})"
    return f"{number(at['recall'], 3)}{'*' if at['at_end'] else ''}{score}"


def _signed(value: float) -> str:
    return minus(f"{round(value, 2) + 0.0:+.2f}")  # no minus before 0


def _sizes(metrics: Mapping[str, Any]) -> Table:
    return Table(
        "By the size of the face",
        ("longer side", "faces", "found", "share"),
        [
            (_span(one), f"{one['faces']:,}", f"{one['found']:,}", number(one["recall"], 3))
            for one in metrics["by_size"]
            if one["faces"]
        ],
    )


def _span(one: Mapping[str, Any]) -> str:
    return f"{one['least_px']} px and more" if one["below_px"] is None else f"{one['least_px']} to {one['below_px']} px"
