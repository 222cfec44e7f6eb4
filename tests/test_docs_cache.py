"""Runs the Python blocks of docs/cache.md on a small cache, and compares its tables with the code."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from transforms.formats.cache.contents import Contents
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.records import Status

PAGE = (Path(__file__).parents[1] / "docs" / "cache.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `photos/first.jpg` and `out/cache`: 40 images, most with a face, most of these with a label."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photo = b"the first photo"
    (tmp_path / "photos" / "first.jpg").write_bytes(photo)
    names = ["first.jpg", *(f"{i}.jpg" for i in range(39))]
    data = [photo, *(name.encode() for name in names[1:])]
    faces = np.arange(40) % 10 < 9
    rows = np.flatnonzero(faces).astype(np.int32)
    cache = FeatureCache.create(tmp_path / "out" / "cache", {"features": {"backbone": "vgg16"}})
    cache.add(
        Contents(
            digest=np.stack([np.frombuffer(hashlib.sha256(content).digest(), np.uint8) for content in data]),
            width=np.full(40, 640, np.int32),
            height=np.full(40, 480, np.int32),
            status=np.where(faces, Status.LABELLED, Status.NO_FACE).astype(object),
            reason=np.full(40, "", object),
            face_image=rows,
            box=np.tile(np.array([10, 20, 48, 48], np.int32), (len(rows), 1)),
            score=np.full(len(rows), 0.9, np.float32),
            features=(rows[:, None] % 2 + np.zeros((1, 16))).astype(np.float16),
            names=tuple(names),
            labels=tuple(None if i % 7 == 3 else ("happy", "sad")[i % 2] for i in range(40)),
        )
    )
    return tmp_path


def test_the_blocks_run_from_top_to_bottom(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/cache.md, block {number}", "exec"), names)
    assert len(BLOCKS) == 5
    assert capsys.readouterr().out.splitlines()[0] == "labelled [[10, 20, 48, 48]] [0.9]"
    assert names["features"].dtype == np.float16
    assert set(names["happy"].ravel().tolist()) == {0.0}
    assert names["model"].predict([[0.0] * 16, [1.0] * 16]).tolist() == ["happy", "sad"]
    assert (names["report"].images, names["report"].faces, names["report"].damaged) == (40, 36, ())


def test_the_tables_name_what_a_segment_holds(folder: Path) -> None:
    (path,) = folder.glob("out/cache/*/*.h5")
    with h5py.File(path, "r", locking=False) as file:
        table = PAGE.split("| dataset |")[1].split("\n\n")[0]
        named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
        assert sorted(named) == sorted(file)
        assert re.findall(r"`(\w+)`", PAGE.split("Attributes:")[1].split("Nothing is")[0]) == [
            *("format", "fingerprint", "images", "faces", "checksum")
        ]
        assert len(file.attrs) == 5
        assert len(json.loads(file["names"][0])) == 40


@pytest.mark.parametrize("word", ["info", "verify", "prune"])
def test_every_command_is_named(word: str) -> None:
    assert f"`python -m pipeline cache {word} --cache DIR`" in PAGE
    assert hasattr(FeatureCache, word)


def test_every_public_name_of_the_cache_is_named() -> None:
    public = {name for name in vars(FeatureCache) if not name.startswith("_")} - {"create", "add"}  # for a run
    assert {name for name in public if f"{name}" not in PAGE} == set()
