"""Opens a source of soft labels: a table of votes (`transforms/formats/soft_labels.py`), or a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.heads.output_spec import ClassOutput, OutputSpec
from pipeline.errors import UsageError
from pipeline.run.finished_run import finished_run, results_of
from pipeline.run.heads_of_run import class_head_called
from transforms.formats.records import Status
from transforms.formats.soft_labels import SoftLabels, read_votes
from transforms.storage.store import exists, is_folder, is_local, open_file

FLAG = "--soft-labels"
SAME_SHARE = 1e-6  # shares that differ by less are equally many votes: they are float32


def read_source(path: str) -> SoftLabels:
    """Returns the soft labels of a CSV of votes, or the scores that a finished run gave each image's largest face.

    Heads learn, and evaluation judges, the same face: the largest, with ties going to the first.

    Raises:
        UsageError: the path is neither, or the run is unfinished or has changed.
        FormatError: the table is not of this form.
    """
    if path.endswith(".csv"):
        if not exists(path):
            raise UsageError(f"{FLAG} {path}: no such file")
        with open_file(path) as file:
            return read_votes(file, path)
    if not is_local(path):
        raise UsageError(f"{FLAG} {path}: a finished run must be in a local folder; copy it there")
    if not is_folder(path):
        raise UsageError(f"{FLAG} {path} is neither a CSV file nor the folder of a finished run")
    folder, record = finished_run(path, flag=FLAG)
    head = class_head_called(record, None, FLAG)
    results = results_of(folder.path, head.classes, head.prefix)
    probabilities = _shares_stated(results.probabilities, head.output)
    sums = probabilities.sum(axis=1, keepdims=True)
    rows = (probabilities / np.where(sums > 0, sums, 1)).astype(np.float32)
    rows_with_status = zip(results.ids.to_pylist(), results.status.to_pylist(), rows, strict=True)
    shares = {image: row for image, status, row in rows_with_status if status != Status.DUPLICATE}  # not labelled
    return SoftLabels(results.classes, shares)


def _shares_stated(probabilities: np.ndarray, output: OutputSpec) -> np.ndarray:
    """Returns the shares of people where the head states them, else its (n, k) probabilities; rows of zeros stay."""
    if not isinstance(output, ClassOutput) or not output.intensity_exponent:
        return probabilities
    shares, labelled = np.zeros_like(probabilities), probabilities.any(axis=1)
    shares[labelled] = output.shares(probabilities[labelled])
    return shares


def shares_of(
    labels: SoftLabels, ids: Sequence[str], means: Sequence[str | None], classes: Sequence[str]
) -> np.ndarray:
    """Returns (n, k) float64 shares of `classes` for n images, rows that sum to 1.

    A row is 0 for an image without votes, or in whose votes something else leads, alone or with one of the classes.

    Args:
        means: what each class of the soft labels stands for; each that is not in `classes` stands for itself.
    """
    adding = np.array([[meant == name for name in classes] for meant in means], np.float64)
    others = ~adding.any(axis=1)
    found = np.zeros((len(ids), len(classes)))
    for row, image_id in enumerate(ids):
        if (votes := labels.of(image_id)) is not None:
            shares = votes @ adding
            if shares.max() > votes[others].max(initial=0) + SAME_SHARE:
                found[row] = shares / shares.sum()
    return found


def renamed(labels: SoftLabels, names: Mapping[str, str | None]) -> SoftLabels:
    """Returns the soft labels with classes renamed: shares with the same new name are added, those of None dropped.

    The rest of each row is scaled to sum to 1; an image with nothing left has no soft labels.

    Raises:
        UsageError: the soft labels lack a name, or fewer than two classes are left.
    """
    if not names:
        return labels
    if unknown := sorted(set(names) - set(labels.classes)):
        raise UsageError(
            f"--rename-classes {unknown[0]}=: --soft-labels has no such class; known: {', '.join(labels.classes)}"
        )
    means = [names.get(name, name) for name in labels.classes]
    classes = tuple(dict.fromkeys(name for name in means if name is not None))
    if len(classes) < 2:
        raise UsageError("--rename-classes leaves fewer than two classes of --soft-labels; exclude fewer")
    return labels.added(classes, np.array([[mean == name for name in classes] for mean in means], np.float32))
