"""One part a block: whole or not at all, the same bytes every time."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blocks import FINGERPRINT, finished, job, through

from models.heads.linear import LinearHead
from models.heads.output_spec import ClassOutput
from models.training.fit_head import Fitted
from pipeline.run.fitting import save_head
from transforms.block import PartInfo
from transforms.formats.parts import part_info, read_part
from transforms.formats.publish import StorageError
from transforms.storage import stopping
from transforms.tally import TALLY, sum_of_totals
from transforms.write_parts import WriteParts, write_block

CLASSES = ("a", "b")
SPEC = ClassOutput(CLASSES)


@pytest.fixture
def head(tmp_path: Path) -> str:
    made = LinearHead(CLASSES, np.ones((2, 3), np.float32), np.zeros(2), np.zeros(3), np.ones(3))
    save_head(tmp_path / "head", Fitted(made, sweep=(), split={}, metrics={}), "0" * 64, {})
    return str(tmp_path / "head")


def test_a_part_holds_its_block_and_says_so(tmp_path: Path) -> None:
    block = finished([1, None, 0], key="abc", prefix="x/")
    info = write_block(block, str(tmp_path), SPEC, FINGERPRINT)
    assert info == PartInfo("abc.parquet", "x/0.png", "x/2.png", images=3, faces=2, cached=0, reused=False)
    stored = part_info(str(tmp_path / "abc.parquet"))
    assert (stored.block_key, stored.run_fingerprint, stored.images) == ("abc", FINGERPRINT, 3)
    rows = read_part(str(tmp_path / "abc.parquet")).to_pylist()
    assert [row["status"] for row in rows] == ["labelled", "rejected", "labelled"]
    assert [[face["label_index"] for face in row["faces"]] for row in rows] == [[1], [], [0]]
    assert os.listdir(tmp_path) == ["abc.parquet"]


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    block = finished([1, None, 0])
    write_block(block, str(tmp_path), SPEC, FINGERPRINT)
    before = (tmp_path / "k.parquet").read_bytes()
    write_block(block, str(tmp_path), SPEC, FINGERPRINT)
    assert (tmp_path / "k.parquet").read_bytes() == before


def test_a_block_that_is_not_decided_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image '0\.png' of block k"):
        write_block(finished([1], status=(None,)), str(tmp_path), SPEC, FINGERPRINT)
    assert os.listdir(tmp_path) == []


def test_a_fault_of_storage_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        write_block(finished([1]), str(tmp_path / "nowhere"), SPEC, FINGERPRINT)


def test_the_stage_writes_every_block_and_counts_it(tmp_path: Path, head: str) -> None:
    given = job(tmp_path).writing
    blocks = [finished([1, 0], key=f"k{n}", prefix=f"{n}/") for n in range(7)]
    blocks.append(finished([None, 1], key="k7", cached=np.asarray([False, True])))
    TALLY.reset()
    infos = through(WriteParts(given, SPEC), blocks)
    assert [info.name for info in infos] == [f"k{n}.parquet" for n in range(8)]
    assert sorted(os.listdir(given.parts)) == [info.name for info in infos]
    totals = TALLY.totals()
    assert (totals.images, totals.faces, totals.rejected, totals.cached, totals.blocks) == (16, 15, 1, 1, 8)


def test_the_last_part_of_a_bundle_brings_the_totals_of_its_worker(tmp_path: Path, head: str) -> None:
    TALLY.reset()
    TALLY.add_devices(["GPU:7"])
    infos = through(WriteParts(job(tmp_path).writing, SPEC), [finished([1, 0], key=f"k{n}") for n in range(3)])
    assert [bool(info.worker) for info in infos] == [False, False, True]
    mine = json.loads(infos[-1].worker)
    assert (mine["images"], mine["blocks"], mine["devices"]) == (6, 3, ["GPU:7"])
    for images, other in ((10, "there 1"), (4, "there 1"), (7, "there 2")):
        infos.append(
            replace(infos[0], worker=json.dumps({**mine, "process": other, "images": images, "blocks": images}))
        )
    totals = sum_of_totals(info.worker for info in infos)
    assert (totals.images, totals.blocks) == (6 + 10 + 7, 3 + 10 + 7)  # of each process the latest


def test_the_stage_stops_when_asked(tmp_path: Path, head: str) -> None:
    stopping.ask_to_stop()
    try:
        with pytest.raises(stopping.Stopped):
            through(WriteParts(job(tmp_path).writing, SPEC), [finished([1])])
    finally:
        stopping.forget()
    assert os.listdir(tmp_path / "parts") == []
