"""The parts of a detector's page that are made on request: groups, harder photos, steps, ways, an explained image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.html_parts import figure, number, table
from pipeline.report.second_look import EXPLAINED


def closer(metrics: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Iterator[str]:
    """Yields lines of HTML for what `detection.json` has of these."""
    yield from _groups(metrics["by_group"])
    yield from _changes(metrics["by_change"])
    yield from _steps(metrics["by_step"])
    yield from _ways(metrics["by_way"])
    if metrics["explained"]:
        yield "<h2>One image, step by step</h2>"
        yield figure(pictures, EXPLAINED, f"{metrics['explained']}. White: known faces.")


def _groups(groups: list[dict[str, Any]]) -> Iterator[str]:
    if groups:
        yield "<h2>By group</h2>"
        yield table(
            [
                (one["column"], one["value"] or "–", f"{one['faces']:,}", f"{one['found']:,}", number(one["recall"], 3))
                for one in groups
            ],
            ("column", "value", "faces", "found", "share"),
            texts=2,
        )
        yield "<p class=note>Overlap above 0.3. With few faces in a group, a difference may be chance.</p>"


def _changes(changes: list[dict[str, Any]]) -> Iterator[str]:
    if changes:
        yield "<h2>Harder photos</h2>"
        yield table(
            [
                (
                    one["change"],
                    number(one["recall"], 3),
                    number(one["false_alarms_an_image"], 3),
                    number(one["mean_overlap"], 3),
                )
                for one in changes
            ],
            ("photos", "found", "false alarms an image", "mean overlap"),
        )
        yield "<p class=note>Overlap above 0.3; ellipses count as the boxes around them.</p>"


def _steps(steps: list[dict[str, Any]]) -> Iterator[str]:
    if steps:
        yield "<h2>Step by step</h2>"
        yield table(
            [
                (
                    one["step"],
                    f"{one['boxes_an_image']:,.1f}",
                    number(one["faces_covered"], 3),
                    f"{one['cpu_ms_an_image']:.2f} ms",
                )
                for one in steps
            ],
            ("step", "boxes left an image", "known faces covered", "CPU time an image"),
        )
        yield "<p class=note>A face is covered if some box overlaps it by more than 0.3.</p>"


def _ways(ways: list[dict[str, Any]]) -> Iterator[str]:
    if ways:
        yield "<h2>With and without calibration</h2>"
        yield table(
            [
                (
                    one["way"],
                    f"{one['overlap']}",
                    number(one["recall"], 3),
                    number(one["false_alarms_an_image"], 3),
                    number(one["mean_overlap"], 3),
                    f"{one['cpu_ms_an_image']:.1f} ms",
                )
                for one in ways
            ],
            ("way", "overlap above", "found", "false alarms an image", "mean overlap", "CPU time an image"),
        )
