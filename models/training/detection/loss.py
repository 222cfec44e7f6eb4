"""The loss of the one-shot detector: focal loss of the faces' logits, overlap and distance of their boxes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

FOCUS = 2.0  # Lin et al. 2017, arXiv:1708.02002
FACES = 0.4  # weight of cells with a face, against 1 - FACES of those without
BOX = 1.5  # weight of the boxes against the logits
LENGTHS = 0.2  # weight of the plain distance beside the overlap: it has a gradient where nothing overlaps


class DetectionLoss(keras.losses.Loss):
    """Takes (n, cells, 6) targets of `targets.py` and (n, cells, 5) answers; gives a number an image.

    The logits' part is divided by the faces of the batch, each face counting once, however many cells find it.
    """

    def __init__(self) -> None:
        super().__init__(name="detection", reduction=None, dtype="float32")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        state, share, box = y_true[..., 0], y_true[..., 1], y_true[..., 2:]
        face = ops.cast(state > 0.5, "float32")
        faces = ops.maximum(ops.sum(share), 1.0) / ops.cast(ops.shape(y_true)[0], "float32")
        logits = ops.sum(_focal(y_pred[..., 0], face) * ops.cast(state > -0.5, "float32"), axis=-1)
        boxes = ops.sum(_box_loss(box, y_pred[..., 1:]) * share, axis=-1)
        return (logits + BOX * boxes) / faces


def _focal(logit: Any, face: Any) -> Any:
    sure = ops.sigmoid(logit)
    entropy = ops.softplus(logit) - face * logit
    wrong = ops.abs(face - sure)
    return entropy * wrong**FOCUS * (FACES * face + (1 - FACES) * (1 - face))


def _box_loss(true: Any, answer: Any) -> Any:
    """Returns (n, cells): 1 - IoU + the centres' squared distance over the hull's diagonal, and |difference|.

    Distance-IoU (Zheng et al. 2020, arXiv:1911.08287), in units of the cells' unit side.
    """
    a, b = _edges(true), _edges(answer)
    shared = _area(ops.maximum(a[0], b[0]), ops.minimum(a[1], b[1]))
    union = _area(*a) + _area(*b) - shared
    hull = ops.maximum(a[1], b[1]) - ops.minimum(a[0], b[0])
    apart = (a[0] + a[1] - b[0] - b[1]) / 2
    distance = ops.sum(apart**2, axis=-1) / (ops.sum(hull**2, axis=-1) + 1e-6)
    plain = ops.sum(ops.abs(true - answer), axis=-1)
    return 1 - shared / (union + 1e-6) + distance + LENGTHS * plain


def _edges(answers: Any) -> tuple[Any, Any]:
    """Returns (start, end) of the boxes, each (n, cells, 2), in units of UNIT strides."""
    from models.detectors.one_shot.cells import LOG_LIMIT, UNIT

    centre = answers[..., :2] / UNIT
    half = ops.exp(ops.clip(answers[..., 2:], -LOG_LIMIT, LOG_LIMIT)) / 2
    return centre - half, centre + half


def _area(start: Any, end: Any) -> Any:
    return ops.prod(ops.maximum(end - start, 0.0), axis=-1)
