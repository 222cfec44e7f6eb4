from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.formats import publish as publishing
from transforms.formats.cache import feature_cache as module
from transforms.formats.cache import segment, segments
from transforms.formats.cache.contents import Contents
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.cache.folders import (
    fingerprint_folders,
    has_lost_its_fingerprint,
)
from transforms.formats.cache.segments import Segments
from transforms.formats.canonical import canonical_json, fingerprint_of
from transforms.formats.publish import StorageError
from transforms.formats.records import FormatError, Status

SETTINGS = {"faces": {"detector": "yunet", "min_face_px": 24}, "features": {"backbone": "vgg16"}, "wörter": "ä"}
COLUMNS = [field.name for field in dataclasses.fields(Contents)]


def digest_of(name: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest(), np.uint8)


def digests_of(*names: str) -> np.ndarray:
    return np.stack([digest_of(name) for name in names]) if names else np.zeros((0, 32), np.uint8)


def make(faces: dict[str, int], *, width: int = 7, digests: np.ndarray | None = None) -> Contents:
    """Returns contents with this many faces for each name; -1 stands for a rejected image. Values follow the name."""
    features, boxes, scores = [], [], []
    for name, count in faces.items():
        random = np.random.default_rng(list(digest_of(name)))
        for _ in range(max(count, 0)):
            features.append(random.standard_normal(width).astype(np.float16))
            boxes.append(random.integers(0, 500, 4))
            scores.append(random.random())
    counts = [max(count, 0) for count in faces.values()]
    status = [Status.REJECTED if c < 0 else Status.LABELLED if c else Status.NO_FACE for c in faces.values()]
    return Contents(
        digest=digests_of(*faces) if digests is None else digests,
        width=np.arange(len(faces), dtype=np.int32) + 640,
        height=np.full(len(faces), 480, np.int32),
        status=np.array(status, object),
        reason=np.array(["truncated" if count < 0 else "" for count in faces.values()], object),
        face_image=np.repeat(np.arange(len(faces), dtype=np.int32), counts),
        box=np.array(boxes, np.int32).reshape(-1, 4),
        score=np.array(scores, np.float32),
        features=np.array(features, np.float16).reshape(-1, width),
        names=tuple(faces),
        labels=tuple(None if count < 1 else f"class {count}" for count in faces.values()),
    )


def assert_same(got: Contents, expected: Contents) -> None:
    for name in COLUMNS:
        left, right = getattr(got, name), getattr(expected, name)
        if isinstance(left, np.ndarray):
            assert (left.dtype, left.shape) == (right.dtype, right.shape), name
            left, right = left.tolist(), right.tolist()
        assert left == right, name


def segments_of(cache: FeatureCache) -> list[Path]:
    return sorted(Path(cache.folder).glob("*.h5"))


def again(cache: FeatureCache, **options: Any) -> FeatureCache:
    return FeatureCache.open(cache.folder, **options)


MIXED = {"a.jpg": 1, "b.jpg": 0, "c.jpg": 3, "d.jpg": -1, "e.jpg": 2}


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache.create(tmp_path / "cache", SETTINGS)


@pytest.fixture
def filled(cache: FeatureCache) -> FeatureCache:
    cache.add(make(MIXED))
    cache.refresh()
    return cache


# --- what goes in comes out


@pytest.mark.parametrize("width", [1, 7, 256, 8192])
@pytest.mark.parametrize(
    "faces",
    [
        MIXED,
        {"a": 1},
        {"no": 0},
        {"bad": -1},
        {"x": -1, "y": -1},
        {"x": 0, "y": -1},
        {f"{i}": i % 4 - 1 for i in range(60)},
    ],
)
def test_results_come_back_exactly(cache: FeatureCache, faces: dict[str, int], width: int) -> None:
    contents = make(faces, width=width)
    cache.add(contents)
    cache.refresh()
    hit, got = again(cache).lookup(contents.digest)
    assert hit.tolist() == [True] * len(faces)
    assert_same(got, contents)
    assert all(isinstance(status, Status) for status in got.status)


@settings(max_examples=25, deadline=None)
@given(
    faces=st.dictionaries(st.text(max_size=5), st.integers(-1, 3), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=3),
    data=st.data(),
)
def test_lookup_does_not_depend_on_order_or_on_how_images_were_stored(
    tmp_path_factory: pytest.TempPathFactory, faces: dict[str, int], cuts: list[int], data: st.DataObject
) -> None:
    cache = FeatureCache.create(tmp_path_factory.mktemp("cache"), SETTINGS)
    contents = make(faces)
    bounds = [0, *sorted(cuts), len(faces)]
    for start, stop in itertools.pairwise(bounds):
        cache.add(contents.take(list(range(start, max(start, min(stop, len(faces)))))))
    cache.refresh()
    asked = data.draw(st.lists(st.integers(0, len(faces) - 1), min_size=1, max_size=20))
    hit, got = cache.lookup(contents.digest[asked])
    assert hit.all()
    assert len(cache) == len(faces)
    assert_same(got, contents.take(asked))


def test_hits_and_misses_mixed(filled: FeatureCache) -> None:
    hit, got = filled.lookup(digests_of("new", "c.jpg", "newer", "a.jpg", "c.jpg"))
    assert hit.tolist() == [False, True, False, True, True]
    assert got.names == ("c.jpg", "a.jpg", "c.jpg")
    assert got.face_image.tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert_same(got, make(MIXED).take([2, 0, 2]))


