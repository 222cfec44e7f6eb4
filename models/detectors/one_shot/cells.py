"""The cells of the one-shot detector: where they lie, how a box is written in a cell's terms, and which sizes they see.

A map of stride s has a cell for every s x s pixels. A cell answers with five numbers: the logit of "a face is centred
here", the centre's offset in cells, and the logarithms of width and height in units of `UNIT * s` pixels.

Pure arithmetic on arrays; knows neither OpenCV nor Keras.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STRIDES = (8, 16, 32)  # pixels
UNIT = 2.5  # strides: a face of 20, 40 or 80 pixels has the logarithm 0 on its map
SIZES = ((0.0, 30.0), (30.0, 70.0), (70.0, 1e9))  # pixels: mean side of the faces that each map learns
OVERLAP = 1.4  # faces up to this factor outside a map's sizes are neither right nor wrong there
ANSWERS = 5  # numbers a cell
LOG_LIMIT = 4.0  # of the logarithms, so that an untrained network overflows nothing


@dataclass(frozen=True, slots=True)
class Map:
    """One output map.

    Attributes:
        stride: pixels a cell.
        rows, columns: cells.
    """

    stride: int
    rows: int
    columns: int

    def centres(self) -> np.ndarray:
        """Returns (rows, columns, 2) float32, x and y of the cells' centres in pixels."""
        return centres_of(np.moveaxis(np.indices((self.rows, self.columns)), 0, -1), self.stride)


def centres_of(cells: np.ndarray, stride: int) -> np.ndarray:
    """Returns (..., 2) float32, x and y of the centres in pixels, of (..., 2) rows and columns of cells.

    >>> centres_of(np.array([[0, 2]]), 8).tolist()
    [[20.0, 4.0]]
    """
    return (cells[..., ::-1].astype(np.float32) + np.float32(0.5)) * np.float32(stride)


def maps_of(height: int, width: int) -> list[Map]:
    """Returns the maps of an image whose sides are multiples of the largest stride."""
    return [Map(stride, height // stride, width // stride) for stride in STRIDES]


def boxes_of(answers: np.ndarray, stride: int, kept: np.ndarray | None = None) -> np.ndarray:
    """Returns (rows, columns, 4) float32 boxes x, y, width, height in pixels of a map's answers, or (m, 4) of some.

    Args:
        answers: (rows, columns, 5).
        kept: (rows, columns) bool, the m cells whose boxes are wanted: a handful of thousands; None for all.

    >>> boxes_of(np.zeros((1, 1, 5), np.float32), 8).tolist()
    [[[-6.0, -6.0, 20.0, 20.0]]]
    """
    if kept is None:
        centres = Map(stride, *answers.shape[:2]).centres()
    else:
        answers, centres = answers[kept], centres_of(np.argwhere(kept), stride)
    centres = centres + answers[..., 1:3] * stride
    sides = np.exp(np.clip(answers[..., 3:5], -LOG_LIMIT, LOG_LIMIT)) * (UNIT * stride)
    return np.concatenate([centres - sides / 2, sides], axis=-1).astype(np.float32)


def answers_of(box: np.ndarray, centres: np.ndarray, stride: int) -> np.ndarray:
    """Returns (k, 4) float32: what cells with these centres answer for one box, the inverse of `boxes_of`.

    Args:
        box: (4,) x, y, width, height in pixels.
        centres: (k, 2) x, y in pixels.
    """
    middle = (box[:2] + box[2:] / 2 - centres) / stride
    sides = np.log(np.maximum(box[2:], 1e-3) / (UNIT * stride))
    return np.concatenate([middle, np.broadcast_to(sides, middle.shape)], axis=-1).astype(np.float32)
