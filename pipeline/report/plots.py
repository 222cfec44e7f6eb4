"""Figures of merit as pictures: confusion, ROC, reliability, coverage. Each function returns the bytes of an SVG.

Not here: the figures themselves (`metrics.py`), and pictures of images (`sheets.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.evaluation.metrics import Curve, Evaluation, Reliability, Selective, area
from pipeline.report.drawing import (
    BLUE,
    COLOURS,
    GREY,
    PALE,
    VERMILLION,
    as_shares,
    as_svg,
    new_figure,
    our_look,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 200  # of a curve: more cannot be seen at this size, and ten million would be drawn
NUMBERED_CLASSES = 16  # past which the numbers in the cells of a confusion matrix cannot be read
NAMED_CURVES = 7  # as many as there are colours; of more classes the worst are named
NAME_LENGTH = 16
FEWEST_ROWS = 20  # below, an accuracy is too noisy to be drawn


def confusion_svg(evaluation: Evaluation) -> bytes:
    """Draws the confusion matrix: colour is the share of the true class, numbers are rows and that share."""
    count, k = evaluation.confusion, len(evaluation.classes)
    shares = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    names = [shortened(name, NAME_LENGTH) for name in evaluation.classes]
    side = min(max(0.72 * k, 2.4), 11)
    width, height = side + 2.2, side + (1.5 if k > 2 else 0.8)
    with our_look():
        figure = new_figure(width, height)
        axes = figure.add_axes((1.5 / width, 0.25 / height, side / width, side / height))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks(range(k), names, rotation=40 if k > 2 else 0, ha="left" if k > 2 else "center")
        axes.set_yticks(range(k), names)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0)
        axes.set_xlabel("label given", color=GREY)
        axes.set_ylabel("true label", color=GREY)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        if k <= NUMBERED_CLASSES:
            _write_cells(axes, count, shares)
        return as_svg(figure)


def _write_cells(axes: Axes, count: np.ndarray, shares: np.ndarray) -> None:
    for row, column in np.ndindex(count.shape):
        colour = "white" if shares[row, column] > 0.55 else "#222222"
        place: dict[str, Any] = {"ha": "center", "color": colour}
        axes.text(column, row - 0.05, f"{count[row, column]:,}", va="bottom", fontsize=8.5, **place)
        share = f"{shares[row, column] * 100:.0f} %" if count[row].any() else "–"
        axes.text(column, row + 0.08, share, va="top", fontsize=7, **place)


def roc_svg(evaluation: Evaluation) -> bytes:
    """Draws the ROC curve of each class against the rest; of two classes that of the second."""
    with our_look():
        figure = new_figure(6.8, 4.3)
        axes = figure.add_axes((0.115, 0.12, 0.55, 0.83))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.text(0.62, 0.555, "chance", color=GREY, fontsize=8)
        for curve, colour, words in _named_curves(evaluation):
            thin = thinned(curve)
            width = 1.6 if words else 0.7
            axes.plot(thin.x, thin.y, color=colour, linewidth=width, label=words, zorder=3 if words else 2)
        as_shares(axes)
        axes.set_xlabel("share of the others that are taken for the class")
        axes.set_ylabel("share of the class that is found")
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.01), title="area under the curve", alignment="left")
        return as_svg(figure)


def _named_curves(evaluation: Evaluation) -> list[tuple[Curve, str, str | None]]:
    """Returns the curves to draw with a colour and, for those that get a name, the words of the legend."""
    curves = list(zip(evaluation.classes, evaluation.roc, strict=True))
    if len(curves) == 2:
        curves = curves[1:]
    there = [(name, curve, area(curve) or 0.0) for name, curve in curves if curve is not None]
    named = {name for name, _, _ in sorted(there, key=lambda item: (item[2], item[0]))[:NAMED_CURVES]}
    found, colours = [], iter(COLOURS)
    for name, curve, size in there:
        words = f"{size:.3f}  {shortened(name, NAME_LENGTH)}" if name in named else None
        found.append((curve, next(colours) if words else PALE, words))
    return found


def thinned(curve: Curve, points: int = POINTS) -> Curve:
    """Returns at most so many points of a curve, evenly spaced along it, both ends among them."""
    if len(curve.x) <= points:
        return curve
    spans = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(curve.x)) + np.abs(np.diff(curve.y)))])
    wanted = np.searchsorted(spans, np.linspace(0, spans[-1], points))
    chosen = np.unique(np.minimum(np.concatenate([[0], wanted, [len(spans) - 1]]), len(spans) - 1))
    return Curve(curve.x[chosen], curve.y[chosen])


def reliability_svg(bins: Reliability) -> bytes:
    """Draws accuracy against confidence with 95 % intervals (Wilson), and below how many rows each bin holds."""
    with our_look():
        figure = new_figure(5.2, 5.2)
        upper = figure.add_axes((0.14, 0.36, 0.82, 0.55))
        lower = figure.add_axes((0.14, 0.095, 0.82, 0.20))
        _draw_gaps(upper, bins)
        _draw_counts(lower, bins)
        return as_svg(figure)


def _draw_gaps(axes: Axes, bins: Reliability) -> None:
    full = bins.count > 0
    middle, width = (bins.edges[:-1] + bins.edges[1:])[full] / 2, bins.edges[1]
    accuracy, confidence = bins.accuracy[full], bins.confidence[full]
    low, high = wilson(accuracy, bins.count[full])
    axes.bar(middle, accuracy, width=width * 0.86, color="#b9d7ea", zorder=2, label="accuracy")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=3, label="as sure as right")
    axes.vlines(confidence, low, high, color=BLUE, linewidth=1.2, zorder=4)
    axes.scatter(confidence, accuracy, s=20, color=BLUE, zorder=5, label="at its mean confidence", clip_on=False)
    as_shares(axes)
    axes.set_ylabel("accuracy")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, fontsize=8, columnspacing=1.4)
    axes.set_title(f"expected calibration error {bins.expected_error:.3f}", pad=24)


def _draw_counts(axes: Axes, bins: Reliability) -> None:
    middle = (bins.edges[:-1] + bins.edges[1:]) / 2
    axes.bar(middle, bins.count, width=bins.edges[1] * 0.86, color=BLUE, zorder=2)
    for place, count in zip(middle, bins.count.tolist(), strict=True):
        if count:
            axes.text(place, count, _short_number(count), ha="center", va="bottom", fontsize=6.5, color=GREY)
    as_shares(axes, y=False)
    axes.set_ylim(0, bins.count.max() * 1.18)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.set_ylabel("images", labelpad=14)
    axes.set_xlabel("confidence")


def _short_number(count: int) -> str:
    """Returns at most four characters, rounded down: 9999, 99k, 9.9M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= 10 * size:
            return f"{count // size}{letter}"
        if count >= size and size > 10**3:
            return f"{count * 10 // size / 10:.1f}{letter}"
    return str(count)


