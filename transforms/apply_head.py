"""Turns features into probabilities of classes with the trained head, and says which faces are too small for a label.

Loads no engine for heads of plain arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import apache_beam as beam
import numpy as np

from models.heads.outputs import Head, Scores
from models.heads.registry import load_head
from models.runtimes.registry import runtime
from transforms.block import Block, Reason, Status
from transforms.job import Job
from transforms.made_of import HEAD, refuse_another
from transforms.tally import TALLY


def apply_head(block: Block, head: Head) -> Block:
    """Returns the block with (m, classes) probabilities, and the reject score if there is one, in place of features."""
    faces = block.faces
    if len(faces) == 0:
        scores = Scores(np.zeros((0, len(head.classes))), np.zeros(0) if head.reject else None)
    else:
        assert faces.features is not None  # ExtractFeatures makes them
        scores = head.scores(faces.features)
    labelled = replace(faces, features=None, probabilities=scores.probabilities, reject_score=scores.reject_score)
    return replace(block, faces=labelled)


def leave_small_unlabelled(block: Block, min_label_px: int) -> Block:
    """Returns the block with the faces marked that are too small to be labelled.

    An image that has only such faces counts as one without a face, for the reason `too_small_to_label`.

    Args:
        min_label_px: least longer side of a face's box, in pixels of the upright image; 0 labels all.
    """
    labelled = block.faces.box[:, 2:].max(axis=1, initial=0) >= min_label_px
    found, told = (np.bincount(block.faces.image[rows], minlength=len(block)) for rows in (slice(None), labelled))
    status, reason = list(block.status), list(block.reason)
    for row in np.flatnonzero((found > 0) & (told == 0)).tolist():
        status[row], reason[row] = Status.NO_FACE, Reason.TOO_SMALL_TO_LABEL
    return replace(block, status=tuple(status), reason=tuple(reason), faces=replace(block.faces, labelled=labelled))


@beam.typehints.with_output_types(Block)  # or Beam takes a bundle's end for anything, and loses the coder
class ApplyHead(beam.DoFn):
    """Applies the run's head to each block."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def setup(self) -> None:
        runtime(self._job.features.runtime).claim()  # before a Keras head brings Keras
        self._head = load_head(self._job.head)
        refuse_another(self._job, {HEAD: self._head.digest})

    def process(self, block: Block) -> Iterator[Block]:
        with TALLY.clock("head"):
            labelled = leave_small_unlabelled(apply_head(block, self._head), self._job.min_label_px)
        yield labelled
