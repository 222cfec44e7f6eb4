"""Opens a source of soft labels, a table of votes or a finished run; `transforms/formats/soft_labels.py` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np

from pipeline.errors import UsageError
from transforms.formats.soft_labels import SoftLabels, read_predictions, read_votes
from transforms.storage import is_folder, list_folder, open_file


def read_source(path: str) -> SoftLabels:
    """Returns the soft labels of a CSV of votes, or the probabilities of a finished run.

    Raises:
        UsageError: the path is neither.
        FormatError: what is there does not fit.
    """
    if path.endswith(".csv"):
        with open_file(path) as file:
            return read_votes(file, path)
    if not is_folder(f"{path}/predictions"):
        raise UsageError(f"--soft-labels {path} is neither a CSV file nor the folder of a finished run")
    with ExitStack() as opened:
        files = sorted(f.path for f in list_folder(f"{path}/predictions") if f.path.endswith(".parquet"))
        return read_predictions((file, opened.enter_context(open_file(file))) for file in files)


def renamed(labels: SoftLabels, names: Mapping[str, str | None]) -> SoftLabels:
    """Returns the soft labels with classes by other names: shares of one name added, those of None left out.

    What is left of a row is scaled to sum to 1; a row with nothing left has no soft labels.

    Raises:
        UsageError: a name is none of theirs, or fewer than two classes are left.
    """
    if not names:
        return labels
    if unknown := sorted(set(names) - set(labels.classes)):
        raise UsageError(
            f"--classes-map {unknown[0]}=: --soft-labels have no such class; known: {', '.join(labels.classes)}"
        )
    means = [names.get(name, name) for name in labels.classes]
    classes = tuple(dict.fromkeys(name for name in means if name is not None))
    if len(classes) < 2:
        raise UsageError("--classes-map leaves fewer than two classes of --soft-labels; leave out less")
    table = np.array([[mean == name for name in classes] for mean in means], np.float32)
    rows = {image: row @ table for image, row in labels.shares.items()}
    return SoftLabels(classes, {image: row / row.sum() for image, row in rows.items() if row.sum() > 0})
