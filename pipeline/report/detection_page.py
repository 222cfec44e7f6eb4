"""The page of `evaluate-detector`: one file that loads nothing, light or dark as the reader prefers.

Not here: the numbers (`detection_files.py`), and the pictures (`detection_plots.py`, `detection_sheets.py`).
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models.evaluation.detection import FALSE_ALARMS as LEVELS
from pipeline.report.detection_closer import closer
from pipeline.report.detection_sheets import FALSE_ALARMS, HITS, MISSES
from pipeline.report.html_parts import card, document, figure, minus, number, table

ROC, SIZES = "roc.svg", "sizes.svg"
LEVELS_SHOWN = tuple(level for level in LEVELS if level in (0.02, 0.1, 0.5, 1.0))  # all of them are in the JSON
_SHEETS = (
    (
        HITS,
        "Hits",
        "Faces that were found, from the surest to the least sure. White: known faces; blue: what was found.",
    ),
    (MISSES, "Misses", "The largest known faces that were not found, with what the table says of them."),
    (FALSE_ALARMS, "False alarms", "The surest boxes that found no face, or one that was found already (orange)."),
)


def detection_page(
    metrics: Mapping[str, Any], facts: Sequence[tuple[str, str]], notes: Sequence[str], pictures: Mapping[str, bytes]
) -> bytes:
    """Returns the page, UTF-8.

    Args:
        metrics: as in `detection.json`.
        facts: what was evaluated, in words: a name and a value each.
        notes: what a reader must know before the numbers; a sentence each.
        pictures: bytes by file name; the page shows those that are there.
    """
    sections = [
        _opening(metrics, facts, notes),
        _scores(metrics),
        _curves(pictures),
        _sizes(metrics, pictures),
        closer(metrics, pictures),
    ]
    return document(
        "Evaluation of a detector", (line for part in (*sections, _pictures(pictures)) for line in part), dark=True
    )


def _opening(metrics: Mapping[str, Any], facts: Sequence[tuple[str, str]], notes: Sequence[str]) -> Iterator[str]:
    half = metrics["scores"][0]
    spent = metrics["cpu_ms_an_image"]
    yield "<h1>How well does this detector find faces?</h1>"
    yield f"<p class=note>{half['faces']:,} known faces that count, in {metrics['account']['judged']:,} images.</p>"
    yield "<div class=cards>"
    mapped = next((one for one in metrics["scores"] if one["mapped"]), half)
    yield card("faces found", number(half["recall"], 3), "overlap above 0.5, boxes as they are")
    yield card("after a box map", number(mapped["recall"], 3), "overlap above 0.5, boxes in the set’s convention")
    yield card("false alarms", number(half["false_alarms_an_image"], 3), "an image, overlap above 0.5")
    yield card("mean overlap", number(mapped["mean_overlap"], 3), "of faces found, after the map")
    yield card("detection", f"{spent['detect']:.1f} ms", "CPU time an image")
    yield "</div>"
    yield from (f"<p>{html.escape(note)}</p>" for note in notes)
    yield table(list(facts), kind="facts")


def _scores(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Found and falsely found</h2>"
    head = ("overlap above", "found", "faces", "false alarms", "an image", "mean overlap")
    rows = [
        (
            f"{one['overlap']}{', mapped' if one['mapped'] else ''}",
            number(one["recall"], 3),
            f"{one['hits']:,} of {one['faces']:,}",
            f"{one['false_alarms']:,}",
            number(one["false_alarms_an_image"], 3),
            number(one["mean_overlap"], 3),
        )
        for one in metrics["scores"]
    ]
    yield f"<div class=wide>{table(rows, head)}</div>"
    box_map = metrics["box_map"]
    yield (
        "<p class=note>Mapped: every box moved by "
        f"{_signed(box_map['dx'])} of its width and {_signed(box_map['dy'])} of its height, its sides times "
        f"{box_map['sw']:.2f} and {box_map['sh']:.2f}: medians over {box_map['pairs']:,} pairs, the habit of those who "
        "annotated this set.</p>"
    )
    yield "<h2>Faces found at so many false alarms an image</h2>"
    levels = ("overlap above", *(f"≤ {level:g}" for level in LEVELS_SHOWN))
    rows_at = [
        (
            f"{one['overlap']}{', mapped' if one['mapped'] else ''}",
            *(_at(at) for at in one["recall_at"] if at["allowed"] in LEVELS_SHOWN),
        )
        for one in metrics["scores"]
    ]
    yield f"<div class=wide>{table(rows_at, levels)}</div>"
    yield (
        "<p class=note>Behind each: the least score that gives it. A star: all boxes count there; a lower threshold of "
        "the detector itself may find more.</p>"
    )


def _at(at: Mapping[str, Any]) -> str:
    score = "" if at["score"] is None else f" ({at['score']:.3f})"
    return f"{number(at['recall'], 3)}{'*' if at['at_end'] else ''}{score}"


def _signed(value: float) -> str:
    return minus(f"{round(value, 2) + 0.0:+.2f}")  # no minus before 0


def _curves(pictures: Mapping[str, bytes]) -> Iterator[str]:
    yield "<h2>Curves</h2>"
    yield figure(
        pictures,
        ROC,
        "FDDB’s curves: faces found against false alarms in all images, a point a threshold. Whole lines count a found "
        "face as 1 (discrete), dashed ones as its overlap (continuous).",
    )


def _sizes(metrics: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Iterator[str]:
    yield "<h2>By the size of the face</h2>"
    yield figure(
        pictures, SIZES, "Share of faces found by their longer side, overlap above 0.3. Lines: 95 % intervals (Wilson)."
    )
    rows = [
        (_span(one), f"{one['faces']:,}", f"{one['found']:,}", number(one["recall"], 3))
        for one in metrics["by_size"]
        if one["faces"]
    ]
    yield table(rows, ("longer side", "faces", "found", "share"))


def _span(one: Mapping[str, Any]) -> str:
    return f"{one['least_px']} px and more" if one["below_px"] is None else f"{one['least_px']} to {one['below_px']} px"


def _pictures(pictures: Mapping[str, bytes]) -> Iterator[str]:
    for name, title, words in _SHEETS:
        yield f"<h2>{title}</h2>"
        yield figure(pictures, name, words) or f"<p>There are no {title.lower()}.</p>"
