"""The table of `train-head --compare`, as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transforms.formats.publish import publish_bytes

TABLE = "compare.csv"


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(key, value) for key, value in row.items()} for row in rows)
    publish_bytes(path, text.getvalue().encode("utf-8"))


def _cell(name: str, value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.1f}" if name == "fit_cpu_s" else f"{value:.4f}"


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as a Markdown table; counts with separators, metrics with four places."""
    names = list(rows[0])
    lines = [f"| {' | '.join(name.replace('_', ' ') for name in names)} |", "|" + "---|" * len(names)]
    for row in rows:
        cells = (f"{value:,}" if isinstance(value, int) else _cell(name, value) for name, value in row.items())
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
