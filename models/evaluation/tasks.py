"""The classes in which labels and probabilities are compared.

These are the classes of the head, or two classes: some of them together against all others. Then the true labels may
have other names (a set of *positive* and *negative* faces, evaluated with a head that knows *happy*).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np


def two_classes(positive: Sequence[str]) -> tuple[str, str]:
    """Returns the names of the two classes of a binary question, the negative one first."""
    name = " or ".join(positive)
    return f"not {name}", name


def two_columns(probabilities: np.ndarray, classes: Sequence[str], positive: Collection[str]) -> np.ndarray:
    """Returns (n, 2) float64 from (n, k): the probability of the negative class, and the sum of the positive ones.

    The larger one decides, so the answer is positive above one half; at exactly one half it is negative.

    >>> two_columns(np.array([[0.25, 0.5, 0.25]]), ["angry", "happy", "sad"], {"happy"}).tolist()
    [[0.5, 0.5]]
    """
    columns = [i for i, name in enumerate(classes) if name in positive]
    share = np.minimum(probabilities[:, columns].sum(axis=1), 1.0)  # rounded to 1e-6 each, they may sum to a bit more
    return np.stack([1 - share, share], axis=1)
