"""Finds true labels that look wrong, by confident learning (Northcutt, Jiang & Chuang 2021, JAIR 70, arXiv:1911.00068).

Each class has its own threshold: the mean probability of the class over the rows with its label. If a row's
probability of *another* class reaches that class's threshold, the row is confidently of the other class, and its label
is suspected. This allows for a model that is rarely confident about a class: 0.3 may be high for disgust but low for
happy. Example: rows labelled disgust have a mean p(disgust) of 0.3. A row labelled happy with p(disgust) = 0.35 is
suspected.

The probabilities must come from a model that was not trained on these rows, otherwise it has learned the errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.evaluation.metrics import of_true


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """Suspected rows, most likely error first.

    Attributes:
        row: (m,) int64 indices into the given rows.
        suggested: (m,) int64, the class to which each row confidently belongs.
        self_confidence: (m,) probability of the stated label.
        margin: (m,) probability of the stated label minus that of the suggested one; the smallest first.
        thresholds: (k,), one per class; NaN for a class that never occurs.
        joint: (k, k) int64 counts of confident rows, stated by suggested; the suspected ones are off the diagonal.
    """

    row: np.ndarray
    suggested: np.ndarray
    self_confidence: np.ndarray
    margin: np.ndarray
    thresholds: np.ndarray
    joint: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


def find_label_errors(probabilities: np.ndarray, y: np.ndarray) -> LabelErrors:
    """Returns the rows whose stated class (n,) is confidently contradicted by the (n, k) probabilities.

    Ranked by margin, then by self-confidence, then by row.
    """
    classes = probabilities.shape[1]
    own = of_true(probabilities, y)
    count = np.bincount(y, minlength=classes)
    thresholds = np.bincount(y, weights=own, minlength=classes) / np.where(count, count, np.nan)
    reaches = probabilities >= np.nan_to_num(thresholds, nan=np.inf)
    confident = reaches.any(axis=1)
    suggested = np.where(reaches, probabilities, -1.0).argmax(axis=1)
    joint = np.bincount(y[confident] * classes + suggested[confident], minlength=classes**2)
    row = np.flatnonzero(confident & (suggested != y))
    margin = own[row] - probabilities[row, suggested[row]]
    order = np.lexsort((row, own[row], margin))
    row = row[order]
    return LabelErrors(row, suggested[row], own[row], margin[order], thresholds, joint.reshape(classes, classes))
