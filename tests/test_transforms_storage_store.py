"""Users' files: listed, opened, and named in one line when they cannot be."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from nearby import Nearby
from pictures import write_folder

from transforms.storage import objects, retrying
from transforms.storage.store import (
    FoundFile,
    InputFault,
    Kind,
    escape,
    exists,
    is_folder,
    is_local,
    list_files,
    list_folder,
    open_file,
    read_file,
)

CONTENT = bytes(range(250)) * 800
ODD = ["a[1].jpg", "b*.jpg", "c?.jpg", "d{1,2}.jpg", "e f.jpg", "g\\h.jpg", "[!i].jpg", "j].jpg"]


def names(folder: Path, pattern: str) -> list[str]:
    return sorted(os.path.relpath(file.path, folder) for file in list_files(f"{folder}/{pattern}"))


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
        ("*/", ["c/d.jpg"]),
        ("c/*/", ["c/e/f.jpg"]),
        ("c/?/f.jpg", ["c/e/f.jpg"]),
        ("[a-c]/**/f*", ["c/e/f.jpg"]),
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


@pytest.mark.parametrize(
    "given, entered",
    [
        ("*", {""}),
        ("*/*", {"", "c", "x"}),
        ("c/*", {"c"}),
        ("**", {"", "c", "c/e", "c/e/g", "x"}),
        ("c*/**", {"", "c", "c/e", "c/e/g"}),
        ("c*/e/*", {"", "c", "c/e"}),
        ("[a-c]/e/*", {"", "c", "c/e"}),
        ("c/**/h.jpg", {"c", "c/e", "c/e/g"}),
        ("a.jpg", set()),
        ("nothing.jpg", set()),
    ],
)
def test_patterns_enter_no_folder_that_cannot_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, entered: set[str]
) -> None:
    write_folder(tmp_path, dict.fromkeys(["a.jpg", "c/d.jpg", "c/e/f.jpg", "c/e/g/h.jpg", "x/y.jpg"], b"x"))
    walked, real = set(), os.scandir

    def scandir(path: str) -> Any:
        walked.add(os.path.relpath(path, tmp_path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    names(tmp_path, given)
    assert walked == {name or "." for name in entered}


@pytest.mark.parametrize(
    "given, found",
    [
        ("**/*.jpg", ["c/d.jpg", "c/e/f.jpg"]),
        ("*/*.jpg", ["c/d.jpg"]),
        ("c*/d.jpg", ["c/d.jpg"]),
        ("./*/d.jpg", ["c/d.jpg"]),
        ("**", ["a.jpg", "c/d.jpg", "c/e/f.jpg"]),
        ("[!b]/d.jpg", ["c/d.jpg"]),
    ],
)
def test_relative_patterns_may_begin_with_a_wildcard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, found: list[str]
) -> None:
    write_folder(tmp_path, dict.fromkeys(["a.jpg", "c/d.jpg", "c/e/f.jpg"], b"x"))
    monkeypatch.chdir(tmp_path)
    assert sorted(os.path.normpath(file.path) for file in list_files(given)) == found


def test_what_does_not_match_is_not_even_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"a.jpg": b"x", "b.tmp": b"x"})
    seen, real = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: seen.append(os.path.basename(path)) or real(path, **how))
    assert names(tmp_path, "*.jpg") == ["a.jpg"]
    assert "b.tmp" not in seen


def test_what_is_no_file_says_so(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a/b.jpg": b"12345"})
    (tmp_path / "folder").symlink_to(tmp_path / "a")
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "a" / "b.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "below.jpg").symlink_to(tmp_path / "a" / "b.jpg" / "x")
    os.mkfifo(tmp_path / "pipe")
    found = {os.path.basename(file.path): (file.kind, file.size) for file in list_folder(str(tmp_path))}
    assert found == {
        "b.jpg": (Kind.FILE, 5),
        "linked.jpg": (Kind.FILE, 5),
        "gone.jpg": (Kind.NOT_A_FILE, 0),
        "below.jpg": (Kind.NOT_A_FILE, 0),
        "pipe": (Kind.NOT_A_FILE, 0),
        "folder": (Kind.LINKED_FOLDER, 0),
    }


# --- storage of another kind ------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is `nearby://bucket`."""
    monkeypatch.setattr(Nearby, "base", tmp_path, raising=False)
    return tmp_path / "bucket"


