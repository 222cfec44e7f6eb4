"""The loss of classifiers: rows of probabilities, smoothed, and adjusted to the classes' frequencies.

A hard label is a one-hot row; annotators' votes or another network's answers are rows of shares. One loss serves them
all. Not here: frequencies of classes, and weights for rare ones (`imbalance.py`).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("pipeline")
class SoftCrossentropy(keras.losses.Loss):
    """Cross-entropy of (n, classes) logits against (n, classes) shares that sum to 1.

    Args:
        label_smoothing: share of each row spread over the classes: evenly, or in proportion to exp(offset) if there is
            an offset. An even share can exceed a rare class's own frequency: its logit would be high for every image.
        offset: (classes,) numbers added to the logits, only in training. With the log frequencies of Menon et al. 2021,
            the network predicts the class that exceeds its frequency the most, which favours rare classes.
    """

    def __init__(
        self, *, label_smoothing: float = 0.0, offset: np.ndarray | None = None, name: str = "cross_entropy", **kw: Any
    ) -> None:
        super().__init__(name=name, **kw)
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
        return -ops.sum(shares * ops.log_softmax(logits, axis=-1), axis=-1)