def test_nothing_asked_and_nothing_known(cache: FeatureCache, filled: FeatureCache) -> None:
    for asked in (digests_of(), digests_of("new")):
        hit, got = filled.lookup(asked)
        assert hit.tolist() == [False] * len(asked)
        assert len(got) == 0
        assert got.box.shape == (0, 4)
    assert cache.lookup(digests_of("new"))[0].tolist() == [False]


@pytest.mark.parametrize(
    "name",
    [
        "ordner/ä 顔 🙂.jpg",
        "zip/dir\\x.png",
        "",
        "nul\0 inside\0",
        "not utf-8 \udcff",
        "lone \ud800",
        "x" * 5000,
        'q"uote\n',
    ],
)
def test_any_name_and_label(cache: FeatureCache, name: str) -> None:
    contents = dataclasses.replace(make({name: 1, "other": 0}), labels=(name, None))
    cache.add(contents)
    assert_same(again(cache).lookup(contents.digest)[1], contents)


def test_an_empty_block_stores_nothing(cache: FeatureCache) -> None:
    assert cache.add(make({})) is None
    assert segments_of(cache) == []


def test_images_without_bytes_are_neither_stored_nor_found(cache: FeatureCache) -> None:
    no_bytes = np.zeros((1, 32), np.uint8)
    assert cache.add(make({"unread": -1}, digests=no_bytes)) is None
    cache.add(make({"unread": -1, "a": 1}, digests=np.concatenate([no_bytes, digests_of("a")])))
    hit, got = again(cache).lookup(np.concatenate([no_bytes, digests_of("a")]))
    assert hit.tolist() == [False, True]
    assert got.names == ("a",)


