"""Reading inputs a second time: digests of all images, pictures of a few."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pictures
import pytest

from pipeline.run.plan import Layout, make_plan
from transforms import read_again
from transforms.formats.records import Limits
from transforms.read_again import BACKGROUND, Faults, face_tile, read_digests, read_pictures, read_what_is_left

LIMITS = Limits()
FILES = pictures.good_files(7)


def lines(tmp_path: Path, *inputs: Path) -> list[bytes]:
    plan = make_plan([str(path) for path in inputs], str(tmp_path / "plan"), Layout(3, 2**20), LIMITS)
    return [line for _, line in plan.lines()]


def folder(tmp_path: Path) -> tuple[Path, str]:
    return pictures.write_folder(tmp_path / "in", FILES), ""


def archive(write: Callable[..., Path], name: str) -> Callable[[Path], tuple[Path, str]]:
    return lambda tmp_path: (write(tmp_path / name, FILES), f"{name}/")


INPUTS = [
    folder,
    archive(pictures.write_tar, "in.tar"),
    archive(pictures.write_tar, "in.tar.gz"),
    archive(pictures.write_zip, "in.zip"),
    archive(pictures.write_tfrecord, "in.tfrecord"),
    archive(pictures.write_parquet, "in.parquet"),
]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("source", INPUTS)
def test_digests_of_all_images(tmp_path: Path, source) -> None:
    path, _ = source(tmp_path)
    found = [value.hex() for value in read_digests(lines(tmp_path, path), LIMITS)]
    assert sorted(found) == sorted(map(digest, FILES.values()))


@pytest.mark.parametrize("source", INPUTS)
def test_pictures_of_a_few(tmp_path: Path, source) -> None:
    path, prefix = source(tmp_path)
    chosen = ["sad/0001.png", "happy/0006.png"]
    wanted = {prefix + name: digest(FILES[name]) for name in chosen}
    found = dict(read_pictures(lines(tmp_path, path), wanted, LIMITS))
    assert found == {prefix + name: FILES[name] for name in chosen}


def test_a_picture_that_is_no_longer_what_it_was_is_not_given(tmp_path: Path) -> None:
    path, _ = folder(tmp_path)
    wanted = {"sad/0001.png": digest(b"something else"), "nowhere.png": digest(b"")}
    assert list(read_pictures(lines(tmp_path, path), wanted, LIMITS)) == []


def test_only_what_may_be_wanted_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pictures.write_tar(tmp_path / "in.tar", FILES)
    read = []
    plain = read_again.read_block
    monkeypatch.setattr(read_again, "read_block", lambda p, limits: read.append(len(p.entries)) or plain(p, limits))
    wanted = {"in.tar/happy/0000.png": digest(FILES["happy/0000.png"])}
    assert len(list(read_pictures(lines(tmp_path, path), wanted, LIMITS))) == 1
    assert read == [1]  # of a block of three


def test_an_image_without_bytes_has_no_digest(tmp_path: Path) -> None:
    path = pictures.write_folder(tmp_path / "in", FILES)
    small = Limits(max_image_bytes=10)
    assert list(read_digests(lines(tmp_path, path), small)) == []


# --- tiles


def box(*values: int) -> np.ndarray:
    return np.asarray(values, np.int32)


def test_a_whole_square_image_fills_its_tile() -> None:
    tile = face_tile(pictures.png(pictures.plain(20, 20)), box(0, 0, 20, 20), 64, LIMITS)
    assert tile is not None
    assert tile.dtype == np.uint8
    assert (tile == pictures.plain(64, 64)).all()


def test_a_whole_image_keeps_its_aspect() -> None:
    tile = face_tile(pictures.png(pictures.plain(10, 40)), box(0, 0, 40, 10), 64, LIMITS)
    assert tile is not None
    assert (tile[24:40] == pictures.RED).all()
    assert (tile[:24] == BACKGROUND).all()
    assert (tile[40:] == BACKGROUND).all()


def test_a_face_is_cut_with_a_little_around_it() -> None:
    image = pictures.plain(100, 100)
    image[30:70, 30:70] = pictures.GREEN
    tile = face_tile(pictures.png(image), box(30, 30, 40, 40), 52, LIMITS)  # 40 and 15 % on each side
    assert tile is not None
    assert (tile[6:46, 6:46] == pictures.GREEN).all()
    assert (tile[:6] == pictures.RED).all()


@pytest.mark.parametrize("name", ["empty.jpg", "text.jpg", "cut.png", "huge.png"])
def test_what_cannot_be_decoded_has_no_tile(name: str) -> None:
    assert face_tile(pictures.nasty_files()[name][0], box(0, 0, 9, 9), 32, LIMITS) is None


def test_a_file_that_is_gone_costs_no_other(tmp_path: Path) -> None:
    path, _ = folder(tmp_path)
    planned = lines(tmp_path, path)
    gone = ["happy/0000.png", "sad/0001.png"]
    for name in gone:
        (path / name).unlink()
    faults = Faults()
    wanted = {name: digest(data) for name, data in FILES.items()}
    found = dict(read_what_is_left(planned, wanted, LIMITS, faults, most_faults=9))
    assert found == {name: data for name, data in FILES.items() if name not in gone}
    assert faults.count == 2 and gone[0] in faults.first


def test_storage_that_is_gone_is_given_up(tmp_path: Path) -> None:
    path, _ = folder(tmp_path)
    planned = lines(tmp_path, path)
    for name in FILES:
        (path / name).unlink()
    faults = Faults()
    assert not list(
        read_what_is_left(planned, {name: digest(data) for name, data in FILES.items()}, LIMITS, faults, most_faults=3)
    )
    assert faults.count == 3


@pytest.mark.parametrize("source", INPUTS)
def test_what_is_left_is_all_where_nothing_is_gone(tmp_path: Path, source) -> None:
    path, prefix = source(tmp_path)
    wanted, faults = {prefix + name: digest(data) for name, data in FILES.items()}, Faults()
    assert len(dict(read_what_is_left(lines(tmp_path, path), wanted, LIMITS, faults, most_faults=1))) == len(FILES)
    assert faults == Faults()
