"""Corrections for rare classes: frequencies of classes, and weights that follow from them. Arrays, no Keras.

Used by the training loop and by heads that are fitted in one step. Those adjust the logits themselves (`losses.py`,
`fit_head.py`).
"""

from __future__ import annotations

import numpy as np

WAYS = ("natural", "inverse_sqrt", "logit_adjustment")


def frequencies(targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the (classes,) weighted share of each class in (n, classes) targets; never 0."""
    sums = (targets * weights[:, None]).sum(0, dtype=np.float64)
    return np.asarray(np.maximum(sums / max(sums.sum(), 1e-12), 1e-6))


def balanced_weights(targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns (n,) weights times 1 / sqrt(frequency of the row's class), scaled to keep their mean.

    A row of shares gets the mean of its classes' factors, weighted by its shares.

    >>> targets = np.eye(2)[[0, 0, 0, 0, 1]]  # frequencies 0.8 and 0.2: factors 1.118 and 2.236
    >>> [f"{weight:.3f}" for weight in balanced_weights(targets, np.ones(5))]
    ['0.833', '0.833', '0.833', '0.833', '1.667']
    """
    factors = targets @ (1 / np.sqrt(frequencies(targets, weights)))
    balanced = weights * factors
    return np.asarray(balanced * (weights.sum() / max(balanced.sum(), 1e-12)), np.float32)


def balanced_draws(targets: np.ndarray, weights: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """Returns (n,) rows drawn with replacement so that every class is drawn equally often on average.

    A row of shares is drawn by the sum of its classes' chances; one without a known class, as often as in a pass.

    >>> rows = balanced_draws(np.eye(2)[[0] * 900 + [1] * 100], np.ones(1000), (0, 0))
    >>> bool(450 < (rows >= 900).sum() < 550)
    True
    """
    count = len(targets)
    known = targets * weights[:, None]
    sums = known.sum(0, dtype=np.float64)
    present = sums > 0
    chances = known @ np.where(present, 1 / np.where(present, sums, 1), 0.0)
    lost = known.sum(1) == 0
    share = lost.mean()
    chances = np.where(lost, 1 / count, chances / max(chances.sum(), 1e-12) * (1 - share))
    return np.random.default_rng(seed).choice(count, size=count, p=chances / chances.sum())
