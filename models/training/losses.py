"""What a classifier is trained against: rows of probabilities, smoothed, adjusted to the classes' frequencies.

A hard label is a row with a single one, annotators' votes or another network's answer are rows of shares: one loss
serves all of them. How frequent classes are, and weights for rare ones: `imbalance.py`.
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
        label_smoothing: share of each row spread over the classes: evenly, or with an offset as that weighs them. An
            even share can be as much as a rare class has in all: its logit would be high for every image.
        offset: (classes,) numbers added to the logits, in training alone: the log frequencies of Menon et al. 2021
            make the network say the class that is likelier than its frequency, which raises rare classes.
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
