"""Object stores: exact ranges, whole objects, conditional writes; failures are retried, then reported in one line."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import buckets
import pytest
from buckets import BUCKET, Bucket

from transforms.formats.publish import StorageError
from transforms.storage import objects
from transforms.storage.faults import FileChanged, InputFault
from transforms.storage.objects import ObjectStore
from transforms.storage.store import exists, is_folder, list_files, list_folder, open_file, read_file

ROOT = f"s3://{BUCKET}"
DATA = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with buckets.bucket_server() as running:
        yield running


@pytest.fixture
def bucket(server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in {**buckets.KEYS, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "REQUEST_S", 2)
    monkeypatch.setattr(objects, "RETRIES", 3)
    objects.forget_clients()
    server.empty()
    yield server
    objects.forget_clients()


@pytest.fixture
def store(bucket: Bucket) -> ObjectStore:
    return ObjectStore(ROOT + "/some/place/")


# --- whole objects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, 17 * 2**20])
def test_a_file_becomes_one_object(store: ObjectStore, bucket: Bucket, tmp_path: Path, size: int) -> None:
    file = tmp_path / "finished"
    file.write_bytes(os.urandom(size))
    store.put("a/b.bin", str(file))
    assert bucket.names() == ["some/place/a/b.bin"]
    found = store.get("a/b.bin")
    assert found is not None and found[0] == file.read_bytes()
    assert store.size("a/b.bin") == size
    assert [(item.name, item.size) for item in store.list()] == [("a/b.bin", size)]
    store.delete(["a/b.bin", "never was"])
    assert bucket.names() == []
    assert store.get("a/b.bin") is None and store.size("a/b.bin") is None


@pytest.mark.parametrize("size", [1000, 17 * 2**20])
def test_an_object_is_sent_with_its_checksum(store: ObjectStore, bucket: Bucket, tmp_path: Path, size: int) -> None:
    sums: list[str | None] = []

    def look(handler: buckets._Handler) -> bool:
        if handler.command == "PUT":
            sums.append(handler.headers.get("x-amz-checksum-sha256"))
        return False

    bucket.faults.append(look)
    (tmp_path / "file").write_bytes(data := os.urandom(size))
    store.put("a", str(tmp_path / "file"))
    assert sums and None not in sums
    if size < 10**6:
        assert sums == [base64.b64encode(hashlib.sha256(data).digest()).decode()]


def test_listing_gives_names_below_the_root(store: ObjectStore, bucket: Bucket) -> None:
    for name in ("some/place/x", "some/place/parts/1", "some/place/parts/2", "some/places/other", "some/pla"):
        bucket.put(name, b"12")
    assert sorted(item.name for item in store.list()) == ["parts/1", "parts/2", "x"]
    assert sorted(item.name for item in store.list("parts")) == ["parts/1", "parts/2"]
    assert list(store.list("part")) == []
    assert {item.size for item in store.list()} == {2}
    assert min(item.modified for item in store.list()) > 1.6e9


def test_many_objects_are_removed_a_thousand_a_request(store: ObjectStore, bucket: Bucket) -> None:
    for number in range(5):
        bucket.put(f"some/place/{number}", b"")
    bucket.forget()
    store.delete([str(number) for number in range(2005)])
    assert bucket.names() == []
    assert bucket.count("POST") == 3


def test_writing_on_a_condition(store: ObjectStore) -> None:
    first = store.put_if_absent("lock", b"one")
    assert first is not None
    assert store.put_if_absent("lock", b"two") is None
    second = store.put_if_same("lock", b"three", first)
    assert second is not None and second != first
    assert store.put_if_same("lock", b"four", first) is None
    assert store.get("lock") == (b"three", second)
    store.delete(["lock"])
    assert store.put_if_same("lock", b"five", second) is None


# --- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start, stop", [(0, 1), (0, 10**6), (5, 5), (250, 300), (10_239, 10_240), (10_240, 10_250)])
def test_a_range_is_fetched_exactly(store: ObjectStore, bucket: Bucket, start: int, stop: int) -> None:
    bucket.put("some/place/a", DATA)
    assert store.read_range("a", start, stop) == DATA[start:stop]
    if stop <= len(DATA):
        assert bucket.sent == stop - start


def test_a_range_of_an_empty_object_is_empty(store: ObjectStore, bucket: Bucket) -> None:
    bucket.put("some/place/a", b"")
    assert store.read_range("a", 0, 10) == b""
    assert read_file(ROOT + "/some/place/a", 10) == b""


def test_a_large_range_comes_in_pieces(store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "RANGE_BYTES", 1000)
    bucket.put("some/place/a", DATA)
    bucket.forget()
    assert store.read_range("a", 10, 5010) == DATA[10:5010]
    assert (bucket.count("GET"), bucket.sent) == (5, 5000)


def test_a_file_of_which_little_is_read(bucket: Bucket) -> None:
    bucket.put("a", DATA)
    bucket.forget()
    with open_file(ROOT + "/a") as file:
        file.seek(100)
        assert file.read(50) == DATA[100:150]
        file.seek(9000)
        assert file.read(10) == DATA[9000:9010]
        assert bucket.sent == 60
        assert (file.seek(0, os.SEEK_END), file.read(5), file.tell()) == (len(DATA), b"", len(DATA))
    assert bucket.requests == [("GET", "/faces/a")] * 2  # the first answer tells the size too


def test_small_steps_do_not_cost_a_request_each(bucket: Bucket) -> None:
    bucket.put("a", DATA)
    bucket.forget()
    with open_file(ROOT + "/a") as file:
        assert b"".join(iter(lambda: file.read(64), b"")) == DATA
    assert bucket.count("GET") < 15
    assert bucket.sent <= len(DATA)


def test_lines_are_read_without_a_request_a_byte(bucket: Bucket) -> None:
    lines = [b"line %d\n" % number for number in range(1000)]
    bucket.put("a.csv", b"".join(lines))
    bucket.forget()
    with open_file(ROOT + "/a.csv") as file:
        assert list(file) == lines
    assert bucket.count("GET") < 5


def test_a_file_read_forward_is_fetched_once_in_large_pieces(bucket: Bucket) -> None:
    data = os.urandom(20 * 2**20)
    bucket.put("a", data)
    bucket.forget()
    with open_file(ROOT + "/a", forward=True) as file:
        assert b"".join(iter(lambda: file.read(256 * 1024), b"")) == data
    assert bucket.sent == len(data)
    assert bucket.count("GET") == 3


def test_an_object_that_is_replaced_is_not_read_on(bucket: Bucket) -> None:
    bucket.put("a", DATA)
    with open_file(ROOT + "/a") as file:
        file.read(10)
        bucket.put("a", DATA[::-1])
        file.seek(5000)
        with pytest.raises(FileChanged, match="s3://faces/a was changed while it was read"):
            file.read(10)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a b.jpg", "in [1]/x*.jpg", "é.jpg", "q?.jpg", "p%41.jpg", "h#1.jpg", "plus+.jpg"])
def test_odd_names_mean_themselves(bucket: Bucket, name: str) -> None:
    bucket.put("in/" + name, name.encode())
    [found] = list_folder(ROOT + "/in")
    assert (found.path, found.size) == (f"{ROOT}/in/{name}", len(name.encode()))
    assert exists(found.path) and not is_folder(found.path)
    assert read_file(found.path, 100) == name.encode()


def test_patterns_and_folders(bucket: Bucket) -> None:
    for name in ("in/a.jpg", "in/b.png", "in/deep/c.jpg", "in/", "input.jpg"):
        bucket.put(name, b"x" if not name.endswith("/") else b"")

    def names(pattern: str) -> list[str]:
        return sorted(found.path.removeprefix(ROOT + "/") for found in list_files(ROOT + pattern))

    assert names("/in/*.jpg") == ["in/a.jpg"]
    assert names("/in/**.jpg") == ["in/a.jpg", "in/deep/c.jpg"]
    assert names("/**") == ["in/a.jpg", "in/b.png", "in/deep/c.jpg", "input.jpg"]
    assert is_folder(ROOT + "/in") and is_folder(ROOT + "/in/") and is_folder(ROOT)
    bucket.put("classes/happy/d.jpg", b"x")
    assert is_folder(ROOT + "/classes")  # a folder may hold folders alone
    assert not is_folder(ROOT + "/in/a.jpg") and not exists(ROOT + "/in/d.jpg")


# --- faults -----------------------------------------------------------------------------------------------------------

HOW: dict[str, Callable[[buckets._Handler], None]] = {
    "500": buckets.server_error,
    "reset": buckets.reset,
    "cut off": buckets.cut_off,
    "stall": buckets.stalled(4),
}


@pytest.mark.parametrize("how", [*HOW])
def test_a_read_that_fails_once_is_tried_again(bucket: Bucket, how: str) -> None:
    bucket.put("a", DATA)
    bucket.faults.append(buckets.failing(1, HOW[how], method="GET"))
    assert read_file(ROOT + "/a", 10**6) == DATA


@pytest.mark.parametrize("how", ["500", "reset"])
def test_a_write_that_fails_once_is_tried_again(store: ObjectStore, bucket: Bucket, tmp_path: Path, how: str) -> None:
    (tmp_path / "file").write_bytes(DATA)
    bucket.faults.append(buckets.failing(1, HOW[how], method="PUT"))
    store.put("a", str(tmp_path / "file"))
    assert bucket.get("some/place/a") == DATA


def test_a_listing_that_fails_once_is_tried_again(store: ObjectStore, bucket: Bucket) -> None:
    bucket.put("some/place/a", b"1")
    bucket.faults.append(buckets.failing(2, buckets.server_error, method="GET"))
    assert [found.name for found in store.list()] == ["a"]


@pytest.mark.parametrize("how", ["500", "reset"])
def test_a_fault_that_stays_is_one_line(store: ObjectStore, bucket: Bucket, tmp_path: Path, how: str) -> None:
    (tmp_path / "file").write_bytes(DATA)
    bucket.put("a", DATA)
    bucket.faults.append(buckets.failing(10**6, HOW[how]))
    with pytest.raises(InputFault, match=r"^s3://faces/a cannot be read: [^\n]*$"):
        read_file(ROOT + "/a", 10)
    with pytest.raises(StorageError, match=r"^s3://faces/some/place/b cannot be written: [^\n]*$"):
        store.put("b", str(tmp_path / "file"))
    bucket.faults.clear()
    assert bucket.names() == ["a"]  # nothing half-written


def test_what_is_missing_or_forbidden_is_told_in_one_line(bucket: Bucket) -> None:
    with pytest.raises(InputFault, match=r"^s3://faces/gone cannot be read: there is no such object$"):
        read_file(ROOT + "/gone", 10)
    with pytest.raises(InputFault, match=r"^s3://nowhere/in cannot be listed: there is no such bucket$"):
        list(list_folder("s3://nowhere/in"))
    bucket.faults.append(buckets.failing(10**6, buckets.refused))
    with pytest.raises(InputFault, match=r"cannot be listed: access is refused; check the keys"):
        list(list_folder(ROOT + "/in"))


def test_without_keys_the_line_says_how_to_give_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="S3 tests need obstore: pip install 'facelabel-pipeline[s3]'")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setattr(objects, "RETRIES", 1)
    objects.forget_clients()
    with pytest.raises(InputFault, match=r"^s3://faces/a cannot be read: there are no keys; set AWS_ACCESS_KEY_ID"):
        read_file(ROOT + "/a", 10)
    objects.forget_clients()


def test_keys_come_from_the_files_of_awss_tools(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_access_key_id = x\naws_secret_access_key = y\n")
    (tmp_path / ".aws" / "config").write_text(f"[default]\nregion = us-east-1\nendpoint_url = {bucket.url}\n")
    bucket.put("a", DATA)
    assert read_file(ROOT + "/a", 9) == DATA[:10]


def test_a_name_that_cannot_be_used_is_one_line(bucket: Bucket) -> None:
    bucket.put("in/a.jpg", b"x")
    bucket.put("in//b.jpg", b"x")
    with pytest.raises(
        InputFault, match=r"^s3://faces/in cannot be listed: the store holds a name that cannot be used"
    ):
        list(list_folder(ROOT + "/in"))
