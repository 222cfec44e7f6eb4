"""One self-contained HTML page of an evaluation: it loads nothing, so it can be mailed, kept, and opened in ten years.

Not here: what is on the plots (`plots.py`), where the numbers come from (`metrics.py`), how it looks (`templates/`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.evaluation.metrics import BINS, DRAWS
from pipeline.report.decimals import minus, number
from pipeline.report.templating import render
from pipeline.report.visible_names import visible

SUSPECTS_LISTED = 20  # of the label errors; all of them are in the CSV
GALLERIES = {
    "mistakes": ("The most confident mistakes", "True label → label given, and the confidence in it."),
    "hardest": ("The hardest images", "True label → label given, and the probability of the true one."),
    "label_errors": ("Pictures of labels that may be wrong", "True label → what it looks like, and their margin."),
}
PLOTS = {
    "confusion.svg": "Rows are true labels; colour and percent are shares of the row.",
    "reliability.svg": "Below the dashed line it is surer than it is right. Lines: 95 %.",
    "coverage.svg": "Accuracy if people review the least confident images. Band: 95 %.",
    "roc.svg": "Every threshold on the probability of a class is a point of its curve.",
}
CLASS_COLUMNS = ("images", "given", "precision", "recall", "F1", "AUC", "average precision")
DEGREE = {
    "calibration_error": "{of} as a share of the votes: calibration error",
    "correlation": "{of} and share of the votes: correlation",
    "cross_entropy": "cross-entropy of the shares of the votes, nats",
}
CORRELATED = {"confidence": "probability", "intensity": "intensity"}  # of each class, by what the degree is of


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row of the list of suspected labels."""

    id: str
    stated: str
    suggested: str
    margin: float


@dataclass(frozen=True, slots=True)
class Single:
    """A picture by itself: WebP, and what stands below it."""

    picture: bytes
    title: str
    note: str
    id: str


@dataclass(frozen=True, slots=True)
class PageContent:
    """What the page shows.

    Attributes:
        facts: what was evaluated, in words: a name and a value each.
        notes: what a reader must know before the numbers; a sentence each.
        metrics: as `metrics.evaluate` gives them.
        accuracy_of_all: counting images without a face, or rejected, as wrong; None where there are none.
        pictures: bytes by file name; the page shows the plots that are there.
        suspects: all suspected labels that are to be listed, the likeliest error first.
        suspected: how many there are.
        degree: as `degree.degree` gives it; None without votes.
        galleries: single pictures by key of `GALLERIES`; those without a picture are left out.
    """

    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    metrics: Mapping[str, Any]
    accuracy_of_all: float | None
    pictures: Mapping[str, bytes]
    suspects: Sequence[Suspect]
    suspected: int
    degree: Mapping[str, Any] | None = None
    galleries: Mapping[str, Sequence[Single]] = field(default_factory=dict)


def page(content: PageContent) -> bytes:
    """Returns the page, UTF-8."""
    metrics = content.metrics
    context = {
        "rows": metrics["rows"],
        "cards": list(_cards(metrics)),
        "notes": content.notes,
        "facts": content.facts,
        "others": list(_other_figures(content)),
        "draws": DRAWS,
        "seed": metrics["bootstrap"]["seed"],
        "correlated": CORRELATED[content.degree["of"]] if content.degree else "",
        "class_columns": [*CLASS_COLUMNS, *(["correlation with votes"] if content.degree else [])],
        "classes": list(_classes(content)),
        "plots": {
            name[:-4]: {"data": content.pictures[name], "words": words}
            for name, words in PLOTS.items()
            if name in content.pictures
        },
        "coverage": list(_coverage(metrics)),
        "galleries": list(_galleries(content)),
        "suspected": content.suspected,
        "suspected_share": content.suspected / max(1, metrics["rows"]),
        "suspects": [
            {"id": s.id, "stated": s.stated, "suggested": s.suggested, "margin": minus(f"{s.margin:.4f}")}
            for s in content.suspects[:SUSPECTS_LISTED]
        ],
    }
    return render("evaluation.html.j2", style="run_report.css", **context)


def _cards(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    accuracy, macro = metrics["accuracy"], metrics["macro_f1"]
    yield "accuracy", f"{accuracy['value']:.4f}", _interval(accuracy)
    yield "macro F1", f"{macro['value']:.4f}", _interval(macro)
    majority = visible(str(metrics["majority_class"]), 40)
    yield "majority baseline", f"{metrics['majority_baseline']:.4f}", f"always “{majority}”"
    yield "calibration error", f"{metrics['expected_calibration_error']:.4f}", f"expected, {BINS} equal bins"
    of_what = "mean of the classes, each against the rest"
    if len(metrics["by_class"]) == 2:  # then both are one curve
        of_what = f"{visible(list(metrics['by_class'])[1], 40)} against the rest"
    yield "AUC", number(metrics["auc_macro"]), of_what


def _other_figures(content: PageContent) -> Iterator[tuple[str, str]]:
    metrics = content.metrics
    balanced = metrics["balanced_accuracy"]
    if content.accuracy_of_all is not None:
        yield "accuracy over all, unlabelled as wrong", f"{content.accuracy_of_all:.4f}"
    yield "balanced accuracy", f"{balanced['value']:.4f} ({balanced['low']:.4f} to {balanced['high']:.4f})"
    yield "Cohen’s kappa", number(metrics["cohen_kappa"])
    yield "log loss", f"{metrics['log_loss']:.4f} nats"
    yield "Brier score (0 to 2)", f"{metrics['brier']:.4f}"
    yield "area under risk and coverage", f"{metrics['area_under_risk']:.4f}"
    degree = content.degree or {}
    for key, words in DEGREE.items():
        if figure := degree.get(key):
            yield words.format(of=degree["of"]), f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"


def _classes(content: PageContent) -> Iterator[dict[str, Any]]:
    degrees = (content.degree or {}).get("by_class", {})
    for name, row in content.metrics["by_class"].items():
        yield {
            "name": name,
            "cells": [
                *(f"{row['support']:,}", f"{row['predicted']:,}"),
                *(number(row[key], 3) for key in ("precision", "recall", "f1")),
                number(row["auc"], 3) + _ends(row["auc_interval"]),
                number(row["average_precision"], 3),
                *([minus(number(degrees[name]["correlation"], 3))] if degrees else []),
            ],
        }


def _coverage(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for row in metrics["coverage"]:
        shares = (f"{row[key]:.4f}" for key in ("threshold", "coverage", "accuracy"))
        threshold, coverage, accuracy = shares
        yield f"{row['wanted'] * 100:.0f} %", threshold, coverage, accuracy


def _galleries(content: PageContent) -> Iterator[dict[str, Any]]:
    for key, (title, words) in GALLERIES.items():
        if singles := content.galleries.get(key):
            yield {"key": key.replace("_", "-"), "title": title, "words": words, "singles": singles}


def _interval(figure: Mapping[str, float]) -> str:
    return f"95 % interval {figure['low']:.4f} to {figure['high']:.4f}"


def _ends(interval: Mapping[str, float] | None) -> str:
    return "" if interval is None else f" ({interval['low']:.3f} to {interval['high']:.3f})"
