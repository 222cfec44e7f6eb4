"""The size that Beam is reported of a block, and that every stage between reading and writing uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import blocks
import numpy as np
import pytest

from models.heads.output_spec import ClassOutput
from transforms import block_coder
from transforms.apply_head import ApplyHead
from transforms.block import Block, Faces
from transforms.block_coder import BlockCoder
from transforms.find_cached import FindCached
from transforms.job import Job, Labelling


def faces(count: int) -> Faces:
    return Faces(
        image=np.zeros(count, np.int32),
        box=np.zeros((count, 4), np.int32),
        score=np.zeros(count, np.float32),
        crops=np.zeros((count, 10, 10, 1), np.uint8),
    )


def test_blocks_survive_a_cut_between_stages() -> None:
    block = blocks.raw([b"one", None, b"three"])
    copy = BlockCoder().decode(BlockCoder().encode(block))
    assert (copy.ids, copy.data, copy.key) == (block.ids, block.data, block.key)
    assert copy.digests.tolist() == block.digests.tolist()


def test_the_size_is_that_of_pictures_crops_and_rows() -> None:
    block = blocks.raw([bytes(1000), bytes(500)])
    empty = BlockCoder().estimate_size(replace(block, data=(None, None)))
    assert BlockCoder().estimate_size(block) == empty + 1500
    crop, box, score, row = 100, 16, 4, 4
    with_faces = BlockCoder().estimate_size(replace(block, data=(None, None), fresh=faces(3)))
    assert with_faces == empty + 3 * (crop + box + score + row)


def test_nothing_is_encoded_to_learn_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded(value: Block) -> bytes:
        raise AssertionError("a copy of all pictures was made")

    monkeypatch.setattr(block_coder, "_FALLBACK", type("No", (), {"encode": staticmethod(encoded)})())
    impl = BlockCoder().get_impl()
    assert impl.estimate_size(blocks.raw([bytes(10**6)])) > 10**6
    with pytest.raises(AssertionError, match="copy"):
        BlockCoder().encode(blocks.raw([b""]))


STAGES: dict[str, Callable[[Job], beam.DoFn]] = {
    "ReadBlocks": blocks.reads,
    "FindCached": lambda job: FindCached(job.cache),
    "DetectFaces": blocks.detects,
    "ExtractFeatures": blocks.extracts,
    "ApplyHead": lambda job: ApplyHead(Labelling("", ClassOutput(("a", "b")), "tensorflow"), job.provenance),
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_that_gives_out_blocks_says_so(stage: str, tmp_path: Path) -> None:
    root = beam.Pipeline()
    given = root | beam.Create([blocks.raw([b"one"])]) | beam.ParDo(STAGES[stage](blocks.job(tmp_path)))
    assert given.element_type is Block
    assert isinstance(beam.coders.registry.get_coder(given.element_type), BlockCoder)
