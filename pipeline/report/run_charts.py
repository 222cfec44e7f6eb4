"""The charts of a run's page: what each shows, in which words, and its numbers as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.charts import NARROW, histogram
from pipeline.report.overlay import COLOURS
from pipeline.report.run_metrics import BINS

_SHARES = [(0, "0"), (BINS / 4, ".25"), (BINS / 2, ".5"), (3 * BINS / 4, ".75"), (BINS, "1")]


def distribution_charts(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the charts over all faces and all images."""
    confidence = [sum(label["confidence"][bin_] for label in metrics["labels"]) for bin_ in range(BINS)]
    sides, images = metrics["face_side_px"], metrics["faces_per_image"]
    intensity = [metrics["intensity"]] if "intensity" in metrics else []
    return [
        _chart("Confidence of labels", confidence, bin_names(), _SHARES, "confidence", "faces"),
        *(_chart("Intensity of labels", counts, bin_names(), _SHARES, "intensity", "faces") for counts in intensity),
        _chart("Detection scores", metrics["detection_score"], bin_names(), _SHARES, "score", "faces"),
        _chart(
            "Shorter side of faces, pixels",
            sides["faces"],
            span_names(sides["edges"]),
            [(at + 1, str(edge)) for at, edge in enumerate(sides["edges"])],
            "pixels",
            "faces",
        ),
        _chart(
            "Faces an image",
            images["images"],
            ["0", *span_names(images["edges"])[1:]],
            [
                (at + 0.5, name.split("–")[0] + "–" * ("–" in name))
                for at, name in enumerate(span_names(images["edges"]))
            ],
            "faces",
            "images",
        ),
    ]


def label_charts(metrics: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    """Returns the confidence of the most frequent labels, a chart each."""
    labels = metrics["labels"]
    order = sorted(range(len(labels)), key=lambda index: (-labels[index]["faces"], index))[:most]
    return [
        {
            "title": labels[index]["label"],
            "look": index % COLOURS,
            "faces": labels[index]["faces"],
            "counts": labels[index]["confidence"],
            "picture": histogram(
                labels[index]["confidence"], bin_names(), [_SHARES[0], _SHARES[2], _SHARES[4]],
                f"Confidence of {labels[index]['label'][:60]}: {words_of(labels[index]['confidence'], bin_names())}",
                width=NARROW,
            ),
        }
        for index in order
        if labels[index]["faces"]
    ]  # fmt: skip


def _chart(
    title: str,
    counts: Sequence[int],
    names: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    unit: str,
    counted: str,
) -> dict[str, Any]:
    return {
        "title": title,
        "picture": histogram(counts, names, ticks, f"{title}: {words_of(counts, names)}"),
        "unit": unit,
        "counted": counted,
        "rows": list(zip(names, counts, strict=True)),
    }


def words_of(counts: Sequence[int], names: Sequence[str]) -> str:
    """Returns a histogram in a sentence: how many, where half of them lie below, and the highest bin."""
    total = sum(counts)
    if not total:
        return "none"
    below, middle = 0, 0
    while 2 * (below + counts[middle]) < total:
        below, middle = below + counts[middle], middle + 1
    top = max(range(len(counts)), key=lambda at: counts[at])
    return f"{total:,} in all, median in {names[middle]}, most ({counts[top]:,}) in {names[top]}"


def bin_names() -> list[str]:
    """Returns the names of the bins of shares."""
    return [f"{at / BINS:.2f} to {(at + 1) / BINS:.2f}" for at in range(BINS)]


def span_names(edges: Sequence[int]) -> list[str]:
    """Returns the names of bins of whole numbers.

    >>> span_names([1, 2, 5])
    ['0', '1', '2–4', '5+']
    """
    starts = [0, *edges]
    names = [str(a) if b - a == 1 else f"{a}–{b - 1}" for a, b in zip(starts, edges, strict=False)]
    return [*names, f"{edges[-1]}+"]
