"""Applies the trained head, or several of them, to each block. Loads no runtime for heads of plain arrays.

Not here: how features become labels (`label_faces.py`), which needs no Beam.
"""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam

from models.heads.outputs import Head
from models.heads.registry import load_head
from models.heads.several import NamedHead, SeveralHeads
from models.heads.side_by_side import SideBySide
from models.runtimes.registry import runtime
from transforms.block import Block
from transforms.job import Labelling
from transforms.label_faces import apply_head, leave_small_unlabelled
from transforms.provenance import HEAD, Provenance, refuse_another
from transforms.storage.staged_files import local_path
from transforms.tally import TALLY
from transforms.telling import telling


@beam.typehints.with_output_types(Block)  # otherwise finish_bundle makes Beam infer Any, and the coder is lost
class ApplyHead(beam.DoFn):
    """Applies the run's head to each block."""

    def __init__(self, labelling: Labelling, provenance: Provenance) -> None:
        self._labelling, self._provenance = labelling, provenance

    @telling
    def setup(self) -> None:
        runtime(self._labelling.runtime).claim()  # before a Keras head brings Keras
        self._head = _loaded(self._labelling)
        refuse_another(self._provenance, {HEAD: self._head.digest})

    def process(self, block: Block) -> Iterator[Block]:
        with TALLY.clock("head"):
            labelled = leave_small_unlabelled(apply_head(block, self._head), self._labelling.min_label_px)
        yield labelled


def _loaded(labelling: Labelling) -> Head:
    output = labelling.output
    if not isinstance(output, SideBySide):
        return load_head(local_path(labelling.head))
    paths = (labelling.head, *labelling.more)
    heads = [NamedHead(name, path, load_head(local_path(path))) for name, path in zip(output.names, paths, strict=True)]
    return SeveralHeads(heads, output.deciding)
