"""Part files: the same rows come back, equal rows give equal bytes, and damage never goes unseen."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.heads.output_spec import ClassOutput
from transforms.formats import parts
from transforms.formats.parts import (
    DamagedPart,
    PartMetadata,
    PartReader,
    answers_in,
    part_info,
    part_schema,
    read_part,
    storable,
    text_array,
    write_part,
)
from transforms.formats.publish import StorageError
from transforms.output_fields import part_fields

FACE = {
    "x": 1,
    "y": 2,
    "width": 30,
    "height": 40,
    "detection_score": 0.5,
    "labelled": True,
    "label_index": 1,
    "confidence": 0.75,
    "p": [0.25, 0.75],
}


def row(image_id: str, position: int, faces: int = 0, **other: Any) -> dict[str, Any]:
    """Returns a row of a part for two classes."""
    plain = {
        "image_id": image_id,
        "position": position,
        "source": "in/photos.tar",
        "digest": bytes(range(32)),
        "bytes": 1234,
        "width": 640,
        "height": 480,
        "status": "labelled" if faces else "no_face",
        "stage": None,
        "reason": None,
        "true_label": None,
        "cached": False,
        "faces": [FACE] * faces,
    }
    return {**plain, **other}


ANSWERS = part_fields(ClassOutput(("angry", "sad")))
TABLE = pa.Table.from_pylist(
    [
        row("a/1.jpg", 7, faces=2, true_label="sad", cached=True),
        row("a/2.jpg", 3),
        row("ä.png", 5, status="rejected", stage="decode", reason="empty", digest=None, bytes=0, width=0, height=0),
    ],
    schema=part_schema(ANSWERS),
)
METADATA = PartMetadata("f00d", "beef", first_id="a/1.jpg", last_id="ä.png", images=3, faces=2, cached=1)


def test_rows_and_footer_come_back(tmp_path: Path) -> None:
    path = str(tmp_path / "f00d.parquet")
    write_part(path, TABLE, METADATA)
    assert read_part(path).equals(TABLE)
    assert part_info(path) == METADATA
    assert os.listdir(tmp_path) == ["f00d.parquet"]


def test_part_without_rows(tmp_path: Path) -> None:
    path = str(tmp_path / "p.parquet")
    empty = PartMetadata("f00d", "beef", first_id="", last_id="", images=0, faces=0, cached=0)
    write_part(path, part_schema(ANSWERS).empty_table(), empty)
    assert read_part(path).equals(part_schema(ANSWERS).empty_table())
    assert part_info(path) == empty


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "1.parquet", tmp_path / "2.parquet"
    write_part(str(one), TABLE, METADATA)
    write_part(str(other), pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)]).combine_chunks(), METADATA)
    assert one.read_bytes() == other.read_bytes()


def test_crowded_photos_are_cut_into_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "p.parquet")
    monkeypatch.setattr(parts, "GROUP_BYTES", TABLE.nbytes // 2)
    write_part(path, TABLE, METADATA)
    with PartReader(path) as reader:
        assert [table["image_id"].to_pylist() for table in reader] == [["a/1.jpg"], ["a/2.jpg"], ["ä.png"]]
    assert read_part(path).equals(TABLE)


@pytest.mark.parametrize(
    "answers", [ANSWERS, ANSWERS[:1], (*ANSWERS, pa.field("age", pa.float64(), nullable=False)), ()]
)
def test_a_schema_tells_the_answers_of_the_head(answers: tuple[pa.Field, ...]) -> None:
    assert answers_in(part_schema(answers)) == answers


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_no_flipped_bit_is_read_silently(tmp_path: Path, bit: int) -> None:
    path, broken = tmp_path / "p.parquet", tmp_path / "broken.parquet"
    write_part(str(path), TABLE, METADATA)
    whole = path.read_bytes()
    caught = 0
    for place in range(bit, len(whole), 5):
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            read, info = read_part(str(broken)), part_info(str(broken))
        except DamagedPart as damage:
            caught += damage.path == str(broken)
        else:  # bytes that mean nothing exist: what is read must be what was written
            assert (info, read) == (METADATA, TABLE)
    assert caught > 0.9 * len(whole) / 5


@pytest.mark.parametrize("length", [0, 3, 200, -1])
def test_a_part_cut_short_is_damaged(tmp_path: Path, length: int) -> None:
    path = tmp_path / "p.parquet"
    write_part(str(path), TABLE, METADATA)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedPart, match=r"p\.parquet is damaged .*; remove it and run the same command again"):
        part_info(str(path))
    with pytest.raises(DamagedPart):
        read_part(str(path))


@pytest.mark.parametrize(
    "wrong", [replace(METADATA, first_id="a/11.jpg"), replace(METADATA, last_id="z"), replace(METADATA, last_id="b")]
)
def test_ids_out_of_the_range_that_the_footer_states_are_damage(tmp_path: Path, wrong: PartMetadata) -> None:
    path = str(tmp_path / "p.parquet")
    write_part(path, TABLE, wrong)
    assert part_info(path) == wrong  # the footer alone cannot know
    with pytest.raises(DamagedPart, match="not in the order and range"):
        read_part(path)


def test_wrong_number_of_rows_shows_in_the_footer(tmp_path: Path) -> None:
    path = str(tmp_path / "p.parquet")
    write_part(path, TABLE, replace(METADATA, images=4))
    with pytest.raises(DamagedPart, match="holds 3 rows, not 4"):
        part_info(path)


@pytest.mark.parametrize("group", [1, 3])
def test_rows_out_of_order_are_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    path = str(tmp_path / "p.parquet")
    monkeypatch.setattr(parts, "GROUP_BYTES", TABLE.nbytes * group // 3)
    write_part(path, TABLE.take([0, 2, 1]), replace(METADATA, last_id="a/2.jpg"))
    with pytest.raises(DamagedPart, match="not in the order and range"):
        read_part(path)


@pytest.mark.parametrize("read", [read_part, part_info])
def test_what_is_no_part_is_named(tmp_path: Path, read: Any) -> None:
    path = str(tmp_path / "other.parquet")
    pq.write_table(TABLE, path)
    with pytest.raises(DamagedPart, match=r"other\.parquet is damaged \(it is not a part of a run"):
        read(path)
    write_part(path, pa.table({"a": [1]}), replace(METADATA, images=1))
    with pytest.raises(DamagedPart, match="its columns are not those of a part"):
        read(path)
    Path(path).write_bytes(b"no Parquet at all")
    with pytest.raises(DamagedPart, match="it is truncated, or not a Parquet file"):
        read(path)
    with pytest.raises(DamagedPart, match="missing"):
        read(str(tmp_path / "none.parquet"))


@pytest.mark.parametrize("text", ["part_crc32", "part_crc32\x18\x0800000000", "PAR1"])
def test_ids_that_look_like_the_checksum_do_no_harm(tmp_path: Path, text: str) -> None:
    path = str(tmp_path / "p.parquet")
    table = pa.Table.from_pylist([row(text, 0)], schema=part_schema(ANSWERS))
    write_part(path, table, PartMetadata(text, text, text, text, 1, 0, 0))
    assert read_part(path).equals(table)
    assert part_info(path).first_id == text


def test_part_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "p.parquet")
    monkeypatch.setattr(parts, "FORMAT_VERSION", 1)
    write_part(path, TABLE, METADATA)
    monkeypatch.undo()
    with pytest.raises(DamagedPart, match="it has format version 1, not 2"):
        part_info(path)


def test_faults_of_the_storage_are_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(parts, "_opened", refuse)
    for read in (read_part, part_info):
        with pytest.raises(StorageError, match=r"cannot read p\.parquet: Permission denied"):
            read("p.parquet")
    with pytest.raises(StorageError, match="cannot write"):
        write_part(str(tmp_path / "none" / "p.parquet"), TABLE, METADATA)


@pytest.mark.parametrize(
    "text, stored",
    [("a/b.jpg", "a/b.jpg"), ("größe 😀", "größe 😀"), ("caf\udce9.jpg", "caf\\udce9.jpg"), ("", "")],
)
def test_names_of_stray_bytes_are_kept_in_plain_letters(text: str, stored: str) -> None:
    assert storable(text) == stored
    assert text_array(["x", text, None]).to_pylist() == ["x", stored, None]