def wilson(share: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of the 95 % score interval of shares of so many rows (Wilson 1927)."""
    z = 1.959964
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return middle - half, middle + half


def coverage_svg(curve: Selective, table: Sequence[dict[str, float]], rows: int) -> bytes:
    """Draws accuracy against the share of images that are labelled when the less confident ones are not.

    Args:
        table: of `at_coverages`: points that are marked with their thresholds.
        rows: of the evaluation.
    """
    overall = float(curve.accuracy[-1])
    with our_look():
        figure = new_figure(5.2, 3.9)
        axes = figure.add_axes((0.14, 0.13, 0.82, 0.80))
        enough = curve.coverage * rows >= min(FEWEST_ROWS, rows)
        line = thinned(Curve(curve.coverage[enough], curve.accuracy[enough]))
        low, high = wilson(line.y, line.x * rows)
        axes.fill_between(line.x, low, high, color="#dcebf5", linewidth=0, zorder=1)
        axes.plot(line.x, line.y, color=BLUE, linewidth=1.6, zorder=3)
        axes.axhline(overall, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=2)
        as_shares(axes, y=False)
        floor = _floor(min(float(low.min()), overall))
        _mark_thresholds(axes, table)
        step = next(step for step in (1, 2, 5, 10) if round((1 - floor) * 100) <= 10 * step)
        marks = range(100, round(floor * 100) - 1, -step)
        axes.set_yticks([mark / 100 for mark in marks], [f"{mark} %" for mark in marks])
        axes.set_ylim(floor, 1.0 + (1.0 - floor) * 0.04)
        plain = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        words = f"all images: {overall * 100:.1f} %"
        axes.text(0.012, overall, words, color=GREY, fontsize=8, va="center", bbox=plain, zorder=4)
        axes.set_xlabel("coverage: share of the images that are labelled")
        axes.set_ylabel("accuracy among them")
        axes.set_title("○ marks: least confidence that is accepted", loc="right", color=GREY, fontsize=8)
        return as_svg(figure)


def _floor(lowest: float) -> float:
    """Returns the tenth below, with some room."""
    return max(0.0, math.floor(lowest * 10 - 0.2) / 10)


def _mark_thresholds(axes: Axes, table: Sequence[dict[str, float]]) -> None:
    met: set[float] = set()
    for row in table:
        if row["wanted"] >= 1 or row["threshold"] in met:
            continue
        met.add(row["threshold"])
        axes.scatter([row["coverage"]], [row["accuracy"]], s=26, facecolor="white", edgecolor=VERMILLION, zorder=4)
        axes.annotate(
            f"≥ {row['threshold']:.2f}",
            (row["coverage"], row["accuracy"]),
            xytext=(4, 5),
            textcoords="offset points",
            fontsize=8,
            color=VERMILLION,
            zorder=5,
        )


def all_plots(evaluation: Evaluation) -> dict[str, bytes]:
    """Returns every plot by file name."""
    table = evaluation.metrics["coverage"]
    return {
        "confusion.svg": confusion_svg(evaluation),
        "roc.svg": roc_svg(evaluation),
        "reliability.svg": reliability_svg(evaluation.reliability),
        "coverage.svg": coverage_svg(evaluation.selective, table, evaluation.metrics["rows"]),
    }
