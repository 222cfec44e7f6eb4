"""Names, what they tell, and blocks that stay put when files come and go; and the table of formats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.formats.shards.loose_files import (
    Skipped,
    clean_name,
    cut_blocks,
    cut_runs,
    is_image_name,
    label_of,
    record_name,
    text_of,
)
from transforms.formats.shards.registry import FORMATS, format_of


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "a.JPEG",
        "x/b.jpe",
        "x/b.jfif",
        "b.Png",
        "b.webp",
        "b.bmp",
        "b.dib",
        "b.tif",
        "b.TIFF",
        "b.gif",
        "no_suffix",
        "f.v2/none",
        "a.b.jpg",
    ],
)
def test_images_by_name(name: str) -> None:
    assert is_image_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "README.txt",
        ".DS_Store",
        "x/.DS_Store",
        "__MACOSX/a.jpg",
        "x/__MACOSX/a",
        "x/._a.jpg",
        "Thumbs.db",
        "a.jpg.txt",
        "x\\.a.jpg",
        "b.mp4",
    ],
)
def test_no_images_by_name(name: str) -> None:
    assert not is_image_name(name)


@pytest.mark.parametrize(
    "name, text",
    [
        ("a/b.jpg", "a/b.jpg"),
        ("./a//b.jpg", "a/b.jpg"),
        ("a/./b.jpg", "a/b.jpg"),
        ("a\\b.jpg", "a/b.jpg"),
        ("..a/b...jpg", "..a/b...jpg"),
        ("ü/日本.jpg", "ü/日本.jpg"),
        ("caf\udce9.jpg", "caf%E9.jpg"),
        ("half\ud83d.jpg", "half%ED%A0%BD.jpg"),
        ("line\nbreak.jpg", "line\nbreak.jpg"),
    ],
)
def test_odd_names_are_tidied_and_safe(name: str, text: str) -> None:
    clean = clean_name(name)
    assert (clean.text, clean.safe) == (text, True)


@pytest.mark.parametrize(
    "name, text",
    [
        ("../x.jpg", "%2E%2E/x.jpg"),
        ("a/../../x.jpg", "a/%2E%2E/%2E%2E/x.jpg"),
        ("..\\..\\x.jpg", "%2E%2E/%2E%2E/x.jpg"),
        ("/etc/x.jpg", "%2Fetc/x.jpg"),
        ("\\\\server\\x.jpg", "%2Fserver/x.jpg"),
        ("C:\\x.jpg", "C%3A/x.jpg"),
        ("c:x.jpg", "c%3Ax.jpg"),
        ("a\0.jpg", "a%00.jpg"),
        ("", "unnamed"),
        ("./", "unnamed"),
    ],
)
def test_names_that_climb_out_are_unsafe_and_can_be_found(name: str, text: str) -> None:
    clean = clean_name(name)
    assert (clean.text, clean.safe) == (text, False)


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_a_cleaned_name_can_be_written_and_stays_inside(name: str) -> None:
    text = clean_name(name).text
    text.encode("utf-8")
    assert not text.startswith("/")
    assert not {"", ".", ".."} & set(text.split("/"))
    assert clean_name(text).text == text
    assert clean_name(record_name(name)).safe or record_name(name) == "unnamed" or ".." in name or "\0" in name


def test_a_name_that_a_record_mentions_is_no_attack() -> None:
    assert record_name("/data/train/x.jpg") == "data/train/x.jpg"
    assert record_name("C:\\data\\x.jpg") == "data/x.jpg"


def test_stored_text() -> None:
    assert text_of("né".encode()) == "né"
    assert text_of(b"n\xe9") == "n%E9"


@pytest.mark.parametrize("name, label", [("happy/a.jpg", "happy"), ("x/sad/a.jpg", "sad"), ("a.jpg", None)])
def test_the_parent_folder_is_the_class(name: str, label: str | None) -> None:
    assert label_of(name) == label


def test_skipped_keeps_five_names() -> None:
    skipped = Skipped()
    for i in range(7):
        skipped.add(f"{i}.txt")
    assert (skipped.count, skipped.names) == (7, [f"{i}.txt" for i in range(5)])


# --- cutting ----------------------------------------------------------------------------------------------------------


def _blocks(ids: list[str], sizes: list[int] | None = None, **limits: int) -> list[tuple[str, ...]]:
    sizes = [1] * len(ids) if sizes is None else sizes
    return [tuple(ids[i] for i in block) for block in cut_blocks(ids, sizes, **limits)]


sizes_lists = st.lists(st.integers(-1, 50), max_size=200)


@given(sizes_lists, st.integers(1, 40), st.integers(1, 200))
def test_blocks_hold_everything_once_within_the_limits(sizes: list[int], max_images: int, max_bytes: int) -> None:
    ids = [f"{i:05d}.jpg" for i in range(len(sizes))]
    for blocks in (
        list(cut_blocks(ids, sizes, max_images=max_images, max_bytes=max_bytes)),
        list(cut_runs(sizes, max_images=max_images, max_bytes=max_bytes)),
    ):
        assert [i for block in blocks for i in block] == list(range(len(sizes)))
        for block in blocks:
            assert 1 <= len(block) <= max_images
            assert len(block) == 1 or sum(max(sizes[i], 0) for i in block) <= max_bytes


@given(st.integers(0, 2999), st.booleans())
def test_one_file_more_or_less_changes_few_blocks(position: int, adds: bool) -> None:
    ids = [f"person/{i:06d}.jpg" for i in range(3000)]
    changed = sorted([*ids, ids[position] + "x"]) if adds else ids[:position] + ids[position + 1 :]
    before, after = set(_blocks(ids)), set(_blocks(changed))
    assert len(before) > 15
    assert len(before - after) <= 4  # one, or up to the next boundary that the hash decides
    assert len(after - before) <= 4


def test_on_average_one_block_changes() -> None:
    ids = [f"person/{i:06d}.jpg" for i in range(3000)]
    before = set(_blocks(ids))
    changed = [len(before - set(_blocks(ids[:i] + ids[i + 1 :]))) for i in range(0, 3000, 100)]
    assert sum(changed) / len(changed) < 1.6


def test_blocks_are_about_half_full() -> None:
    ids = [f"person/{i:06d}.jpg" for i in range(20_000)]
    assert 90 < 20_000 / len(_blocks(ids)) < 140


def test_blocks_of_a_fixed_list_stay_what_they_are() -> None:
    ids = [f"{i:03d}.jpg" for i in range(60)]
    assert [len(block) for block in _blocks(ids, max_images=16)] == [6, 3, 12, 8, 5, 4, 6, 2, 9, 4, 1]


def test_runs_are_as_long_as_they_may() -> None:
    assert list(cut_runs([1] * 10, max_images=4)) == [range(4), range(4, 8), range(8, 10)]
    assert list(cut_runs([5, 5, 5, 99, 1, -1], max_bytes=10)) == [range(2), range(2, 3), range(3, 4), range(4, 6)]
    assert list(cut_runs([])) == []


# --- the table of formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, name",
    [
        ("/data/a.tar", "tar"),
        ("gs://bucket/A.TAR.GZ", "tar.gz"),
        ("a.tgz", "tar.gz"),
        ("a.zip", "zip"),
        ("a.tfrecord", "tfrecord"),
        ("a.tfrecords", "tfrecord"),
        ("a.tfrecord-00000-of-00010", "tfrecord"),
        ("a-00000-of-00010.tfrecord", "tfrecord"),
        ("a.tfrecord.gz", "tfrecord.gz"),
        ("a.tfrecord.gz-00001-of-00002", "tfrecord.gz"),
        ("a.parquet", "parquet"),
        ("a.jpg", None),
        ("a.gz", None),
        ("tar", None),
        ("train-00000-of-00010", None),
        ("labels.csv", None),
    ],
)
def test_formats_are_found_by_suffix(path: str, name: str | None) -> None:
    found = format_of(path)
    assert (found and found.name) == name


def test_some_names_need_the_first_bytes() -> None:
    csv = format_of("fer2013.csv", b"emotion,pixels,Usage\n0,1 2 3,Training\n")
    assert csv is not None and csv.name == "fer2013"
    assert format_of("labels.csv", b"id,label\n") is None
    header = bytes.fromhex("9500000000000000d593a346")  # of a record that TensorFlow wrote
    records = format_of("train-00000-of-00010", header)
    assert records is not None and records.name == "tfrecord"
    assert format_of("train-00000-of-00010", b"not a record's length") is None


def test_suffixes_are_lower_case_and_unique() -> None:
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    assert suffixes == [suffix.lower() for suffix in suffixes]
    assert len(set(suffixes)) == len(suffixes)