def test_images_without_bytes_are_not_found_even_where_another_program_stored_them(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_bytes = np.zeros((1, 32), np.uint8)
    monkeypatch.setattr(module, "distinct_rows", lambda digests: np.arange(len(digests)))
    assert cache.add(make({"unread": -1}, digests=no_bytes)) is not None
    assert not again(cache).lookup(no_bytes)[0].any()


def test_the_first_of_equal_digests_is_kept(cache: FeatureCache) -> None:
    contents = make({"first": 1, "x": 0, "copy": 2}, digests=digests_of("same", "x", "same"))
    cache.add(contents)
    assert_same(again(cache).lookup(digests_of("same"))[1], contents.take([0]))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("width", np.zeros(4, np.int32), "width has shape"),
        ("digest", np.zeros((5, 31), np.uint8), "digest has shape"),
        ("digest", np.zeros((5, 32), np.int64), "digest has dtype int64"),
        ("box", np.zeros((6, 4), float), "box has dtype float64"),
        ("features", np.zeros((5, 7), np.float16), "features has shape"),
        ("names", ("a",), "1 names"),
        ("face_image", np.array([0, 2, 2, 4, 4, 2], np.int32), "face_image must ascend"),
        ("face_image", np.array([0, 2, 2, 2, 4, 5], np.int32), "face_image must ascend"),
        ("face_image", np.array([0, 0, 2, 2, 4, 3], np.int32), "face_image must ascend"),
        ("face_image", np.array([0, 1, 2, 2, 4, 4], np.int32), "exactly the images"),
        ("status", np.array(["labelled", "no_face", "labelled", "duplicate", "labelled"], object), "'duplicate'"),
        ("status", np.array(["labelled", None, "labelled", "rejected", "labelled"], object), "'None'"),
        ("reason", np.array(["", "", "", "", ""], object), "'rejected' with reason ''"),
        ("reason", np.array(["", "", "", "bad luck", ""], object), "'bad luck'"),
        ("reason", np.array(["", "", "", "internal_error", ""], object), "'internal_error' cannot be cached"),
    ],
)
def test_columns_that_do_not_fit_are_refused(cache: FeatureCache, column: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cache.add(dataclasses.replace(make(MIXED), **{column: value}))
    assert segments_of(cache) == []


# --- the file


def test_a_segment_is_what_the_contract_says(cache: FeatureCache) -> None:
    name = cache.add(make(MIXED))
    ordered = sorted(digest_of(image).tobytes() for image in MIXED)
    assert name == hashlib.sha256(b"".join(ordered)).hexdigest()[:32] + ".h5"
    with h5py.File(Path(cache.folder) / name, "r", locking=False) as file:
        assert set(file) == {
            *("digest", "width", "height", "status", "reason"),
            *("face_image", "box", "score", "features", "names"),
        }
        assert [row.tobytes() for row in file["digest"][()]] == ordered
        assert (file["features"].dtype, file["features"].shape) == (np.float16, (6, 7))
        assert all(dataset.fletcher32 and dataset.compression is None for dataset in file.values())
        assert set(file["status"].asstr()[()]) == {"labelled", "no_face", "rejected"}
        assert sorted(json.loads(file["names"][0])) == sorted(
            [list(pair) for pair in zip(make(MIXED).names, make(MIXED).labels, strict=True)]
        )
        assert (file.attrs["format"], file.attrs["images"], file.attrs["faces"]) == (1, 5, 6)
        assert file.attrs["fingerprint"].decode() == fingerprint_of(SETTINGS)
        assert len(file.attrs["checksum"]) == 64


def test_bytes_follow_from_the_contents_alone(tmp_path: Path) -> None:
    contents = make(MIXED)
    one = FeatureCache.create(tmp_path / "one", SETTINGS)
    two = FeatureCache.create(tmp_path / "two", SETTINGS)
    one.add(contents)
    time.sleep(1.1)  # HDF5 stamps whole seconds where it may
    two.add(contents.take([3, 1, 4, 0, 2]))
    (left,), (right,) = segments_of(one), segments_of(two)
    assert left.name == right.name
    assert left.read_bytes() == right.read_bytes()


def test_what_stands_is_left_alone(cache: FeatureCache) -> None:
    name = cache.add(make(MIXED))
    (path,) = segments_of(cache)
    before = path.stat()
    assert cache.add(make(MIXED)) == name
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_large_features_are_cut_into_chunks(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "_MAX_CHUNK_BYTES", 64)
    contents = make({f"{i}": 2 for i in range(10)})
    cache.add(contents)
    assert_same(again(cache).lookup(contents.digest)[1], contents)


# --- a hit needs digest, fingerprint and checksum


def test_another_digest_is_a_miss_even_if_it_begins_alike(filled: FeatureCache) -> None:
    for at in (0, 7, 8, 31):
        asked = digests_of(*MIXED)
        asked[:, at] ^= 1
        assert not filled.lookup(asked)[0].any()


def test_equal_beginnings_are_told_apart(cache: FeatureCache) -> None:
    digests = np.zeros((6, 32), np.uint8)
    digests[:, 31] = [5, 1, 3, 2, 4, 6]
    contents = make({f"{i}": 1 for i in range(6)}, digests=digests)
    cache.add(contents.take([0, 1, 2]))
    cache.add(contents.take([3, 4, 2]))
    cache.refresh()
    assert_same(cache.lookup(digests[:5])[1], contents.take([0, 1, 2, 3, 4]))
    assert cache.lookup(digests)[0].tolist() == [True] * 5 + [False]
    assert len(cache) == 5
    assert sorted(cache.ids) == ["0", "1", "2", "3", "4"]


def test_another_fingerprint_is_a_miss(filled: FeatureCache, tmp_path: Path) -> None:
    other = FeatureCache.create(tmp_path / "cache", {**SETTINGS, "revision": 2})
    assert other.folder != filled.folder
    assert not other.lookup(digests_of(*MIXED))[0].any()


def test_a_segment_copied_from_another_fingerprint_is_damage(filled: FeatureCache, tmp_path: Path) -> None:
    other = FeatureCache.create(tmp_path / "cache", {**SETTINGS, "revision": 2})
    (path,) = segments_of(filled)
    (Path(other.folder) / path.name).write_bytes(path.read_bytes())
    other.refresh()
    assert not other.lookup(digests_of(*MIXED))[0].any()
    assert other.damaged == [(path.name, f"it belongs to fingerprint {fingerprint_of(SETTINGS)[:16]}")]
    assert filled.lookup(digests_of(*MIXED))[0].all()


def test_a_change_that_hdf5_cannot_see_is_seen_by_the_checksum(filled: FeatureCache) -> None:
    (path,) = segments_of(filled)
    with h5py.File(path, "r+", libver="latest", locking=False) as file:
        file["features"][0, 0] += np.float16(1)
    assert not filled.lookup(digests_of(*MIXED))[0].any()
    assert filled.damaged == [(path.name, "its checksum or its counts do not match")]


def test_a_format_of_the_future_is_not_guessed_at(filled: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as future:
        future.setattr(segment, "FORMAT", 2)
        name = filled.add(make({"future": 1}))
    filled.refresh()
    assert filled.lookup(digests_of("future", "a.jpg"))[0].tolist() == [False, True]
    assert filled.damaged == [(name, "it has format 2, and this program reads 1")]


@pytest.mark.parametrize("attribute", ["format", "fingerprint", "images", "faces", "checksum"])
def test_every_attribute_counts(filled: FeatureCache, attribute: str) -> None:
    (path,) = segments_of(filled)
    with h5py.File(path, "r+", libver="latest", locking=False) as file:
        value = file.attrs[attribute]
        file.attrs[attribute] = value[:-1] + b"!" if isinstance(value, bytes) else value + 1
    assert not filled.lookup(digests_of(*MIXED))[0].any()
    assert [name for name, _ in filled.damaged] == [path.name]


@pytest.mark.parametrize("dataset", sorted({*COLUMNS} - {"labels"}))
def test_every_dataset_counts(filled: FeatureCache, dataset: str) -> None:
    (path,) = segments_of(filled)
    with h5py.File(path, "r+", libver="latest", locking=False) as file:
        values = file[dataset][()]
        raw = bytearray(values.tobytes())
        raw[0] ^= 1
        file[dataset][...] = np.frombuffer(bytes(raw), values.dtype).reshape(values.shape)
    assert not filled.lookup(digests_of(*MIXED))[0].any()
    assert [name for name, _ in filled.damaged] == [path.name]


# --- damage


def test_a_flipped_bit_gives_the_same_contents_or_is_reported(filled: FeatureCache) -> None:
    cache = again(filled, memory_bytes=0)
    contents = make(MIXED)
    (path,) = segments_of(cache)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    found = 0
    for position in [*range(64), *random.integers(0, len(whole), 500).tolist()]:
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        cache.damaged.clear()
        cache.refresh()
        hit, got = cache.lookup(contents.digest)
        if hit.any():
            assert_same(got, contents)
        else:
            found += 1
            assert [name for name, _ in cache.damaged] == [path.name], position
            assert not path.exists()
            assert path.with_name(path.name + ".damaged").read_bytes() == flipped
    assert found > 100  # much of a file this small is padding, where a flip changes nothing


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:1],
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: bytes(len(data)),
        lambda data: b"not HDF5 " * 1000,
        lambda data: data[:100] + bytes(1000) + data[1100:],
        lambda data: np.random.default_rng(1).bytes(len(data)),
        lambda data: data[:8] + np.random.default_rng(1).bytes(len(data) - 8),
    ],
)
@pytest.mark.parametrize("indexed", [True, False])
def test_damage_is_moved_aside_reported_and_computed_anew(
    filled: FeatureCache, caplog: pytest.LogCaptureFixture, spoil: Any, indexed: bool
) -> None:
    filled.add(make({"whole": 1}))
    filled.refresh()
    path = Path(filled.folder) / str(filled.add(make(MIXED)))
    path.write_bytes(spoil(path.read_bytes()))
    if not indexed:
        (Path(filled.folder) / "index.bin").unlink()
    with caplog.at_level(logging.WARNING):
        cache = again(filled)
        hit, got = cache.lookup(digests_of(*MIXED, "whole"))
    assert hit.tolist() == [False] * 5 + [True]
    assert got.names == ("whole",)
    assert [name for name, _ in cache.damaged] == [path.name]
    assert str(path) in caplog.text
    assert not path.exists()
    assert path.with_name(path.name + ".damaged").exists()
    assert cache.add(make(MIXED)) == path.name
    cache.refresh()
    assert cache.lookup(digests_of(*MIXED))[0].all()
    assert len(cache) == 6


