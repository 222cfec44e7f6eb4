"""What each cell of the one-shot detector has to answer, given the faces of a scene."""

from __future__ import annotations

import numpy as np

from models.detectors.one_shot.cells import OVERLAP, SIZES, Map, answers_of

CORE = 0.25  # cells nearer to a face's centre than this share of its sides are to find it
WIDTH = 6  # numbers a cell: 1 for a face, 0 for none, -1 where either is right; its weight as a face; four of the box


def targets_for(maps: list[Map], boxes: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Returns (cells of all maps, 6) float32 targets, map by map, row by row.

    A face is learned on the map of its size, by the cells around its centre. The rest of its box, and its box on maps
    that nearly fit its size, is left open.

    Args:
        maps: of the scene.
        boxes: (m, 4) x, y, width, height in pixels of faces to find.
        ignored: (k, 4) boxes in which either answer is right: faces cut off or too small.
    """
    sides = np.sqrt(np.maximum(boxes[:, 2] * boxes[:, 3], 1e-6))
    order = np.argsort(-sides)  # small faces are written last: they have fewer cells
    return np.concatenate(
        [_targets(one, sizes, boxes[order], sides[order], ignored) for one, sizes in zip(maps, SIZES, strict=True)]
    )


def _targets(
    one: Map, sizes: tuple[float, float], boxes: np.ndarray, sides: np.ndarray, ignored: np.ndarray
) -> np.ndarray:
    centres = one.centres().reshape(-1, 2)
    target = np.zeros((len(centres), WIDTH), np.float32)
    near = (sides >= sizes[0] / OVERLAP) & (sides < sizes[1] * OVERLAP)
    for box in [*ignored, *boxes[near]]:
        target[_within(centres, box, 0.5, one.stride), 0] = -1
    for box in boxes[(sides >= sizes[0]) & (sides < sizes[1])]:
        cells = _within(centres, box, CORE, one.stride)
        target[cells, 0] = 1
        target[cells, 1] = 1 / max(1, int(cells.sum()))
        target[cells, 2:] = answers_of(box, centres[cells], one.stride)
    return target


def _within(centres: np.ndarray, box: np.ndarray, share: float, stride: int) -> np.ndarray:
    """Returns (cells,) bool: nearer to the box's centre than a share of its sides, or than half a cell and a bit."""
    reach = np.maximum(box[2:] * share, 0.55 * stride)
    return np.asarray((np.abs(centres - (box[:2] + box[2:] / 2)) <= reach).all(axis=1))
