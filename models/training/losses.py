"""The loss of classifiers: rows of probabilities, smoothed, and adjusted to the classes' frequencies.

A hard label is a one-hot row; annotators' votes or another network's answers are rows of shares. One loss serves them
all. Not here: frequencies of classes, and weights for rare ones (`imbalance.py`).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

FOCUS = 2.0  # exponent of the focal loss: an answer with probability 0.9 counts a hundredth
BENT = 0.7  # of the generalised cross-entropy: between cross-entropy (0) and the mean absolute error (1)


@keras.saving.register_keras_serializable("pipeline")
class ClassLoss(keras.losses.Loss):
    """The loss of (n, classes) logits against (n, classes) shares s that sum to 1; p are the probabilities.

    Args:
        kind: `cross_entropy`, -sum of s log(p). `focal` (Lin et al. 2017, arXiv:1708.02002), the same with each term
            times (1 - p)^2: rows that are already classified well count little. `generalised` (Zhang and Sabuncu 2018,
            arXiv:1805.07836), sum of s (1 - p^0.7) / 0.7: labels that look wrong count little. `squared`, the sum of
            (s - p)^2 (Brier 1950).
        label_smoothing: share of each row spread over the classes: evenly, or in proportion to exp(offset) if there is
            an offset. An even share can exceed a rare class's own frequency: its logit would be high for every image.
        offset: (classes,) numbers added to the logits, only in training. With the log frequencies of Menon et al. 2021,
            the network predicts the class that exceeds its frequency the most, which favours rare classes.
    """

    def __init__(
        self,
        kind: str = "cross_entropy",
        *,
        label_smoothing: float = 0.0,
        offset: np.ndarray | None = None,
        name: str = "class_loss",
        **kw: Any,
    ) -> None:
        super().__init__(name=name, **kw)
        self.kind = kind
        self.label_smoothing = label_smoothing
        self.offset = None if offset is None else np.asarray(offset, np.float32)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logits = ops.cast(y_pred, "float32")
        spread = 1 / logits.shape[-1]
        if self.offset is not None:
            offset = ops.convert_to_tensor(self.offset)
            logits, spread = logits + offset, ops.softmax(offset)
        shares = ops.cast(y_true, "float32")
        shares = shares * (1 - self.label_smoothing) + self.label_smoothing * spread
        return ops.sum(self._terms(shares, ops.log_softmax(logits, axis=-1)), axis=-1)

    def _terms(self, shares: Any, logs: Any) -> Any:
        """Returns the (n, classes) terms of the loss, for shares and logarithms of probabilities."""
        if self.kind == "cross_entropy":
            return -shares * logs
        if self.kind == "focal":
            return -shares * logs * (1 - ops.exp(logs)) ** FOCUS
        if self.kind == "generalised":
            return shares * (1 - ops.exp(BENT * logs)) / BENT
        if self.kind == "squared":
            return ops.square(shares - ops.exp(logs))
        raise ValueError(f"no such loss: {self.kind}")