@pytest.mark.parametrize("dataset", sorted({*COLUMNS} - {"labels"}))
def test_a_file_that_lacks_a_part_is_damage(filled: FeatureCache, dataset: str) -> None:
    (path,) = segments_of(filled)
    with h5py.File(path, "r+", libver="latest", locking=False) as file:
        del file[dataset]
    assert not filled.lookup(digests_of(*MIXED))[0].any()
    assert len(filled.damaged) == 1


def test_a_file_that_claims_more_than_it_holds_is_damage(filled: FeatureCache) -> None:
    (path,) = segments_of(filled)
    with h5py.File(path, "r+", libver="latest", locking=False) as file:
        del file["features"]
        file.create_dataset("features", (2**40, 2**10), np.float16, chunks=(64, 64))
    assert not filled.lookup(digests_of(*MIXED))[0].any()
    assert "more than the file holds" in filled.damaged[0][1]


def test_verify_finds_what_no_lookup_touched(filled: FeatureCache) -> None:
    other = Path(filled.folder) / str(filled.add(make({"x": 1, "y": -1})))
    data = bytearray(other.read_bytes())
    data[data.index(b"HDF") + 60] ^= 255
    other.write_bytes(data[:-100])
    seen: list[tuple[int, int]] = []
    report = filled.verify(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert (report.segments, report.images, report.faces) == (1, 5, 6)
    assert (report.labelled, report.no_face, report.rejected) == (3, 1, 1)
    assert [name for name, _ in report.damaged] == [other.name]
    assert report.in_place == ()
    assert filled.verify().damaged == ()
    assert filled.info()["damaged"] == 1


def test_damage_that_cannot_be_moved_is_still_a_miss(filled: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = segments_of(filled)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])

    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", forbidden)
        assert not filled.lookup(digests_of(*MIXED))[0].any()
        filled.refresh()
        assert not filled.lookup(digests_of(*MIXED))[0].any()
        assert len(filled.damaged) == 1
        assert len(filled.verify().damaged) == 1
        assert filled.verify().in_place == (path.name,)
    filled.add(make(MIXED))  # takes its place: it is known to be worthless
    assert path.read_bytes() == whole
    filled.refresh()
    assert filled.lookup(digests_of(*MIXED))[0].all()


