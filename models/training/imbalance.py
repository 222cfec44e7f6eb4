"""What is done for rare classes: how frequent classes are, and the weights that follow from it. Arrays, no Keras.

Used by the training loop and by heads that are fitted in one go; where the logits are adjusted is theirs to say
(`losses.py`, `fit_head.py`).
"""

from __future__ import annotations

import numpy as np

WAYS = ("natural", "inverse_sqrt", "logit_adjustment")


def frequencies(targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the (classes,) share of each class in (n, classes) targets, rows weighed; never 0."""
    sums = (targets * weights[:, None]).sum(0, dtype=np.float64)
    return np.asarray(np.maximum(sums / max(sums.sum(), 1e-12), 1e-6))


def balanced_weights(targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns (n,) weights times 1 / sqrt(frequency of the row's class), with the mean that they had before.

    A row of shares gets the mean of its classes' factors, by its shares.
    """
    factors = targets @ (1 / np.sqrt(frequencies(targets, weights)))
    balanced = weights * factors
    return np.asarray(balanced * (weights.sum() / max(balanced.sum(), 1e-12)), np.float32)
