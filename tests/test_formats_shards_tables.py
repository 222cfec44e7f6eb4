"""Parquet files of images and the CSV file of FER2013."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pictures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.formats.records import Entry, FormatError, Limits, Member, NoImagesHere, Reason
from transforms.formats.shards.fer2013 import Fer2013Csv, looks_like_fer2013
from transforms.formats.shards.parquet import ParquetImages

LIMITS = Limits()


def _parquet(columns: dict[str, Any], *, metadata: dict[str, str] | None = None, **settings: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file, **settings)
    return file.getvalue()


def _read(data: bytes, form: Any, limits: Limits = LIMITS) -> list[Member]:
    file = io.BytesIO(data)
    members = list(form.read(file, list(form.list(file, limits)), limits))
    assert list(form.stream(io.BytesIO(data), limits)) == members
    return members


def _rows(data: bytes, limits: Limits = LIMITS) -> list[tuple[str, bytes | None, str | None]]:
    return [(m.name, m.data, m.label) for m in _read(data, ParquetImages(), limits)]


# --- Parquet ----------------------------------------------------------------------------------------------------------


def test_plain_columns() -> None:
    data = _parquet({"id": [7, 8], "image": [b"one", b"two"], "label": ["happy", None]})
    assert _rows(data) == [("7", b"one", "happy"), ("8", b"two", None)]


def test_as_hugging_face_writes_it() -> None:
    images = pa.array([{"bytes": b"one", "path": "a.jpg"}, {"bytes": b"two", "path": None}])
    features = {"label": {"names": ["angry", "happy"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    data = _parquet({"image": images, "label": [1, -1]}, metadata=metadata)
    assert _rows(data) == [("a.jpg", b"one", "happy"), ("00000001", b"two", None)]


@pytest.mark.parametrize(
    "metadata, label",
    [
        (None, "1"),
        ({"huggingface": "no json"}, "1"),
        ({"huggingface": '{"info": {"features": {"label": {"names": ["only"]}}}}'}, "1"),
        ({"huggingface": '{"info": {"features": {"label": {"names": ["no", "yes"]}}}}'}, "yes"),
    ],
)
def test_class_numbers_are_named_where_the_file_tells(metadata: dict[str, str] | None, label: str) -> None:
    assert _rows(_parquet({"image": [b"x"], "label": [1]}, metadata=metadata)) == [("00000000", b"x", label)]


@pytest.mark.parametrize("column", ["image", "bytes", "data", "jpg", "png", "anything"])
def test_the_image_column_is_found(column: str) -> None:
    assert _rows(_parquet({"caption": ["text"], column: [b"x"]})) == [("00000000", b"x", None)]


@pytest.mark.parametrize("column", ["path", "filename", "file_name", "image_id", "id", "name"])
def test_the_name_column_is_found(column: str) -> None:
    assert _rows(_parquet({"image": [b"x"], column: ["/data/a.jpg"]}))[0][0] == "data/a.jpg"


@pytest.mark.parametrize("image, name, label", [("Image", "ID", "Label"), ("BYTES", "File_Name", "CLASS")])
def test_columns_are_found_in_any_case(image: str, name: str, label: str) -> None:
    data = _parquet({"other": [b"no"], image: [b"x"], name: ["a.jpg"], label: ["sad"]})
    assert _rows(data) == [("a.jpg", b"x", "sad")]


def test_two_columns_that_differ_by_case_alone_are_neither() -> None:
    assert _rows(_parquet({"image": [b"x"], "LABEL": ["sad"], "Label": ["happy"]})) == [("00000000", b"x", None)]


def test_the_exact_name_of_a_column_comes_first() -> None:
    data = _parquet({"Image": [b"no"], "image": [b"x"], "Label": ["no"], "label": ["sad"]})
    assert _rows(data) == [("00000000", b"x", "sad")]


def test_views_of_texts_and_truth_values_serve_as_names_and_labels() -> None:
    names = pa.array(["a.jpg", "b.jpg"], pa.string_view())
    assert _rows(_parquet({"image": [b"x", b"y"], "name": names, "label": [True, False]})) == [
        ("a.jpg", b"x", "True"),
        ("b.jpg", b"y", "False"),
    ]


def test_a_table_about_images_holds_none() -> None:
    with pytest.raises(NoImagesHere, match=r"a table without images: file_name, text"):
        list(ParquetImages().list(io.BytesIO(_parquet({"file_name": ["a"], "text": ["b"]})), LIMITS))


def test_categories_serve_as_names_and_labels() -> None:
    words = pa.array(["sad", "happy"]).dictionary_encode()
    assert _rows(_parquet({"image": [b"x", b"y"], "label": words})) == [
        ("00000000", b"x", "sad"),
        ("00000001", b"y", "happy"),
    ]


def test_two_binary_columns_of_unknown_names_are_refused() -> None:
    with pytest.raises(FormatError, match=r"no column of images among left, right; rename the column"):
        list(ParquetImages().list(io.BytesIO(_parquet({"left": [b"x"], "right": [b"y"]})), LIMITS))


def test_missing_and_large_images() -> None:
    data = _parquet({"image": [None, b"x" * 11, b"x" * 10]})
    assert [m.reason for m in _read(data, ParquetImages(), Limits(max_image_bytes=10))] == [
        Reason.DAMAGED_MEMBER,
        Reason.TOO_MANY_BYTES,
        None,
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    outside = pa.array([{"bytes": None, "path": "elsewhere.jpg"}], kind)
    assert _read(_parquet({"image": outside}), ParquetImages()) == [
        Member("elsewhere.jpg", None, reason=Reason.DAMAGED_MEMBER)
    ]


def test_listing_is_by_row_group() -> None:
    data = _parquet({"image": [b"x" * 100] * 7}, row_group_size=3)
    entries = list(ParquetImages().list(io.BytesIO(data), LIMITS))
    assert [entry.where for entry in entries] == [(i,) for i in range(7)]
    assert all(entry.name == "" and entry.size > 0 for entry in entries)


def test_any_rows_may_be_read_in_any_order() -> None:
    data = _parquet({"image": [b"%d" % i for i in range(500)]}, row_group_size=150)
    entries = [Entry("", (row,), -1) for row in (499, 3, 4, 299, 300, 2, 149, 150)]
    members = list(ParquetImages().read(io.BytesIO(data), entries, LIMITS))
    assert [m.data for m in members] == [b"499", b"3", b"4", b"299", b"300", b"2", b"149", b"150"]


class _CountingFile(io.BytesIO):
    got = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.got += len(data)
        return data


def test_only_the_row_groups_that_are_needed_are_read() -> None:
    data = _parquet({"image": [bytes([i]) * 100_000 for i in range(40)]}, row_group_size=4, use_dictionary=False,
                    compression="none")  # fmt: skip
    file = _CountingFile(data)
    list(ParquetImages().read(file, [Entry("", (20,), -1), Entry("", (21,), -1)], LIMITS))
    assert file.got < len(data) / 4


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"text, no table" * 9])
def test_no_parquet_file(damage: bytes) -> None:
    assert list(ParquetImages().list(io.BytesIO(damage), LIMITS)) == [Entry("", (), 0, reason=Reason.DAMAGED_ARCHIVE)]
    assert _read(damage, ParquetImages()) == [Member("", None, reason=Reason.DAMAGED_ARCHIVE)]


def test_a_cut_file_is_damaged() -> None:
    data = _parquet({"image": [b"x"] * 100})
    assert [m.reason for m in _read(data[:-30], ParquetImages())] == [Reason.DAMAGED_ARCHIVE]


def test_a_damaged_page_costs_its_row_group() -> None:
    noise = [bytes((i * 7 + j * j) % 256 for j in range(500)) for i in range(9)]
    raw = bytearray(_parquet({"image": noise}, row_group_size=3, use_dictionary=False, compression="none",
                             write_page_checksum=True))  # fmt: skip
    raw[raw.index(noise[4]) + 50] ^= 1
    damaged, good = Reason.DAMAGED_MEMBER, None
    assert [m.reason for m in _read(bytes(raw), ParquetImages())] == [good] * 3 + [damaged] * 3 + [good] * 3


def test_rows_behind_damage_are_not_tried_one_by_one() -> None:
    noise = [bytes((i * 7 + j * j) % 256 for j in range(3000)) for i in range(300)]
    raw = bytearray(_parquet({"image": noise}, use_dictionary=False, compression="none", write_page_checksum=True))
    raw[raw.index(noise[1]) + 50] ^= 1
    file = _CountingFile(bytes(raw))
    entries = list(ParquetImages().list(file, LIMITS))
    assert {m.reason for m in ParquetImages().read(file, entries, LIMITS)} == {Reason.DAMAGED_MEMBER}
    assert file.got < 3 * len(raw)


class _FailingFile(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() < 2000:
            raise TimeoutError("the network is away")
        return super().read(size)


def test_a_failing_disk_is_no_damage() -> None:
    images = [bytes([i]) * 5000 for i in range(100)]
    file = _FailingFile(_parquet({"image": images}, compression="none", use_dictionary=False))
    entries = list(ParquetImages().list(file, LIMITS))
    with pytest.raises(TimeoutError, match="network"):
        list(ParquetImages().read(file, entries, LIMITS))


def test_files_written_for_tests(tmp_path: Path) -> None:
    files = pictures.good_files(70)
    path = pictures.write_parquet(tmp_path / "a.parquet", files, rows_in_group=40)
    members = _read(path.read_bytes(), ParquetImages())
    assert {m.name: m.data for m in members} == files
    assert [m.label for m in members[:2]] == ["happy", "sad"]


# --- FER2013 ----------------------------------------------------------------------------------------------------------

GREY = " ".join(str(i % 256) for i in range(48 * 48))
PICTURE = b"P5\n48 48\n255\n" + bytes(i % 256 for i in range(48 * 48))


@pytest.mark.parametrize(
    "first, is_fer",
    [
        (b"emotion,pixels,Usage\n3,1 2", True),
        (b"emotion,pixels\r\n3,1 2", True),
        (b'"emotion", "Usage", "pixels"\n', True),
        (b"\xef\xbb\xbfemotion,pixels", True),
        (b"id,label\n", False),
        (b"", False),
    ],
)
def test_it_is_known_by_its_header(first: bytes, is_fer: bool) -> None:
    assert looks_like_fer2013(first) is is_fer


def _fer(text: str) -> list[Member]:
    return _read(text.encode(), Fer2013Csv())


def test_rows_become_pictures() -> None:
    table = f"emotion,pixels,Usage\n3,{GREY},Training\n0,{GREY},PrivateTest"
    assert _fer(table) == [
        Member("Training/00000000", PICTURE, "happy"),
        Member("PrivateTest/00000001", PICTURE, "angry"),
    ]


def test_other_columns_quotes_and_line_ends() -> None:
    assert _fer(f'emotion, Usage, pixels\r\n6,Training,"{GREY}"\r\n\r\n') == [
        Member("Training/00000000", PICTURE, "neutral")
    ]
    assert _fer(f"emotion,pixels\n9,{GREY}\n") == [Member("00000000", PICTURE, None)]


def test_a_number_that_is_none_of_a_class_stops_nothing() -> None:
    endless = "9" * 5000
    assert [member.label for member in _fer(f"emotion,pixels\n{endless},{GREY}\n3,{GREY}\n")] == [None, "happy"]
    metadata = {"huggingface": '{"info": {"features": {"label": {"names": ["no", "yes"]}}}}'}
    labels = ["1", "--5", "²", endless, "-1"]
    rows = _rows(_parquet({"image": [b"x"] * 5, "label": labels}, metadata=metadata))
    assert [label for _, _, label in rows] == ["yes", "--5", "²", endless, None]


@pytest.mark.parametrize(
    "row",
    [
        f"3,{GREY} 1,Training",
        f"3,{GREY[:-4]},Training",
        f"3,256{GREY[1:]},Training",
        f"3,-1{GREY[1:]},Training",
        f"3,x{GREY[1:]},Training",
        "3,,Training",
        "3",
    ],
)
def test_a_bad_row_costs_itself(row: str) -> None:
    members = _fer(f"emotion,pixels,Usage\n{row}\n3,{GREY},Training\n")
    assert [m.reason for m in members] == [Reason.DAMAGED_MEMBER, None]
    assert members[1].name == "Training/00000001"


def test_an_endless_line_is_bounded_damage() -> None:
    members = _fer("emotion,pixels,Usage\n" + "7" * 3_000_000 + f"\n3,{GREY},Training\n")
    assert [m.reason for m in members[:-1]] == [Reason.DAMAGED_MEMBER] * 2  # it came in pieces
    assert members[-1].data == PICTURE


def test_another_csv_is_damaged() -> None:
    assert _fer("id,label\n1,2\n") == [Member("", None, reason=Reason.DAMAGED_ARCHIVE)]
    assert _fer("") == [Member("", None, reason=Reason.DAMAGED_ARCHIVE)]


def test_a_csv_written_for_tests(tmp_path: Path) -> None:
    path = pictures.write_fer_csv(tmp_path / "fer.csv", pictures.good_files(3))
    members = _read(path.read_bytes(), Fer2013Csv())
    assert [(m.name, m.label) for m in members] == [
        ("Training/00000000", "happy"),
        ("Training/00000001", "sad"),
        ("Training/00000002", "happy"),
    ]
    assert members[2].data == pictures.pnm(pictures.plain(48, 48, 2))
