"""The note beside the parts of an archive that was streamed to its end."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from transforms.formats.publish import StorageError
from transforms.storage import stores
from transforms.stream_marks import StreamMark, mark_path, read_mark, remove_other_marks, write_mark

MARK = StreamMark(images=7, blocks=2, skipped=3, skipped_names=("a.tar.gz/é.txt", "b"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_mark(str(tmp_path), "k", MARK)
    assert read_mark(str(tmp_path), "k") == MARK
    assert read_mark(str(tmp_path), "other") is None
    assert os.listdir(tmp_path) == ["k.stream.json"]


def test_equal_archives_give_equal_notes(tmp_path: Path) -> None:
    for key in ("a", "b"):
        write_mark(str(tmp_path), key, MARK)
    assert Path(mark_path(str(tmp_path), "a")).read_bytes() == Path(mark_path(str(tmp_path), "b")).read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "{}", "\udcff", '{"images": 1}'),
        '{"images": "x", "blocks": 1, "skipped": 0, "skipped_names": []}',
        '{"images": 1, "blocks": 1, "skipped": 0, "skipped_names": 3}',
    ],
)
def test_a_damaged_note_is_none(tmp_path: Path, text: str) -> None:
    Path(mark_path(str(tmp_path), "k")).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_mark(str(tmp_path), "k") is None


def test_a_note_that_cannot_be_read_is_a_fault_of_the_storage(tmp_path: Path) -> None:
    Path(mark_path(str(tmp_path), "k")).mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*k\.stream\.json"):
        read_mark(str(tmp_path), "k")


def test_notes_of_archives_that_are_no_input_any_more_go(tmp_path: Path) -> None:
    for key in ("a", "b", "c"):
        write_mark(str(tmp_path), key, MARK)
    (tmp_path / "c.parquet").touch()
    remove_other_marks(str(tmp_path), ["b", "d"])
    assert sorted(os.listdir(tmp_path)) == ["b.stream.json", "c.parquet"]


def test_writing_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, faults = stores.publish_bytes, [errno.EIO]

    def publish(*given: Any) -> None:
        if faults:
            raise StorageError(faults.pop(), "cannot write")
        real(*given)

    monkeypatch.setattr(stores, "publish_bytes", publish)
    write_mark(str(tmp_path), "k", MARK)
    assert read_mark(str(tmp_path), "k") == MARK
