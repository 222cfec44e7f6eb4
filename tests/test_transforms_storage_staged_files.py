"""Staged files reach another machine whole, once, and checked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from transforms.storage import staged_files
from transforms.storage.faults import FileChanged, InputFault
from transforms.storage.staged_files import StagedFiles


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose temporary folder is empty."""
    place = tmp_path / "worker"
    place.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(place))
    staged_files._fetched.cache_clear()
    return place


def stage(store: Path, main: str = "", **contents: bytes) -> StagedFiles:
    store.mkdir(exist_ok=True)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    for name, data in contents.items():
        (store / digests[name]).write_bytes(data)
    return StagedFiles(str(store), tuple(digests.items()), main)


def test_files_keep_their_names_beside_each_other(tmp_path: Path, worker: Path) -> None:
    folder = Path(stage(tmp_path / "staged", a=b"one", b=b"two").fetched())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"one", "b": b"two"}
    assert worker in folder.parents


def test_the_main_file_stands_for_all(tmp_path: Path, worker: Path) -> None:
    assert Path(stage(tmp_path / "staged", main="b", a=b"one", b=b"two").fetched()).read_bytes() == b"two"


def test_files_are_fetched_once_a_machine(tmp_path: Path, worker: Path) -> None:
    staged = stage(tmp_path / "staged", a=b"one")
    first = staged.fetched()
    (tmp_path / "staged" / staged.files[0][1]).unlink()
    assert staged.fetched() == first
    staged_files._fetched.cache_clear()  # the next process of this machine
    assert staged.fetched() == first


def test_a_damaged_copy_is_fetched_again(tmp_path: Path, worker: Path) -> None:
    staged = stage(tmp_path / "staged", a=b"one")
    copy = Path(staged.fetched(), "a")
    copy.write_bytes(b"onf")
    staged_files._fetched.cache_clear()
    staged.fetched()
    assert copy.read_bytes() == b"one"


def test_a_file_that_is_gone_is_named(tmp_path: Path, worker: Path) -> None:
    staged = stage(tmp_path / "staged", a=b"one")
    (tmp_path / "staged" / staged.files[0][1]).unlink()
    with pytest.raises(InputFault, match=r"staged/[0-9a-f]{64}, the run's copy of a, is gone; run the same command"):
        staged.fetched()


def test_a_file_that_was_damaged_on_its_way_is_refused(tmp_path: Path, worker: Path) -> None:
    staged = stage(tmp_path / "staged", a=b"one")
    (tmp_path / "staged" / staged.files[0][1]).write_bytes(b"onf")
    with pytest.raises(FileChanged, match=r"the run's copy of a, is damaged"):
        staged.fetched()
    assert not [path for path in worker.rglob("*") if path.is_file()]
