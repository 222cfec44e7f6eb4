"""Users' files: listed, opened, and named in one line when they cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pictures import write_folder

from transforms.storage import (
    FoundFile,
    InputFault,
    escape,
    exists,
    is_folder,
    is_local,
    list_files,
    list_folder,
    open_file,
    read_file,
)

ODD = ["a[1].jpg", "b*.jpg", "c?.jpg", "d{1,2}.jpg", "e f.jpg", "g\\h.jpg", "[!i].jpg", "j].jpg"]


def names(folder: Path, pattern: str) -> list[str]:
    return sorted(os.path.relpath(file.path, folder) for file in list_files(str(folder / pattern)))


@pytest.mark.parametrize(
    "path, local", [("a/b", True), ("/a/b", True), ("gs://a/b", False), ("s3://a", False), ("c:a", True)]
)
def test_local_and_remote_paths(path: str, local: bool) -> None:
    assert is_local(path) == local


@pytest.mark.parametrize(
    "pattern, found",
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("?.jpg", ["a.jpg", "b.jpg"]),
        ("[a]*", ["a.jpg"]),
        ("**", ["a.jpg", "b.jpg", "c/d.jpg", "c/e/f.jpg"]),
        ("**.jpg", ["a.jpg", "b.jpg", "c/d.jpg", "c/e/f.jpg"]),
        ("c/*", ["c/d.jpg"]),
        ("*/d.jpg", ["c/d.jpg"]),
        ("a.jpg", ["a.jpg"]),
        ("q*", []),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, found: list[str]) -> None:
    write_folder(tmp_path, dict.fromkeys(["a.jpg", "b.jpg", "c/d.jpg", "c/e/f.jpg"], b"x"))
    assert names(tmp_path, pattern) == found


def test_a_pattern_without_a_folder_looks_into_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"a.jpg": b"x", "b.png": b"x"})
    monkeypatch.chdir(tmp_path)
    assert [os.path.normpath(file.path) for file in list_files("*.jpg")] == ["a.jpg"]


def test_what_is_found_has_size_and_time(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.jpg": b"12345"})
    os.utime(tmp_path / "a.jpg", (1234.5, 1234.5))
    path = str(tmp_path / "a.jpg")
    assert list(list_files(str(tmp_path / "*"))) == [FoundFile(path, 5, 1234.5)]
    assert list(list_folder(str(tmp_path))) == [FoundFile(path, 5, 1234.5)]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_of_files_mean_themselves(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, dict.fromkeys([*ODD, "a1.jpg", "bb.jpg", "cc.jpg"], b"x"))
    path = str(tmp_path / name)
    assert exists(path)
    assert not exists(path + "x")
    assert not is_folder(path)
    assert [file.path for file in list_files(escape(path))] == [path]
    assert read_file(path, 10) == b"x"


@pytest.mark.parametrize("name", ["in [1]", "in*", "in?"])
def test_odd_names_of_folders_mean_themselves(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, {f"{name}/a.jpg": b"x", "in 1/b.jpg": b"x", "inn/c.jpg": b"x"})
    assert is_folder(str(tmp_path / name))
    assert [file.path for file in list_folder(str(tmp_path / name))] == [str(tmp_path / name / "a.jpg")]
    assert [file.path for file in list_files(escape(str(tmp_path / name)) + "/*.jpg")] == [
        str(tmp_path / name / "a.jpg")
    ]


def test_a_folder_is_listed_to_its_bottom(tmp_path: Path) -> None:
    write_folder(tmp_path, dict.fromkeys(["a.jpg", ".b.jpg", "c/d.jpg", "c/e/f"], b"x"))
    found = sorted(os.path.relpath(file.path, tmp_path) for file in list_folder(str(tmp_path)))
    assert found == [".b.jpg", "a.jpg", "c/d.jpg", "c/e/f"]


def test_a_vanished_file_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "gone.jpg")
    for read in (open_file, lambda p: read_file(p, 10)):
        with pytest.raises(InputFault, match=r"gone\.jpg cannot be opened: .*No such file") as fault:
            read(path)
        assert "\n" not in str(fault.value)


def test_a_folder_in_place_of_a_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match=str(tmp_path)):
        read_file(str(tmp_path), 10)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_fault(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.jpg": b"x"})
    (tmp_path / "a.jpg").chmod(0)
    with pytest.raises(InputFault, match=r"a\.jpg cannot be opened: .*Permission denied"):
        read_file(str(tmp_path / "a.jpg"), 10)


def test_a_storage_fault_while_reading_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self, _: int) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("transforms.storage.open_file", lambda _: Broken())
    with pytest.raises(InputFault, match=r"a\.jpg cannot be read: .*Input/output error"):
        read_file("a.jpg", 10)


@pytest.mark.parametrize("limit, length", [(3, 4), (4, 5), (5, 5), (100, 5)])
def test_reading_stops_right_behind_the_limit(tmp_path: Path, limit: int, length: int) -> None:
    write_folder(tmp_path, {"a.jpg": b"12345"})
    assert len(read_file(str(tmp_path / "a.jpg"), limit)) == length


def test_an_opened_file_can_be_sought_and_is_not_unpacked(tmp_path: Path) -> None:
    import gzip

    packed = gzip.compress(b"hello", mtime=0)
    write_folder(tmp_path, {"a.gz": packed})
    with open_file(str(tmp_path / "a.gz")) as file:
        assert file.read() == packed
        file.seek(0)
        assert file.read(2) == b"\x1f\x8b"


def test_names_that_are_no_text_are_listed_and_read(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff.jpg", "wb") as file:
        file.write(b"x")
    (found,) = list_folder(str(tmp_path))
    assert os.fsencode(found.path).endswith(b"/\xff.jpg")
    assert read_file(found.path, 10) == b"x"