def test_a_whole_segment_put_in_place_meanwhile_is_not_moved_aside(
    filled: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = segments_of(filled)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    decode = segments.decoded_segment

    def repaired_while_decoding(data: bytes, fingerprint: str) -> Contents:
        if len(data) < len(whole):  # another run finds the damage first, and computes anew
            path.rename(path.with_name("elsewhere"))
            path.write_bytes(whole)
        return decode(data, fingerprint)

    monkeypatch.setattr(segments, "decoded_segment", repaired_while_decoding)
    assert filled.lookup(digests_of(*MIXED))[0].all()
    assert filled.damaged == []
    assert path.read_bytes() == whole


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ETIMEDOUT, errno.ESTALE])
def test_a_fault_of_storage_is_not_damage(filled: FeatureCache, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (path,) = segments_of(filled)
    opened = open

    def faulty(name: Any, *args: Any, **kwargs: Any) -> Any:
        if str(name).endswith(".h5"):
            raise OSError(number, os.strerror(number), name)
        return opened(name, *args, **kwargs)

    monkeypatch.setattr("builtins.open", faulty)
    with pytest.raises(StorageError, match=f"cannot read {path}: {os.strerror(number)}; "):
        filled.lookup(digests_of("a.jpg"))
    assert filled.damaged == []
    assert path.exists()


def test_a_segment_that_vanished_is_a_miss(filled: FeatureCache) -> None:
    filled.add(make({"kept": 1}))
    cache = again(filled)
    (Path(cache.folder) / str(filled.add(make(MIXED)))).unlink()
    assert cache.lookup(digests_of("a.jpg", "kept"))[0].tolist() == [False, True]
    assert cache.damaged == []
    assert cache.ids.tolist() == ["kept"]


# --- copies in two segments


def test_the_first_segment_wins_and_the_second_is_the_spare(cache: FeatureCache) -> None:
    first, second = make({"x": 1, "same": 1}), make({"y": 1, "same": 1})
    renamed = {"first": dataclasses.replace(first, names=("x", "1st")), "second": second}
    by_file = {cache.add(contents): contents for contents in renamed.values()}
    winner, spare = sorted(map(str, by_file))
    cache.refresh()
    hit, got = cache.lookup(digests_of("same"))
    assert hit.all()
    assert got.names == (by_file[winner].names[1],)
    assert len(cache) == 3
    assert len(cache.ids) == 3
    assert len(cache.features) == 3
    assert again(cache).lookup(digests_of("same"))[1].names == got.names

    path = Path(cache.folder) / winner
    path.write_bytes(path.read_bytes()[:-1])
    fresh = again(cache)
    hit, got = fresh.lookup(digests_of("same"))
    assert hit.all()
    assert got.names == (by_file[spare].names[1],)
    assert len(fresh.damaged) == 1


def test_features_of_two_widths_under_one_fingerprint_are_refused(cache: FeatureCache) -> None:
    cache.add(make({"x": 1}, width=7))
    cache.add(make({"y": 1}, width=8))
    cache.refresh()
    with pytest.raises(FormatError, match="7 and of 8 values"):
        cache.lookup(digests_of("x", "y"))


# --- the index


def index_of(cache: FeatureCache) -> Path:
    return Path(cache.folder) / "index.bin"


def refuse_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*args: object) -> None:
        raise AssertionError(f"a segment was read: {args}")

    monkeypatch.setattr(module, "glimpse", unexpected)
    monkeypatch.setattr(Segments, "read", unexpected)


