"""Writes what differs between two finished runs: `differences.parquet`, `comparison.json`, and the page last.

Both runs are read once, side by side; memory does not depend on how many images they hold. The same runs and the same
seed give the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.report.two_runs.comparison_page import ComparisonContent, comparison_page
from pipeline.report.two_runs.differences import SCHEMA, Classes, as_table, compare_batch
from pipeline.report.two_runs.drift import Drift
from pipeline.report.two_runs.feature_drift import DigestSample, feature_drift
from pipeline.report.two_runs.pair_pictures import Source, read_pair_pictures
from pipeline.report.two_runs.pair_samples import PairChooser
from pipeline.report.two_runs.pairing import paired_batches
from pipeline.report.two_runs.tally import Tally
from pipeline.run.cache_of_run import cache_of_run
from transforms.formats.publish import publish, publish_bytes
from transforms.formats.records import FormatError
from transforms.storage.stopping import check

PAGE, NUMBERS, DIFFERENCES = "comparison.html", "comparison.json", "differences.parquet"
VERSION = 1  # of `comparison.json`
_ROWS_HELD = 8_192  # of differences, until they are written


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One of the two runs, and one of its heads.

    Attributes:
        folder: its output folder. `record`: its `run.json`, in which `head` is the compared one.
        source: where its pictures come from.
        prefix: what the columns of the head begin with.
    """

    folder: str
    record: Mapping[str, Any]
    source: Source
    prefix: str = ""

    @property
    def classes(self) -> list[str]:
        """Names of its labels."""
        return list(self.record["head"]["classes"])


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found, for the closing words: the numbers of `comparison.json`, and pictures that are missing."""

    numbers: Mapping[str, Any]
    pictures_missing: int


def write_comparison(
    output: str,
    a: FinishedRun,
    b: FinishedRun,
    *,
    min_iou: float,
    seed: int,
    renamed: Mapping[str, str] | None = None,
) -> Comparison:
    """Writes all three files into `output`; those of an earlier time are replaced.

    Args:
        min_iou: overlap below which the boxes of one face count as different.
        seed: of the images that are shown and of the intervals.
        renamed: A's name of a label by B's name of it.

    Raises:
        ResultsError: the tables of a run are damaged. StorageError: a file cannot be read or written.
    """
    os.makedirs(output, exist_ok=True)
    page_path = os.path.join(output, PAGE)
    if os.path.lexists(page_path):
        os.unlink(page_path)  # without it the folder is unfinished
    classes = Classes.of(a.classes, b.classes, renamed)
    counted = _Counted(classes, seed)

    def write(file: BinaryIO) -> None:
        with _DifferenceRows(file) as rows:
            for batch in paired_batches(a.folder, b.folder, prefix_a=a.prefix, prefix_b=b.prefix):
                check()
                compared = compare_batch(batch, classes, min_iou=min_iou)
                rows.add(as_table(batch, compared, classes))
                counted.add(batch, compared)

    publish(os.path.join(output, DIFFERENCES), write)
    examples = counted.chooser.result()
    pictures = read_pair_pictures(examples, a.source, b.source)
    numbers = {
        "version": VERSION,
        "a": _about(a),
        "b": _about(b),
        "min_iou": min_iou,
        "seed": seed,
        "rename_classes": dict(renamed or {}),
        **counted.tally.result(),
        "drift": {**counted.drift.result(), "features": _feature_drift(a, b, counted)},
        "shown": {
            kind.value: [example.pair.either.image_id for example in some] for kind, some in examples.items() if some
        },
    }
    publish_bytes(os.path.join(output, NUMBERS), (json.dumps(numbers, indent=1, ensure_ascii=True) + "\n").encode())
    content = ComparisonContent(numbers, (a.record, b.record), classes, examples, pictures)
    publish_bytes(page_path, comparison_page(content))
    return Comparison(numbers, pictures.missing)


class _Counted:
    """Everything that looks at each batch."""

    def __init__(self, classes: Classes, seed: int) -> None:
        self.tally, self.drift, self.chooser = Tally(classes), Drift(classes, seed), PairChooser(seed)
        self.digests = DigestSample.empty(), DigestSample.empty()

    def add(self, batch: Any, compared: Any) -> None:
        self.tally.add(batch, compared)
        self.drift.add(batch, compared.label_a, compared.label_b)
        self.chooser.add(batch, compared)
        for sample, side in zip(self.digests, (batch.a, batch.b), strict=True):
            sample.add(side)


class _DifferenceRows:
    """Writes rows of differences in row groups of one size, whatever sizes they arrive in."""

    def __init__(self, file: BinaryIO) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd", write_page_checksum=True)
        self._held: list[pa.Table] = []

    def __enter__(self) -> _DifferenceRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._write(0)
        self._writer.close()

    def add(self, rows: pa.Table) -> None:
        self._held.append(rows)
        if sum(table.num_rows for table in self._held) >= _ROWS_HELD:
            self._write(_ROWS_HELD)

    def _write(self, least: int) -> None:
        rows = pa.concat_tables([SCHEMA.empty_table(), *self._held])
        whole = rows.num_rows // least * least if least else rows.num_rows
        if whole:
            self._writer.write_table(rows.slice(0, whole), row_group_size=_ROWS_HELD)
        self._held = [rows.slice(whole)]


def _about(run: FinishedRun) -> dict[str, Any]:
    record = run.record
    return {
        "folder": run.folder,
        **{key: record.get(key) for key in ("run_fingerprint", "cache_key", "inputs", "inputs_digest", "counts")},
        "head": record["head"],
        "detector": record.get("identity", {}).get("features", {}).get("faces", {}).get("name"),
    }


def _feature_drift(a: FinishedRun, b: FinishedRun, counted: _Counted) -> dict[str, Any]:
    if not a.record.get("cache_key") or a.record.get("cache_key") != b.record.get("cache_key"):
        return {"why_not": "the runs used different features (their cache keys differ), which cannot be compared"}
    try:
        lookups = [cache_of_run(run.folder, run.record).lookup for run in (a, b)]
    except FormatError as error:
        return {"why_not": f"the features are no longer cached: {error}"}
    digests: list[np.ndarray] = [sample.digests() for sample in counted.digests]
    return feature_drift(digests[0], digests[1], lookups[0], lookups[1])
