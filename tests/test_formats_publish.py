from __future__ import annotations

import errno
import io
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from transforms.formats import publish as module
from transforms.formats.publish import StorageError, is_temporary, publish, publish_file, remove_leftovers

_WRITER = """
import sys, time
from transforms.formats.publish import publish
def write(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
publish(sys.argv[1], write)
"""


def write_hello(file: io.BufferedIOBase) -> None:
    file.write(b"hello")


def start_writer(path: Path) -> subprocess.Popen[str]:
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    return writer


def kill(writer: subprocess.Popen[str]) -> None:
    writer.kill()
    writer.communicate()


def test_a_published_file_stands_alone(tmp_path: Path) -> None:
    publish(str(tmp_path / "out.bin"), write_hello, sync_folder=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out.bin": b"hello"}


def test_a_bare_name_is_published_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    publish("out.bin", write_hello, sync_folder=True)
    assert os.listdir() == ["out.bin"]


def test_permissions_follow_the_umask_and_are_not_private(tmp_path: Path) -> None:
    publish(str(tmp_path / "out.bin"), write_hello)
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "out.bin").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_until_it_is_whole_the_old_file_stands(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with publish_file(str(path)) as temporary:
        Path(temporary).write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert Path(temporary).parent == tmp_path
        assert temporary.endswith(".tmp")
        assert is_temporary(temporary)
    assert path.read_bytes() == b"new"


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("replace"), replace(*paths)))
    publish(str(tmp_path / "a"), write_hello)
    publish(str(tmp_path / "b"), write_hello, sync_folder=True)
    assert events == ["fsync", "replace", "fsync", "replace", "fsync"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failing_writer_leaves_nothing_and_keeps_the_old(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")

    def write(file: io.BufferedIOBase) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        publish(str(path), write)
    assert os.listdir(tmp_path) == ["out.bin"]
    assert path.read_bytes() == b"old"


def test_threads_that_publish_the_same_name_do_not_meet(tmp_path: Path) -> None:
    path = str(tmp_path / "out.bin")
    contents = [bytes([number]) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=publish, args=(path, lambda file, c=c: file.write(c))) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.listdir(tmp_path) == ["out.bin"]
    assert Path(path).read_bytes() in contents


def test_two_temporaries_of_one_name_differ(tmp_path: Path) -> None:
    path = str(tmp_path / "out.bin")
    with publish_file(path) as one, publish_file(path) as two:
        Path(one).write_bytes(b"one")
        Path(two).write_bytes(b"two")
    assert Path(path).read_bytes() == b"one"  # the outer one ended last


@pytest.mark.parametrize("name", ["ä 顔.bin", "x" * 255, "顔" * 85, "with\nnewline"])
def test_any_name_the_file_system_allows(tmp_path: Path, name: str) -> None:
    publish(str(tmp_path / name), write_hello)
    assert os.listdir(tmp_path) == [name]


# --- faults of storage


def test_a_missing_folder_is_one_line_with_path_and_cure(tmp_path: Path) -> None:
    path = str(tmp_path / "no" / "out.bin")
    with pytest.raises(StorageError) as caught:
        publish(path, write_hello)
    assert str(caught.value) == f"cannot write {path}: No such file or directory; create its folder first"
    assert caught.value.errno == errno.ENOENT
    assert isinstance(caught.value, OSError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.errno) == (str(caught.value), errno.ENOENT)


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "free space there or choose another folder"),
        (errno.EDQUOT, "raise the quota or choose another folder"),
        (errno.EACCES, "get permission for it or choose another folder"),
        (errno.EROFS, "choose a writable folder"),
        (errno.EIO, "check that storage, then run the same command again"),
    ],
)
@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_each_fault_at_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cure: str, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    if step != "write":
        monkeypatch.setattr(os, step, fail)
    path = str(tmp_path / "out.bin")
    with pytest.raises(StorageError) as caught:
        publish(path, fail if step == "write" else write_hello)
    assert str(caught.value) == f"cannot write {path}: {os.strerror(number)}; {cure}"
    assert caught.value.errno == number
    assert os.listdir(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True, timeout=10)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    path = str(small_disk / "out.bin")
    publish(path, write_hello)
    with pytest.raises(StorageError, match="No space left on device; free space there") as caught:
        publish(path, lambda file: file.write(bytes(2**20)))
    assert caught.value.errno == errno.ENOSPC
    assert {entry.name: entry.read_bytes() for entry in small_disk.iterdir()} == {"out.bin": b"hello"}