@pytest.mark.parametrize("name", [*ODD, "é.jpg"])
def test_odd_names_mean_themselves_in_a_bucket(bucket: Path, name: str) -> None:
    write_folder(bucket, dict.fromkeys([name, "a1.jpg", "bb.jpg", "cc.jpg"], b"12345"))
    path = f"nearby://bucket/{name}"
    assert exists(path) and not exists(path + "x") and not is_folder(path)
    assert [(file.path, file.size) for file in list_files(escape(path))] == [(path, 5)]
    assert read_file(path, 10) == b"12345"


def test_a_bucket_is_listed_to_its_bottom(bucket: Path) -> None:
    write_folder(bucket, dict.fromkeys(["a.jpg", "c/d.jpg", "c/e/f", "cc/g.jpg"], b"x"))
    assert is_folder("nearby://bucket") and is_folder("nearby://bucket/c/") and not is_folder("nearby://bucket/a")
    found = sorted(file.path.removeprefix("nearby://bucket/") for file in list_folder("nearby://bucket/"))
    assert found == ["a.jpg", "c/d.jpg", "c/e/f", "cc/g.jpg"]
    assert [file.path for file in list_folder("nearby://bucket/cc")] == ["nearby://bucket/cc/g.jpg"]


def test_what_vanished_from_a_bucket_is_named(bucket: Path) -> None:
    write_folder(bucket, {"a.jpg": b"x"})
    with pytest.raises(InputFault, match=r"^nearby://bucket/b\.jpg cannot be opened: .*") as fault:
        open_file("nearby://bucket/b.jpg")
    assert fault.value.errno == errno.ENOENT and "\n" not in str(fault.value)


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


class Failing(io.BytesIO):
    """A file of which reading fails now and then; `faults` of all files like it, the first read's first."""

    faults: ClassVar[list[int]] = []
    opened: ClassVar[int] = 0

    def read(self, size: int | None = -1) -> bytes:
        self._fail()
        return super().read(size)

    def readinto(self, buffer: Any) -> int:
        self._fail()
        return super().readinto(buffer)

    def _fail(self) -> None:
        fault = self.faults.pop(0) if self.faults else 0
        if fault:
            raise OSError(fault, os.strerror(fault))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    """Makes every path a file of 200,000 bytes that fails as its class is reported."""

    def opened(_: str, **__: object) -> Failing:
        Failing.opened += 1
        return Failing(CONTENT)

    monkeypatch.setattr("transforms.storage.store.FileSystems.open", opened)
    monkeypatch.setattr(Failing, "faults", [])
    monkeypatch.setattr(Failing, "opened", 0)
    return Failing


def read_on(path: str) -> bytes:
    with open_file(path) as file:
        return b"".join(iter(lambda: file.read(50_000), b""))


@pytest.mark.parametrize("read", [lambda path: read_file(path, 10**6), read_on])
def test_a_fault_that_stays_is_named(failing: type[Failing], read: Callable[[str], bytes]) -> None:
    failing.faults = [errno.EIO] * 100
    with pytest.raises(InputFault, match=r"^a\.jpg cannot be read: Input/output error") as fault:
        read("a.jpg")
    assert fault.value.errno == errno.EIO
    assert failing.opened == 1 + len(retrying.PAUSES_S)


@pytest.mark.parametrize("read", [lambda path: read_file(path, 10**6), read_on])
@pytest.mark.parametrize("before", range(4))
def test_a_fault_that_passes_changes_nothing(failing: type[Failing], read: Callable[[str], bytes], before: int) -> None:
    failing.faults = [*[0] * before, errno.EIO, errno.ETIMEDOUT]
    assert read("a.jpg") == CONTENT


def test_a_file_that_failed_is_read_on_from_its_place(failing: type[Failing]) -> None:
    with open_file("a.tar") as file:
        for whence, offset in ((io.SEEK_SET, 70_000), (io.SEEK_CUR, 20_000), (io.SEEK_END, -70_000)):
            failing.faults = [errno.ESTALE]
            at = file.seek(offset, whence)
            assert file.read(100_000) == CONTENT[at : at + 100_000]
            assert file.tell() == min(at + 100_000, len(CONTENT))