def test_opening_reads_no_segment_when_the_index_is_current(
    filled: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_read(monkeypatch)
    cache = again(filled)
    assert len(cache) == 5
    assert not cache.lookup(digests_of("new"))[0].any()
    assert cache.info()["images"] == 5


def test_only_new_segments_are_read(filled: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    name = filled.add(make({"new": 2, "a.jpg": 1}))
    glimpse, read = module.glimpse, []
    monkeypatch.setattr(module, "glimpse", lambda path: (read.append(os.path.basename(path)), glimpse(path))[1])
    cache = again(filled)
    assert read == [name]
    assert len(cache) == 6
    built = index_of(cache).read_bytes()
    index_of(cache).unlink()
    assert len(again(cache)) == 6
    assert index_of(cache).read_bytes() == built


def test_a_removed_segment_leaves_the_index(filled: FeatureCache) -> None:
    extra = [Path(filled.folder) / str(filled.add(make({f"{i}": 1, "a.jpg": 1}))) for i in range(4)]
    filled.refresh()
    for path in extra[::2]:
        path.unlink()
    cache = again(filled)
    assert len(cache) == 7
    assert cache.lookup(digests_of("0", "1", "2", "3", "a.jpg"))[0].tolist() == [0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: None,
        lambda data: b"",
        lambda data: data[:63],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"garbage " * 100,
        lambda data: bytes(len(data)),
        *(
            lambda data, at=at: data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
            for at in (0, 9, 41, 50, 60, 64, 200, -9)
        ),
    ],
)
def test_an_index_that_is_missing_or_damaged_is_built_anew(filled: FeatureCache, spoil: Any) -> None:
    filled.add(make({"more": 1}))
    filled.refresh()
    whole = index_of(filled).read_bytes()
    spoiled = spoil(whole)
    index_of(filled).unlink()
    if spoiled is not None:
        index_of(filled).write_bytes(spoiled)
    cache = again(filled)
    assert index_of(cache).read_bytes() == whole
    assert_same(cache.lookup(digests_of(*MIXED))[1], make(MIXED))


def test_an_index_that_lies_gives_a_miss_not_a_wrong_hit(filled: FeatureCache) -> None:
    index = filled._index
    place = index.place[::-1].copy()
    lying = dataclasses.replace(index, place=place)
    index_of(filled).write_bytes(b"".join(bytes(piece) for piece in lying.pieces(filled.fingerprint)))
    cache = again(filled)
    hit, got = cache.lookup(digests_of(*MIXED))
    assert hit.sum() == 1  # the middle one of five stays where it was
    assert [digest_of(name).tobytes() for name in got.names] == [row.tobytes() for row in got.digest]


def test_an_index_of_another_fingerprint_is_not_used(filled: FeatureCache, tmp_path: Path) -> None:
    other = FeatureCache.create(tmp_path / "cache", {**SETTINGS, "revision": 2})
    assert module.read_index(str(index_of(filled)), filled.fingerprint) is not None
    assert module.read_index(str(index_of(filled)), other.fingerprint) is None


def test_the_index_takes_at_most_40_bytes_an_image(cache: FeatureCache) -> None:
    for block in range(4):
        cache.add(make({f"{block}/{i}": 0 for i in range(256)}))
    cache.refresh()
    assert cache.info()["index_bytes"] <= 40 * 1024
    mapped = cache._index
    assert mapped.prefix.base is not None
    assert not mapped.prefix.flags.owndata


def test_an_index_that_cannot_be_written_stays_in_memory(filled: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    index_of(filled).unlink()

    def forbidden(path: str, *_: object, **__: object) -> None:
        raise StorageError(errno.EROFS, f"cannot write {path}: Read-only file system")

    monkeypatch.setattr(module, "publish", forbidden)
    cache = again(filled)
    assert cache.lookup(digests_of(*MIXED))[0].all()
    assert not index_of(cache).exists()


def test_each_of_ten_thousand_images_is_found_at_its_place() -> None:
    index = module.built_index(
        {f"{i:032x}.h5": (np.random.default_rng(i).integers(0, 256, (250, 32), np.uint8), 0) for i in range(40)}
    )
    digests = index.digests_by_place()
    places = index.find(digests, np.zeros(40, bool))
    assert places.tolist() == list(range(10_000))
    assert index.distinct == 10_000


def test_memory_of_warm_segments_is_bounded(cache: FeatureCache) -> None:
    for block in range(6):
        cache.add(make({f"{block}/{i}": 1 for i in range(4)}, width=512))
    size = segments_of(cache)[0].stat().st_size
    small = again(cache, memory_bytes=3 * size)
    asked = digests_of(*(f"{block}/0" for block in range(6)))
    for _ in range(2):
        assert small.lookup(asked)[0].all()
        assert small._segments.warm_bytes <= 3 * size
        assert len(small._segments.warm) <= 3


def test_a_segment_is_let_go_of_when_all_its_images_were_looked_up(
    filled: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = again(filled)
    names = list(cache._index.segments)
    digests = cache._segments.read(names[0])[0].digest  # type: ignore[index]
    cache.lookup(digests[:-1])
    assert list(cache._segments.warm) == names[:1]
    assert cache._segments.warm_bytes > 0
    cache.lookup(digests[-1:])
    assert (list(cache._segments.warm), cache._segments.unasked, cache._segments.warm_bytes) == ([], {}, 0)
    hit, contents = cache.lookup(digests)  # and it is read again for who asks again
    assert hit.all()
    assert np.array_equal(contents.digest, digests)


def test_a_warm_segment_is_not_read_again(filled: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.lookup(digests_of("a.jpg"))
    refuse_to_read(monkeypatch)
    assert filled.lookup(digests_of(*MIXED))[0].all()


def test_threads_do_not_read_each_others_segments(cache: FeatureCache) -> None:
    blocks = [make({f"{block}/{i}": 1 for i in range(20)}) for block in range(8)]
    for contents in blocks:
        cache.add(contents)
    caches = [again(cache, memory_bytes=0) for _ in range(4)]

    def look(number: int) -> None:
        for turn in range(40):
            contents = blocks[(number + turn) % 8]
            assert_same(caches[number % 4].lookup(contents.digest)[1], contents)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(4)))
    assert [reader.damaged for reader in caches] == [[]] * 4


# --- several runs


def add_and_look(root: str, start: Any, answers: Any) -> None:
    cache = FeatureCache.create(root, SETTINGS)
    start.wait()
    for block in range(8):
        cache.add(make({f"{block}/{i}": 1 for i in range(5)}))
    cache.refresh()
    answers.put(int(cache.lookup(digests_of(*(f"{block}/0" for block in range(8))))[0].sum()))


def test_two_writers_of_the_same_segments(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(2), context.Queue()
    workers = [context.Process(target=add_and_look, args=(str(tmp_path), start, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [8, 8]
    assert [worker.exitcode for worker in workers] == [0, 0]
    cache = FeatureCache.open(tmp_path)
    assert len(cache) == 40
    assert len(segments_of(cache)) == 8
    assert cache.verify().damaged == ()
    assert not list(Path(cache.folder).glob("*.tmp"))


_KILLED = """
import os, sys
sys.path.insert(0, os.path.dirname(sys.argv[2]))
from test_formats_cache import SETTINGS, FeatureCache, make
cache = FeatureCache.create(sys.argv[1], SETTINGS)
cache.add(make({"finished": 1}))
os.replace = lambda *paths: os.kill(os.getpid(), 9)
cache.add(make({"in flight": 1}))
"""


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path: Path) -> None:
    root = Path(module.__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), __file__], env=environment, timeout=60)
    assert ended.returncode == -9
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.glob("*.tmp"))) == 1
    reader = FeatureCache.open(tmp_path)
    assert reader.lookup(digests_of("finished", "in flight"))[0].tolist() == [True, False]
    assert reader.info()["leftovers"] == 1
    FeatureCache.create(tmp_path, SETTINGS)  # the next run tidies up
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO])
def test_a_leftover_that_cannot_be_removed_is_no_reason_not_to_read(
    filled: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    left = Path(filled.folder) / f"x.{publishing._place()}-{2**22 + 1}-0.tmp"
    left.write_bytes(b"12345")

    def forbidden(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "unlink", forbidden)
    if number == errno.EIO:
        with pytest.raises(StorageError, match="cannot clean up"):
            FeatureCache.create(tmp_path / "cache", SETTINGS)
    else:
        cache = FeatureCache.create(tmp_path / "cache", SETTINGS)
        assert cache.lookup(digests_of(*MIXED))[0].all()
    assert left.exists()


# --- opening


def test_the_folder_is_named_by_the_fingerprint_and_says_what_it_stands_for(cache: FeatureCache) -> None:
    assert Path(cache.folder).name == hashlib.sha256(canonical_json(SETTINGS).encode()).hexdigest()[:16]
    held = json.loads((Path(cache.folder) / "fingerprint.json").read_text("utf-8"))
    assert held == {"sha256": cache.fingerprint, "settings": SETTINGS}


def test_creating_again_is_the_same_cache(filled: FeatureCache, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(filled.folder).iterdir()}
    reordered = dict(reversed(SETTINGS.items()))
    for fingerprint in (SETTINGS, reordered, canonical_json(SETTINGS)):
        assert len(FeatureCache.create(tmp_path / "cache", fingerprint)) == 5
    assert {path: path.stat().st_mtime_ns for path in Path(filled.folder).iterdir()} == before


def test_a_folder_that_states_other_settings_is_refused(cache: FeatureCache, tmp_path: Path) -> None:
    path = Path(cache.folder) / "fingerprint.json"
    held = json.loads(path.read_text("utf-8"))
    for change in ({"sha256": "0" * 64}, {"settings": {}}):
        path.write_text(json.dumps({**held, **change}), "utf-8")
        with pytest.raises(FormatError, match=r"fingerprint\.json has other settings; give another --cache"):
            FeatureCache.create(tmp_path / "cache", SETTINGS)


def test_a_lost_description_is_written_anew_by_a_run(filled: FeatureCache, tmp_path: Path) -> None:
    path = Path(filled.folder) / "fingerprint.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"fingerprint\.json is damaged; a run with this cache rewrites it"):
        FeatureCache.open(filled.folder)
    assert len(FeatureCache.create(tmp_path / "cache", SETTINGS)) == 5
    assert path.read_bytes() == whole


def test_a_folder_without_its_description_is_told_by_its_segments(filled: FeatureCache, tmp_path: Path) -> None:
    root, folder = tmp_path / "cache", Path(filled.folder)
    assert not has_lost_its_fingerprint(folder)
    (folder / "fingerprint.json").unlink()
    (root / ("0" * 16)).mkdir()  # made by a run at this moment: no segment yet
    (root / "photos").mkdir()
    (root / "photos" / segments_of(filled)[0].name).write_bytes(b"")
    assert has_lost_its_fingerprint(folder)
    assert fingerprint_folders(root) == []
    assert fingerprint_folders(root, lost=True) == [folder.name]
    with pytest.raises(FormatError, match=r"has lost its fingerprint\.json; a run with its settings rewrites it"):
        FeatureCache.open(folder)


def test_a_description_of_another_folder_does_not_damage_segments(filled: FeatureCache, tmp_path: Path) -> None:
    other = FeatureCache.create(tmp_path / "other", {"revision": 2})
    (Path(filled.folder) / "fingerprint.json").write_bytes((Path(other.folder) / "fingerprint.json").read_bytes())
    with pytest.raises(FormatError, match="belongs to"):
        FeatureCache.open(filled.folder)
    assert len(segments_of(filled)) == 1


def test_open_takes_the_cache_or_one_folder_in_it(filled: FeatureCache, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    assert len(FeatureCache.open(root)) == len(FeatureCache.open(str(root) + "/")) == len(again(filled)) == 5
    other = FeatureCache.create(root, {"revision": 2})
    names = sorted(os.path.basename(folder) for folder in (filled.folder, other.folder))
    assert fingerprint_folders(root) == names
    with pytest.raises(FormatError, match=f"holds 2 fingerprints \\({', '.join(names)}\\)"):
        FeatureCache.open(root)
    assert (
        len(FeatureCache.open(root, filled.fingerprint)) == len(FeatureCache.open(root, filled.fingerprint[:16])) == 5
    )
    with pytest.raises(FormatError, match="has fingerprint"):
        FeatureCache.open(filled.folder, other.fingerprint)
    with pytest.raises(FormatError, match="with fingerprint 0000000000000000"):
        FeatureCache.open(root, "0" * 64)


@pytest.mark.parametrize("name", ["", "missing", "file"])
def test_what_is_no_cache_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FormatError, match="has no feature cache; give the --cache folder of a run"):
        FeatureCache.open(tmp_path / name)


def test_object_stores_are_refused() -> None:
    with pytest.raises(FormatError, match="gs://bucket/cache is an object store; give a local --cache"):
        FeatureCache.create("gs://bucket/cache", SETTINGS)


def test_a_cache_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot create"):
        FeatureCache.create(tmp_path / "file", SETTINGS)


# --- in a notebook


def test_the_whole_in_a_line(filled: FeatureCache) -> None:
    filled.add(make({"z.jpg": 1, "y.jpg": 0}))
    cache = again(filled)
    everything = {**MIXED, "z.jpg": 1, "y.jpg": 0}
    expected = make(everything)
    assert len(cache) == len(cache.ids) == len(cache.labels) == 7
    assert dict(zip(cache.ids, cache.labels, strict=True)) == dict(zip(expected.names, expected.labels, strict=True))
    assert cache.features.shape == (7, 7)
    assert cache.features.dtype == np.float16
    got = {(image, row.tobytes()) for image, row in zip(cache.face_ids, cache.features, strict=True)}
    ids = [expected.names[row] for row in expected.face_image]
    assert got == {(image, row.tobytes()) for image, row in zip(ids, expected.features, strict=True)}
    labels = dict(zip(cache.ids, cache.labels, strict=True))
    assert [labels[image] for image in cache.face_ids] == cache.face_labels.tolist()


def test_an_empty_cache_is_empty(cache: FeatureCache) -> None:
    assert len(cache) == len(cache.ids) == len(cache.labels) == len(cache.features) == len(cache.face_ids) == 0
    assert list(cache.batches(10)) == []
    assert list(cache.batches(10, shuffle_seed=1)) == []
    assert cache.info()["images"] == 0
    assert cache.verify().images == 0


@pytest.fixture
def large(cache: FeatureCache) -> FeatureCache:
    for block in range(40):
        cache.add(make({f"{block}/{i}": i % 4 - 1 for i in range(8)}))
    cache.refresh()
    return cache


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("seed", [None, 3])
def test_batches_hold_every_face_once(large: FeatureCache, size: int, seed: int | None) -> None:
    batches = list(large.batches(size, seed))
    assert {len(features) for features, _ in batches[:-1]} <= {size}
    assert len(batches[-1][0]) <= size
    rows = [(row.tobytes(), label) for features, labels in batches for row, label in zip(features, labels, strict=True)]
    expected = [(row.tobytes(), label) for row, label in zip(large.features, large.face_labels, strict=True)]
    assert (rows == expected) if seed is None else (rows != expected and sorted(rows) == sorted(expected))


def test_a_seed_is_an_order(large: FeatureCache) -> None:
    def order(seed: int) -> list[bytes]:
        return [features.tobytes() for features, _ in large.batches(10, shuffle_seed=seed)]

    assert order(1) == order(1) != order(2)


def test_batches_of_what_has_a_label(cache: FeatureCache) -> None:
    contents = dataclasses.replace(make({"a": 1, "b": 1, "c": 2}), labels=("sad", None, "happy"))
    cache.add(contents)
    cache.refresh()
    ((features, labels),) = cache.batches(10, labelled=True)
    assert sorted(labels) == ["happy", "happy", "sad"]
    assert features.shape == (3, 7)
    with pytest.raises(ValueError, match="at least 1 row"):
        next(cache.batches(0))


def test_batches_count_what_waits_once(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces without a label leave nothing to wait, and each piece is counted when it comes, not again at each other."""
    counted = 0

    class Rows(np.ndarray):
        def __len__(self) -> int:
            nonlocal counted
            counted += 1
            return super().__len__()

    def pieces(_seed: int | None) -> Any:
        for number in range(600):
            labels = np.array(["sad" if number % 3 == 0 else None], object)
            yield np.full((1, 4), number, np.float16), labels.view(Rows)

    monkeypatch.setattr(cache, "_pools", pieces)
    got = list(cache.batches(500, labelled=True))
    assert [features[:, 0].tolist() for features, _ in got] == [list(range(0, 600, 3))]
    assert counted < 5 * 600


def test_batches_hold_only_some_segments_at_once(large: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = Segments.read
    monkeypatch.setattr(Segments, "read", lambda self, name: (read.append(name), original(self, name))[1])
    for seed, bound in ((None, 2), (1, 16)):
        read.clear()
        next(large.batches(5, shuffle_seed=seed))
        assert 0 < len(read) <= bound
    assert not large._segments.warm


# --- upkeep


def test_info_can_be_printed_as_json(filled: FeatureCache) -> None:
    info = json.loads(json.dumps(filled.info()))
    (path,) = segments_of(filled)
    assert info["bytes"] == path.stat().st_size
    assert info["settings"] == SETTINGS
    assert (info["images"], info["faces"], info["segments"], info["damaged"], info["leftovers"]) == (5, 6, 1, 0, 0)


def test_prune_removes_damage_and_leftovers_only(filled: FeatureCache, tmp_path: Path) -> None:
    other = FeatureCache.create(tmp_path / "cache", {"revision": 2})
    folder = Path(filled.folder)
    kept = sorted(path.name for path in folder.iterdir())
    unwanted = [folder / ("0" * 32 + ".h5.damaged"), folder / f"x.{publishing._place()}-{2**22 + 1}-0.tmp"]
    for path in unwanted:
        path.write_bytes(b"12345")
    mine = ["notes.txt", "notes.damaged", "holiday.jpg.damaged", "0" * 31 + "g.h5.damaged", "x.h5.damaged"]
    for name in mine:
        (folder / name).write_bytes(b"mine")
    assert filled.info()["damaged"] == 1
    pruned = filled.prune()
    assert pruned.paths == tuple(sorted(map(str, unwanted)))
    assert pruned.size == 10
    assert sorted(path.name for path in folder.iterdir()) == sorted([*kept, *mine])
    assert Path(other.folder).exists()


def test_prune_removes_other_fingerprints_on_request(filled: FeatureCache, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    others = [FeatureCache.create(root, {"revision": number}) for number in range(3)]
    for other in others:
        other.add(make(MIXED))
        other.refresh()
    for name in ("notes.txt", "notes.damaged"):
        (Path(others[1].folder) / name).write_bytes(b"mine")
    (Path(others[2].folder) / "fingerprint.json").unlink()
    (root / "not a fingerprint").mkdir()
    filled.prune(keep=[others[0].fingerprint])
    assert Path(others[0].folder).exists()
    assert not Path(others[2].folder).exists()
    assert sorted(os.listdir(others[1].folder)) == ["notes.damaged", "notes.txt"]
    assert (root / "not a fingerprint").exists()
    filled.prune(keep=())
    assert fingerprint_folders(root) == [os.path.basename(filled.folder)]
    assert again(filled).lookup(digests_of(*MIXED))[0].all()


def test_the_cache_needs_neither_beam_nor_keras_nor_models() -> None:
    code = (
        "import sys, transforms.formats.cache.feature_cache\n"
        "print(sorted({'apache_beam', 'keras', 'tensorflow', 'models', 'pipeline', 'cv2'} & set(sys.modules)))"
    )
    root = Path(module.__file__).parents[3]
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "[]\n", ended.stderr