def test_a_fault_of_another_file_keeps_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="input") as caught:
        publish(str(tmp_path / "out.bin"), lambda file: file.write((tmp_path / "input").read_bytes()))
    assert not isinstance(caught.value, StorageError)
    assert os.listdir(tmp_path) == []


# --- object stores


def test_a_remote_path_gets_a_whole_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    seen: list[tuple[bytes, str]] = []
    publish(
        "gs://b/f/out.h5", write_hello, upload=lambda local, remote: seen.append((Path(local).read_bytes(), remote))
    )
    assert seen == [(b"hello", "gs://b/f/out.h5")]
    assert os.listdir(tmp_path) == []


def test_a_failed_upload_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))

    def upload(local: str, remote: str) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    with pytest.raises(StorageError, match=r"^cannot write gs://b/out\.h5: Connection timed out; check that storage"):
        publish("gs://b/out.h5", write_hello, upload=upload)
    assert os.listdir(tmp_path) == []


def test_a_failed_writer_uploads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    uploads: list[str] = []
    with pytest.raises(ValueError, match="no"), publish_file("s3://b/x", upload=lambda *paths: uploads.extend(paths)):
        raise ValueError("no")
    assert uploads == []
    assert os.listdir(tmp_path) == []


def test_a_remote_path_without_an_upload_is_refused() -> None:
    with pytest.raises(ValueError, match="gs://b/x is not local"):
        publish("gs://b/x", write_hello)


# --- leftovers


def test_a_killed_writer_leaves_only_a_temporary_which_is_found(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    writer = start_writer(path)
    try:
        (left,) = os.listdir(tmp_path)
        assert remove_leftovers(str(tmp_path)) == []
        assert os.listdir(tmp_path) == [left]
    finally:
        kill(writer)
    assert not path.exists()
    assert left.startswith("out.bin.")
    assert left.endswith(".tmp")
    assert remove_leftovers(str(tmp_path)) == [left]
    assert os.listdir(tmp_path) == []


def test_own_leftovers_of_an_earlier_life_go_but_what_is_in_flight_stays(tmp_path: Path) -> None:
    earlier = f"a.{module._place()}-{os.getpid()}-999999.tmp"
    (tmp_path / earlier).write_bytes(b"")
    with publish_file(str(tmp_path / "out.bin")) as temporary:
        Path(temporary).write_bytes(b"hello")
        assert remove_leftovers(str(tmp_path)) == [earlier]
    assert os.listdir(tmp_path) == ["out.bin"]


def test_other_machines_leftovers_go_after_a_day(tmp_path: Path) -> None:
    young, old = tmp_path / "a.00000000-1-0.tmp", tmp_path / "b.00000000-1-0.tmp"
    for path in (young, old):
        path.write_bytes(b"")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    assert remove_leftovers(str(tmp_path)) == [old.name]
    assert os.listdir(tmp_path) == [young.name]


def test_machines_of_one_name_are_told_apart_by_their_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = set()
    for boot in ("one", "two", "two", "missing"):
        if boot != "missing":
            (tmp_path / boot).write_text(boot + "\n")
        monkeypatch.setattr(module, "_BOOT_ID", str(tmp_path / boot))
        places.add(module._place.__wrapped__())
    assert len(places) == 3
    assert all(is_temporary(f"a.{place}-1-0.tmp") for place in places)


def test_files_of_others_stay(tmp_path: Path) -> None:
    names = ["notes.tmp", "out.bin", "x.123.tmp", "y.0000-1-0.tmp", ".tmp"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert remove_leftovers(str(tmp_path)) == []
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_a_missing_folder_has_no_leftovers(tmp_path: Path) -> None:
    assert remove_leftovers(str(tmp_path / "no")) == []


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot clean up .*file: Not a directory"):
        remove_leftovers(str(tmp_path / "file"))
