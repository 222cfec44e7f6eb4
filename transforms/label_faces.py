"""Turns features into answers with the trained head, and marks faces too small for a label. Needs no Beam.

Not here: the stage of the graph (`apply_head.py`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.heads.outputs import Head
from transforms.block import Block, Reason, Status


def apply_head(block: Block, head: Head) -> Block:
    """Returns the block with (m, width) answers of the head in place of features."""
    faces = block.faces
    answers = np.zeros((0, head.output.width))
    if len(faces):
        assert faces.features is not None  # ExtractFeatures makes them
        answers = head.answers(faces.features)
    return replace(block, faces=replace(faces, features=None, answers=answers))


def leave_small_unlabelled(block: Block, min_label_px: int) -> Block:
    """Returns the block with the faces marked that are too small to be labelled.

    An image that has only such faces counts as one without a face, for the reason `too_small_to_label`.

    Args:
        min_label_px: least longer side of a face's box, in pixels of the upright image; 0 labels all.
    """
    labelled = block.faces.box[:, 2:].max(axis=1, initial=0) >= min_label_px
    found, with_label = (np.bincount(block.faces.image[rows], minlength=len(block)) for rows in (slice(None), labelled))
    status, reason = list(block.status), list(block.reason)
    for row in np.flatnonzero((found > 0) & (with_label == 0)).tolist():
        status[row], reason[row] = Status.NO_FACE, Reason.TOO_SMALL_TO_LABEL
    return replace(block, status=tuple(status), reason=tuple(reason), faces=replace(block.faces, labelled=labelled))
