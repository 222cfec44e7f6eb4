"""Counts of two runs side by side: differences of each kind, faces of each label, A's label by B's label.

Not here: how far two runs have drifted (`drift.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.report.two_runs.differences import KINDS, Classes, Compared
from pipeline.report.two_runs.pairing import ABSENT, PairedBatch
from transforms.formats.records import NO_LABEL

FLOWS = 30  # changes of label that are listed, the most frequent


class Tally:
    """Adds up two runs, batch by batch."""

    def __init__(self, classes: Classes) -> None:
        size = len(classes.both) + 2  # then: too small for a label, no such face
        self._classes = classes
        self._images = np.zeros(3, np.int64)  # in both, in A, in B
        self._compared = 0
        self._differing_images = 0
        self._kinds = np.zeros((len(KINDS), 2), np.int64)  # differences, images
        self._labels = np.zeros((size, size), np.int64)
        self._faces = np.zeros((2, size - 1), np.int64)  # of all images, by label

    def add(self, batch: PairedBatch, compared: Compared) -> None:
        """Counts the images of a batch, their faces and their differences."""
        in_a, in_b = batch.row_a != ABSENT, batch.row_b != ABSENT
        self._images += [(in_a & in_b).sum(), in_a.sum(), in_b.sum()]
        self._compared += int(compared.compared.sum())
        self._differing_images += len(np.unique(compared.image))
        for place in range(len(KINDS)):
            of_kind = compared.image[compared.kind == place]
            self._kinds[place] += [len(of_kind), len(np.unique(of_kind))]
        self._add_labels(compared)

    def _add_labels(self, compared: Compared) -> None:
        size, none = len(self._labels), len(self._labels) - 1
        label_a, label_b = (_with_small(label, none - 1) for label in (compared.label_a, compared.label_b))
        pairs = compared.pairs
        cells = label_a[pairs.a] * size + label_b[pairs.b]
        self._labels += np.bincount(cells, minlength=size * size).reshape(size, size)
        for own, label, table in ((0, label_a, self._labels[:, none]), (1, label_b, self._labels[none])):
            face, other = (compared.face_a, compared.face_b) if own == 0 else (compared.face_b, compared.face_a)
            lone = face[(face >= 0) & (other < 0)]
            table += np.bincount(label[lone], minlength=size)
            self._faces[own] += np.bincount(label, minlength=size - 1)

    def result(self) -> dict[str, Any]:
        """Returns everything as plain numbers and lists, for JSON."""
        both, in_a, in_b = self._images.tolist()
        none = len(self._labels) - 1
        pairs = self._labels[:none, :none]
        return {
            "images": {"a": in_a, "b": in_b, "both": both, "compared": self._compared,
                       "with_differences": self._differing_images},
            "faces": {"a": int(self._faces[0].sum()), "b": int(self._faces[1].sum()), "both": int(pairs.sum()),
                      "same_label": int(np.trace(pairs))},
            "differences": {kind.value: {"rows": rows, "images": images}
                            for kind, (rows, images) in zip(KINDS, self._kinds.tolist(), strict=True)},
            "labels": [self._label(index, name) for index, name in enumerate(self._classes.both)],
            "label_table": {"names": [*self._classes.both, "too small to label", "no such face"],
                            "rows_a_columns_b": self._labels.tolist()},
            "flows": self._flows(),
        }  # fmt: skip

    def _label(self, index: int, name: str) -> dict[str, Any]:
        none = len(self._labels) - 1
        row, column = self._labels[index], self._labels[:, index]
        return {
            "label": name,
            "faces_a": int(self._faces[0, index]),
            "faces_b": int(self._faces[1, index]),
            "same": int(row[index]),
            "left": int(row[:none].sum() - row[index]),  # another label in B
            "came": int(column[:none].sum() - column[index]),  # another label in A
            "only_a": int(row[none]),
            "only_b": int(column[none]),
        }

    def _flows(self) -> list[dict[str, Any]]:
        none = len(self._labels) - 1
        names = [*self._classes.both, "too small to label"]
        changed = self._labels[:none, :none].copy()
        np.fill_diagonal(changed, 0)
        order = np.argsort(-changed, axis=None, kind="stable")[:FLOWS]
        return [
            {"a": names[at // none], "b": names[at % none], "faces": int(changed.flat[at])}
            for at in order.tolist()
            if changed.flat[at]
        ]


def _with_small(label: np.ndarray, place: int) -> np.ndarray:
    return np.where(label == NO_LABEL, place, label)
