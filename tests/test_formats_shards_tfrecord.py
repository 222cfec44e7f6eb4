"""TFRecord files: read without TensorFlow, and what becomes of damaged ones."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import google_crc32c
import pictures
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.formats.records import FormatError, Limits, Member, Reason
from transforms.formats.shards.tfrecord import TFRecord, TFRecordGz, masked_crc32c

LIMITS = Limits()

# Written once by TensorFlow 2.21: image/encoded PIXELS, image/filename a/b.jpg, image/class/text happy, and two
# features of numbers that are none of ours.
BY_TENSORFLOW = bytes.fromhex(
    "9500000000000000d593a3460a92010a1c0a11696d6167652f636c6173732f6c6162656c12071a050a0303ac020a1d0a10696d6167652f63"
    "6c6173732f7465787412090a070a0568617070790a1b0a0d696d6167652f656e636f646564120a0a080a06504958454c530a1d0a0e696d61"
    "67652f66696c656e616d65120b0a090a07612f622e6a70670a170a0b696d6167652f73636f7265120812060a040000003faf994f2e"
)


def _record(**features: bytes) -> bytes:
    return pictures.tfrecord(pictures.example({"image/" + k.replace("__", "/"): v for k, v in features.items()}))


def _read(data: bytes, limits: Limits = LIMITS) -> list[Member]:
    """Reads by listing; streaming, plain and gzipped, must give the same."""
    file = io.BytesIO(data)
    form = TFRecord()
    members = list(form.read(file, list(form.list(file, limits)), limits))
    assert list(form.stream(io.BytesIO(data), limits)) == members
    if data:
        assert list(TFRecordGz().stream(io.BytesIO(gzip.compress(data)), limits)) == members
    return members


def test_a_file_that_tensorflow_wrote() -> None:
    assert _read(BY_TENSORFLOW) == [Member("a/b.jpg", b"PIXELS", "happy")]


def test_the_check_sum_is_the_castagnoli_one() -> None:
    assert google_crc32c.value(b"123456789") == 0xE3069283
    assert masked_crc32c(BY_TENSORFLOW[:8]) == struct.unpack_from("<I", BY_TENSORFLOW, 8)[0]


def test_names_and_labels_are_optional() -> None:
    data = _record(encoded=b"one") + _record(encoded=b"two", filename=b"/abs/x.jpg")
    data += _record(encoded=b"3", filename=b"")
    assert _read(data) == [Member("00000000", b"one"), Member("abs/x.jpg", b"two"), Member("00000002", b"3")]


def test_entries_carry_offset_length_and_number() -> None:
    first, second = _record(encoded=b"one"), _record(encoded=b"four")
    entries = list(TFRecord().list(io.BytesIO(first + second), LIMITS))
    assert [entry.where for entry in entries] == [(12, len(first) - 16, 0), (len(first) + 12, len(second) - 16, 1)]
    assert [entry.name for entry in entries] == ["", ""]


def test_any_order_may_be_read() -> None:
    file = io.BytesIO(b"".join(_record(encoded=b"%d" % i) for i in range(9)))
    entries = list(TFRecord().list(file, LIMITS))
    chosen = [entries[i] for i in (7, 2, 3, 8, 0)]
    assert [m.data for m in TFRecord().read(file, chosen, LIMITS)] == [b"7", b"2", b"3", b"8", b"0"]


def test_a_damaged_record_costs_itself() -> None:
    first = bytearray(_record(encoded=b"one"))
    first[first.index(b"one")] ^= 1
    assert _read(bytes(first) + _record(encoded=b"two")) == [
        Member("00000000", None, reason=Reason.DAMAGED_MEMBER),
        Member("00000001", b"two"),
    ]


def test_a_record_without_an_image_is_damaged() -> None:
    good = _record(encoded=b"one")
    assert _read(good + _record(filename=b"a.jpg"))[1:] == [Member("a.jpg", None, reason=Reason.DAMAGED_MEMBER)]
    assert _read(pictures.tfrecord(b"")) == [Member("00000000", None, reason=Reason.DAMAGED_MEMBER)]
    assert _read(pictures.tfrecord(b"no example")) == [Member("00000000", None, reason=Reason.DAMAGED_MEMBER)]


# Written once by TensorFlow 2.21 with the keys of TensorFlow Datasets: image PIXELS, file_name 7.jpg, label 3.
AS_DATASETS_WRITE = bytes.fromhex(
    "3f00000000000000516576610a3d0a0e0a056c6162656c12051a030a01030a130a05696d616765120a0a080a06504958454c530a160a09"
    "66696c655f6e616d6512090a070a05372e6a7067ec33ca90"
)


def test_the_keys_of_tensorflow_datasets() -> None:
    assert _read(AS_DATASETS_WRITE) == [Member("7.jpg", b"PIXELS", "3")]


@pytest.mark.parametrize("image", ["image", "image/encoded", "img", "jpg"])
@pytest.mark.parametrize("name", ["filename", "image_id", "id", "image/id"])
@pytest.mark.parametrize("label", ["label", "class", "class_name"])
def test_other_usual_keys(image: str, name: str, label: str) -> None:
    data = pictures.tfrecord(pictures.example({image: b"x", name: b"7.jpg", label: b"happy", "other": b"y"}))
    assert _read(data) == [Member("7.jpg", b"x", "happy")]


@pytest.mark.parametrize(
    "integers, label",
    [
        (b"\x0a\x02\xac\x02", "300"),
        (b"\x08\x05", "5"),
        (b"\x0a\x00", None),
        (b"\x0a\x02\x01\x02", "1"),
        (b"\x08" + b"\xff" * 9 + b"\x01", None),
    ],
)
def test_labels_that_are_numbers(integers: bytes, label: str | None) -> None:
    """Packed and not; the first of several; -1 says that it is not known."""
    entry = pictures.field(1, b"label") + pictures.field(2, pictures.field(3, integers))
    image = pictures.field(1, b"image") + pictures.field(2, pictures.field(1, pictures.field(1, b"x")))
    data = pictures.tfrecord(pictures.field(1, pictures.field(1, entry) + pictures.field(1, image)))
    assert _read(data) == [Member("00000000", b"x", label)]


def test_examples_without_a_known_key_are_refused_and_the_keys_told() -> None:
    data = pictures.tfrecord(pictures.example({"pixels": b"x", "label": b"happy"})) * 2
    words = r"no image under a known key: it has label, pixels; use one of image/encoded, image, "
    for read in (
        lambda: list(TFRecord().list(io.BytesIO(data), LIMITS)),
        lambda: list(TFRecord().stream(io.BytesIO(data), LIMITS)),
    ):
        with pytest.raises(FormatError, match=words):
            read()
    spoiled = bytearray(data)
    spoiled[-5] ^= 1  # of the second record: the first still tells
    with pytest.raises(FormatError, match=words):
        list(TFRecord().list(io.BytesIO(bytes(spoiled)), LIMITS))


def test_a_field_longer_than_what_holds_it_is_damage() -> None:
    example = bytearray(pictures.example({"image/encoded": b"one", "image/filename": b"a.jpg"}))
    example[example.index(b"one") - 1] = 9  # the bytes would reach into the next feature
    assert _read(pictures.tfrecord(bytes(example))) == [Member("00000000", None, reason=Reason.DAMAGED_MEMBER)]


DAMAGED = Member("", None, reason=Reason.DAMAGED_ARCHIVE)


def test_a_damaged_length_ends_the_file() -> None:
    second = bytearray(_record(encoded=b"two"))
    second[0] ^= 1
    data = _record(encoded=b"one") + bytes(second) + _record(encoded=b"three")
    assert _read(data) == [Member("00000000", b"one"), DAMAGED]


@pytest.mark.parametrize("cut", [1, 4, 10, 30])
def test_a_cut_ends_the_file(cut: int) -> None:
    data = _record(encoded=b"one") + _record(encoded=b"two")
    assert _read(data[:-cut]) == [Member("00000000", b"one"), DAMAGED]


def test_an_empty_file_holds_nothing_and_a_text_is_damaged() -> None:
    assert _read(b"") == []
    assert _read(b"this is no TFRecord file at all") == [DAMAGED]


def test_too_large() -> None:
    limits = Limits(max_image_bytes=1000)
    data = _record(encoded=b"x" * 1001, filename=b"a.jpg") + _record(encoded=b"y" * 1000)
    assert [m.reason for m in _read(data, limits)] == [Reason.TOO_MANY_BYTES, None]
    monster = _record(encoded=b"x" * (2**20 + 2000))  # known by its length alone, so that it is never held
    assert next(iter(TFRecord().list(io.BytesIO(monster), limits))).reason is Reason.TOO_MANY_BYTES
    assert _read(monster, limits) == [Member("00000000", None, reason=Reason.TOO_MANY_BYTES)]


GZIPPED = gzip.compress(BY_TENSORFLOW)


@pytest.mark.parametrize("data", [b"", b"no gzip", GZIPPED[:-3], GZIPPED + b"x"])
def test_a_damaged_gzip_stream_ends_with_a_row(data: bytes) -> None:
    members = list(TFRecordGz().stream(io.BytesIO(data), LIMITS))
    assert members[-1] == DAMAGED
    assert len(members) == (2 if len(data) > 20 else 1)


def test_a_gzipped_file_refuses_what_it_cannot() -> None:
    with pytest.raises(FormatError, match="use stream"):
        TFRecordGz().list(io.BytesIO(), LIMITS)
    with pytest.raises(FormatError, match="use stream"):
        TFRecordGz().read(io.BytesIO(), [], LIMITS)


def test_files_written_for_tests(tmp_path: Path) -> None:
    files = pictures.good_files(4)
    path = pictures.write_tfrecord(tmp_path / "a.tfrecord", files)
    assert {m.name: m.data for m in _read(path.read_bytes())} == files
    assert [m.label for m in _read(path.read_bytes())] == ["happy", "sad", "happy", "sad"]


@given(st.data())
def test_no_bytes_raise(data: st.DataObject) -> None:
    raw = bytearray(_record(encoded=b"one", filename=b"a.jpg") + _record(encoded=b"two"))
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for member in _read(bytes(raw[: data.draw(st.integers(0, len(raw)))])):
        assert (member.data is None) == (member.reason is not None)


@given(st.binary(max_size=60))
def test_no_example_raises_and_none_reads_behind_its_end(example: bytes) -> None:
    try:
        (member,) = _read(pictures.tfrecord(example))
    except FormatError:  # sound keys, and none of an image
        return
    assert member.data is None or member.data in example
