"""The tables of a detector's page that are made on request: groups, harder photos, steps, ways to search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.decimals import number


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the page shows it.

    Attributes:
        title: its heading.
        head: names of the columns. rows: a cell for each; the first names the row.
        note: what a reader must know, "" for nothing.
        texts: how many columns hold words, the first among them; the others hold numbers.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    texts: int = 1

    @property
    def id(self) -> str:
        """What a link leads to."""
        return self.title.lower().replace(" ", "-").replace(",", "")


def closer(metrics: Mapping[str, Any]) -> Iterator[Table]:
    """Yields a table for each second look that `detection.json` has."""
    if metrics["by_group"]:
        yield _groups(metrics["by_group"])
    if metrics["by_change"]:
        yield _changes(metrics["by_change"])
    if metrics["by_step"]:
        yield _steps(metrics["by_step"])
    if metrics["by_way"]:
        yield _ways(metrics["by_way"])


def _groups(groups: list[dict[str, Any]]) -> Table:
    return Table(
        "By group",
        ("column", "value", "faces", "found", "share"),
        [
            (one["column"], one["value"] or "–", f"{one['faces']:,}", f"{one['found']:,}", number(one["recall"], 3))
            for one in groups
        ],
        "Overlap above 0.3. With few faces in a group, a difference may be chance.",
        texts=2,
    )


def _changes(changes: list[dict[str, Any]]) -> Table:
    return Table(
        "Harder photos",
        ("photos", "found", "false alarms an image", "mean overlap"),
        [(one["change"], *_judged(one)) for one in changes],
        "Overlap above 0.3; ellipses count as the boxes around them.",
    )


def _steps(steps: list[dict[str, Any]]) -> Table:
    return Table(
        "Step by step",
        ("step", "boxes left an image", "known faces covered", "CPU time an image"),
        [
            (
                one["step"],
                f"{one['boxes_an_image']:,.1f}",
                number(one["faces_covered"], 3),
                f"{one['cpu_ms_an_image']:.2f} ms",
            )
            for one in steps
        ],
        "A face is covered if some box overlaps it by more than 0.3.",
    )


def _ways(ways: list[dict[str, Any]]) -> Table:
    return Table(
        "With and without calibration",
        ("way", "overlap above", "found", "false alarms an image", "mean overlap", "CPU time an image"),
        [(one["way"], f"{one['overlap']}", *_judged(one), f"{one['cpu_ms_an_image']:.1f} ms") for one in ways],
    )


def _judged(one: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(number(one[key], 3) for key in ("recall", "false_alarms_an_image", "mean_overlap"))