def test_a_file_that_was_changed_meanwhile_is_not_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(CONTENT)
    real, faults = FileSystems.open, [errno.ESTALE]

    class Once(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            if faults:
                path.write_bytes(CONTENT[:-1])
                raise OSError(faults.pop(), "Stale file handle")
            return super().readinto(buffer) or 0

    with monkeypatch.context() as patch:
        patch.setattr(
            "transforms.storage.store.FileSystems.open", lambda path, **_: Once(path) if faults else real(path)
        )
        with open_file(str(path)) as file, pytest.raises(InputFault, match=r"a\.tar was changed while it was read"):
            file.read()


@pytest.mark.parametrize("times, passes", [(1, True), (3, True), (4, False)])
def test_opening_and_listing_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, passes: bool
) -> None:
    monkeypatch.setattr(Nearby, "base", tmp_path, raising=False)
    write_folder(tmp_path, {"a/b.jpg": b"x"})
    for name, use in (
        ("os.scandir", lambda: list(list_folder(str(tmp_path)))),
        ("os.stat", lambda: list(list_folder(str(tmp_path)))),
        ("transforms.storage.store.FileSystems.match", lambda: list(list_files("nearby://a/**"))),
        ("transforms.storage.store.FileSystems.open", lambda: read_file(f"{tmp_path}/a/b.jpg", 9)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(name, failing_first(times, resolve(name)))
            if passes:
                assert len(use()) == 1
            else:
                with pytest.raises(InputFault, match="Input/output error"):
                    use()


def resolve(name: str) -> Callable[..., Any]:
    """Returns the function that stands under a name."""
    where, _, last = name.rpartition(".")
    return getattr({"os": os}.get(where, FileSystems), last)


def failing_first(times: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, failing so many times before it works."""
    left = [errno.EIO] * times

    def work(*given: Any, **named: Any) -> Any:
        if left:
            raise OSError(left.pop(), "Input/output error")
        return real(*given, **named)

    return work


def test_what_beam_says_of_a_fault_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def match(_: list[str]) -> None:
        raise BeamIOError("Match operation failed", {"a*": FileNotFoundError(errno.ENOENT, "gone")})

    asked = []
    monkeypatch.setattr("transforms.storage.store.FileSystems.match", lambda p: asked.append(p) or match(p))
    with pytest.raises(InputFault, match=r"^nearby://a\* cannot be listed: Match operation failed") as fault:
        list(list_files("nearby://a*"))
    assert (fault.value.errno, len(asked)) == (errno.ENOENT, 1)


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


@pytest.mark.parametrize(
    "ask", [exists, is_folder, open_file, lambda path: read_file(path, 9), lambda path: list(list_files(path))]
)
def test_storage_of_a_kind_that_nobody_knows_is_one_line_at_once(ask: Callable[[str], object]) -> None:
    with pytest.raises(
        InputFault,
        match=r"^strange://b/x.* cannot be .*: strange:// is not a known kind of storage \(known: s3, gs, .*\)$",
    ):
        ask("strange://b/x")


def test_storage_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "obstore.store", None)  # as if it were not installed
        objects.forget_clients()
        with pytest.raises(
            InputFault, match=r"^gs://b/x cannot be looked for: gs:// needs pip install 'facelabel-pipeline\[gcs\]'"
        ):
            exists("gs://b/x")

    def not_installed(*_: object) -> None:
        raise ValueError("Unable to get filesystem from specified path, please use the correct path or ...")

    monkeypatch.setattr(FileSystems, "exists", not_installed)
    with pytest.raises(
        InputFault, match=r"^azfs://b/x cannot be looked for: azfs:// needs pip install 'apache-beam\[azure\]'"
    ):
        exists("azfs://b/x")

    def lacks_a_package(*_: object) -> None:
        raise BeamIOError("Unable to get the Filesystem", {"hdfs://b/x": ImportError("No module named 'hdfs'")})

    monkeypatch.setattr(FileSystems, "exists", lacks_a_package)
    with pytest.raises(
        InputFault, match=r"^hdfs://b/x cannot be .*: hdfs:// needs pip install 'apache-beam\[hadoop\]'"
    ):
        exists("hdfs://b/x")

    def another_fault(*_: object) -> None:
        raise ValueError("no such port")

    monkeypatch.setattr(FileSystems, "exists", another_fault)
    with pytest.raises(ValueError, match="no such port"):
        exists("azfs://b/x")
