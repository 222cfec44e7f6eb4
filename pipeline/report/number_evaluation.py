"""What `evaluate` writes for a head that gives a number: metrics and a picture of predicted against true numbers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.evaluation.numbers import evaluate_numbers
from models.heads.output_spec import number_in
from models.training.groups import joined
from pipeline.errors import UsageError
from pipeline.report.drawing import BLUE, GREY, as_svg, new_figure, our_look
from transforms.formats.publish import publish_bytes
from transforms.formats.records import Status
from transforms.formats.results import Numbers

METRICS, PLOT = "metrics.json", "predicted.svg"
POINTS = 2_000  # drawn: more hide each other


def write_number_evaluation(output: str, found: Numbers, about: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Writes the files, and returns the metrics.

    Raises:
        UsageError: no image has both a true and a predicted number, or a label is not a number.
    """
    true, predicted, digests, counts = _rows(found)
    metrics = evaluate_numbers(predicted, true, joined(digests), seed=seed)
    text = json.dumps({"evaluated": {**about, "counts": counts, "seed": seed}, **metrics}, indent=1) + "\n"
    publish_bytes(os.path.join(output, PLOT), predicted_svg(predicted, true, found.name, metrics, seed))
    publish_bytes(os.path.join(output, METRICS), text.encode())
    return metrics


def _rows(found: Numbers) -> tuple[np.ndarray, np.ndarray, Sequence[str], dict[str, int]]:
    labels, statuses = found.labels.to_pylist(), found.status.to_pylist()
    own = [row for row, status in enumerate(statuses) if status != Status.DUPLICATE.value]
    labelled = [row for row in own if labels[row] is not None]
    judged = [row for row in labelled if not math.isnan(found.values[row])]
    if not judged:
        raise UsageError("no image has a label and a labelled face; labels of numbers come from read.labels")
    counts = {
        "images": len(own),
        "without_label": len(own) - len(labelled),
        "without_a_number": len(labelled) - len(judged),
        "evaluated": len(judged),
    }
    digests = found.digests.take(judged).to_pylist()
    ids = found.ids.take(judged).to_pylist()
    true = [_number(labels[row], image_id) for row, image_id in zip(judged, ids, strict=True)]
    return np.asarray(true), found.values[judged], digests, counts


def _number(label: str, image_id: str) -> float:
    try:
        return number_in(label)
    except ValueError as error:
        raise UsageError(f"{image_id}: the true label {label!r} {error}, but the head gives numbers") from error


def predicted_svg(predicted: np.ndarray, true: np.ndarray, name: str, metrics: Mapping[str, Any], seed: int) -> bytes:
    """Draws predicted against true numbers; on the line they are equal."""
    shown = np.sort(np.random.default_rng(seed).permutation(len(true))[:POINTS])
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    space = 0.04 * (high - low or 1)
    ends = (low - space, high + space)
    with our_look():
        figure = new_figure(4.6, 4.4)
        axes = figure.add_axes((0.15, 0.13, 0.8, 0.77))
        axes.plot(ends, ends, color=GREY, linewidth=1)
        axes.scatter(true[shown], predicted[shown], s=9, color=BLUE, alpha=0.45, linewidths=0)
        axes.set_xlim(ends)
        axes.set_ylim(ends)
        axes.set_xlabel(f"true {name}")
        axes.set_ylabel(f"predicted {name}")
        axes.set_title(words_of(metrics, short=True), fontsize=9, color=GREY, loc="left")
        return as_svg(figure)


def words_of(metrics: Mapping[str, Any], *, short: bool = False) -> str:
    """Returns R² and mean error in words, with their intervals."""
    r2, mae = metrics["r2"], metrics["mae"]
    explained = "R² undefined" if r2 is None else f"R² {r2['value']:.3f} ({r2['low']:.3f} to {r2['high']:.3f})"
    error = f"mean error {mae['value']:.3f}"
    if short:
        return f"{explained}, {error}, {metrics['rows']:,} images"
    more = f"{error} ({mae['low']:.3f} to {mae['high']:.3f}; of always the median {metrics['mae_of_median']:.3f})"
    return f"{explained}, {more}, {metrics['rows']:,} images"
