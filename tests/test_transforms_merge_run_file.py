"""A scratch file of sorted runs: what is added is read again, piece by piece, or the damage is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from transforms.formats.publish import StorageError
from transforms.merge.run_file import RunFile

SCHEMA = pa.schema([("image_id", pa.string()), ("faces", pa.list_(pa.struct([("x", pa.int32())])))])


def rows(first: int, count: int) -> pa.Table:
    """Returns rows of which each has as many faces as its number, modulo three."""
    numbers = range(first, first + count)
    faces = [[{"x": number}] * (number % 3) for number in numbers]
    return pa.table([[f"{number:04d}" for number in numbers], faces], schema=SCHEMA)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[RunFile]:
    (tmp_path / "runs").touch()
    with RunFile(str(tmp_path / "runs"), SCHEMA) as file:
        yield file


def test_runs_of_one_file_are_read_in_any_order(file: RunFile) -> None:
    whole = rows(0, 10)
    first = file.add([whole.slice(0, 3), whole.slice(3, 4)])
    second = file.add([pa.concat_tables([rows(5, 2), rows(7, 1)])])
    assert (first.first_id, first.last_id, second.first_id, second.last_id) == ("0000", "0006", "0005", "0007")
    one, other = first.reader(), second.reader()
    assert one.groups_left == 2
    assert next(one) == whole.slice(0, 3)
    assert next(other) == rows(5, 3)
    assert next(one) == whole.slice(3, 4)
    assert one.groups_left == 0
    assert list(one) == list(other) == []


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_damaged_piece_is_named(file: RunFile, damage: str) -> None:
    run = file.add([rows(0, 100)])
    path = Path(file.path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if damage == "flipped" else data[:-1])
    with pytest.raises(StorageError, match=r"the disk has changed the scratch file .*runs; run the same command again"):
        next(run.reader())
