"""Results of the functions of this package: a run, a head, an evaluation; readable by code and by people."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

RUN, HEAD, METRICS, SUBMISSION = "run.json", "head.json", "metrics.json", "submission.csv"
PAGE_OF_RUN, PAGE_OF_EVALUATION = "report.html", "evaluation.html"
NEEDED = {"counts", "labels", "reasons", "parts", "head", "seconds"}  # fields that a usable run.json has


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run of `label`. A notebook shows its counts.

    Attributes:
        path: the output folder.
        record: the content of `run.json`.
    """

    path: Path
    record: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Returns the finished run in an output folder.

        Raises:
            UsageError: there is none, or a file in its `run.json` is missing or has another size.
        """
        folder = Path(os.path.abspath(path))
        record = _read_json(folder / RUN, "give the output folder of a finished run of label")
        if not record.keys() >= NEEDED:
            raise UsageError(f"{folder / RUN} was not written by label; give another folder")
        for part in record["parts"]:
            file = folder / part["path"]
            if not file.is_file() or file.stat().st_size != part["bytes"]:
                raise UsageError(f"{file} is missing or has changed since the run; label again")
        return cls(folder, record)

    @property
    def predictions(self) -> Dataset:
        """The faces, one row each, as a pyarrow dataset: `.to_table().to_pandas()` gives a data frame."""
        return _dataset(self.path / "predictions")

    @property
    def images(self) -> Dataset:
        """The images, one row each, as a pyarrow dataset."""
        return _dataset(self.path / "images")

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of images, also by status, and of faces."""
        return dict(self.record["counts"])

    @property
    def labels(self) -> Mapping[str, int]:
        """Number of faces by label, in alphabetical order."""
        return dict(self.record["labels"])

    @property
    def reasons(self) -> Mapping[str, int]:
        """Number of images by reason for rejection."""
        return dict(self.record["reasons"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in alphabetical order."""
        return tuple(self.record["head"]["classes"])

    @property
    def page(self) -> Path | None:
        """The page about the run; None if none was written."""
        return _file(self.path / PAGE_OF_RUN)

    @property
    def submission(self) -> Path | None:
        """`submission.csv`; None if none was written."""
        return _file(self.path / SUBMISSION)

    def __repr__(self) -> str:
        counts = self.counts
        text = ", ".join(f"{name} {count:,}" for name, count in _most_first(self.labels) if count)
        return (
            f"<Run {str(self.path)!r}: {counts['images']:,} images, {counts['labelled']:,} labelled, "
            f"{counts['no_face']:,} without a face, {counts['rejected']:,} rejected; "
            f"{counts['faces']:,} faces{': ' if text else ''}{text}>"
        )

    def _repr_html_(self) -> str:
        from pipeline.report.run_figure import run_figure  # imported when the first page is shown

        return run_figure(self.counts, self.labels, self.reasons, str(self.path), str(self.page or ""))


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A head that `train_head` wrote: give it, or its path, as `head`.

    Attributes:
        path: its folder.
        record: the content of `head.json`.
    """

    path: Path
    record: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> TrainedHead:
        """Returns the head in a folder.

        Raises:
            UsageError: there is none.
        """
        folder = Path(os.path.abspath(path))
        return cls(folder, _read_json(folder / HEAD, "give the folder of a head"))

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in alphabetical order."""
        return tuple(self.record["classes"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Its metrics on the held-out images."""
        return dict(self.record.get("metrics", {}))

    def __repr__(self) -> str:
        accuracy = self.metrics.get("accuracy")
        split = self.record.get("split", {})
        how = f"accuracy by {split['folds']} folds" if split.get("kind") == "folds" else "held-out accuracy"
        text = "" if accuracy is None else f", {how} {accuracy:.4f}"
        return f"<TrainedHead {str(self.path)!r}: {', '.join(self.classes)}{text}>"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        path: the output folder.
        record: the content of `metrics.json`.
    """

    path: Path
    record: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Evaluation:
        """Returns the evaluation in a folder.

        Raises:
            UsageError: there is none.
        """
        folder = Path(os.path.abspath(path))
        record = _read_json(folder / METRICS, "give the output folder of evaluate")
        if "accuracy" not in record.get("metrics", {}):
            raise UsageError(f"{folder / METRICS} was not written by evaluate; give another folder")
        return cls(folder, record)

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Accuracy, F1 and all other metrics, with intervals; docs/evaluate.md explains them."""
        return dict(self.record["metrics"])

    @property
    def page(self) -> Path | None:
        """The page; None if none was written."""
        return _file(self.path / PAGE_OF_EVALUATION)

    def __repr__(self) -> str:
        accuracy, images = self.metrics["accuracy"], self.metrics["rows"]
        interval = f"95 % interval {accuracy['low']:.4f} to {accuracy['high']:.4f}"
        return f"<Evaluation {str(self.path)!r}: accuracy {accuracy['value']:.4f} ({interval}) on {images:,} images>"


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _dataset(folder: Path) -> Dataset:
    from pyarrow.dataset import dataset

    return dataset(folder, format="parquet")


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _read_json(path: Path, cure: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}); {cure}") from error
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}); {cure}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} is damaged (not a JSON object); {cure}")
    return found
