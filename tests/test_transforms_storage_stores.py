"""One contract for all stores, and the lease on top of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import buckets
import pytest
from buckets import BUCKET, Bucket
from google_bucket import google_bucket

from transforms.storage import lease as module
from transforms.storage import objects, stopping
from transforms.storage.lease import Held, lease
from transforms.storage.stores import LocalStore, Store, fetch, store_of, upload


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with buckets.bucket_server() as running:
        yield running


@pytest.fixture(params=["local", "s3", "gs"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    if request.param == "local":
        yield store_of(str(tmp_path / "store"))
        return
    objects.forget_clients()
    if request.param == "gs":
        pytest.importorskip("obstore", reason="tests of object stores need obstore: pip install '.[dev]'")
        with google_bucket() as address:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
            yield store_of("gs://bucket/some/place")
        objects.forget_clients()
        return
    bucket: Bucket = request.getfixturevalue("server")
    for name, value in {**buckets.KEYS, "AWS_ENDPOINT_URL": bucket.url}.items():
        monkeypatch.setenv(name, value)
    bucket.empty()
    yield store_of(f"s3://{BUCKET}/some/place")
    objects.forget_clients()


def test_what_is_put_is_there(store: Store, tmp_path: Path) -> None:
    (tmp_path / "finished").write_bytes(b"0123456789")
    store.put("a/b", str(tmp_path / "finished"))
    store.put_bytes("a/c", b"xy")
    store.put_bytes("a/c", b"z")
    upload(str(tmp_path / "finished"), store.path("d"))
    assert sorted((found.name, found.size) for found in store.list()) == [("a/b", 10), ("a/c", 1), ("d", 10)]
    assert sorted(found.name for found in store.list("a")) == ["a/b", "a/c"]
    assert [found.name for found in store.list("a", after="a/b")] == ["a/c"]
    assert list(store.list("nowhere")) == []
    assert (store.size("a/b"), store.size("nothing")) == (10, None)
    assert store.read_range("a/b", 3, 6) == b"345"
    found = store.get("a/b")
    assert found is not None and found[0] == b"0123456789"
    assert store.get("nothing") is None
    fetch(store, {"a/b": "b", "a/c": "c", "nothing": "d"}, str(tmp_path / "here"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == {"b": b"0123456789", "c": b"z"}
    store.delete(["a/b", "a/c", "d", "nothing"])
    assert list(store.list()) == []


def test_conditions(store: Store) -> None:
    first = store.put_if_absent("x/lock", b"one")
    assert first is not None and store.put_if_absent("x/lock", b"two") is None
    second = store.put_if_same("x/lock", b"three", first)
    assert second is not None
    assert store.put_if_same("x/lock", b"four", first) is None
    assert store.put_if_same("x/other", b"five", first) is None
    assert store.get("x/lock") == (b"three", second)
    assert [found.name for found in store.list()] == ["x/lock"]


# --- the lease --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "RENEWED_S", 0.1)
    monkeypatch.setattr(module, "EXPIRES_S", 2.0)
    yield
    stopping.forget()


def foreign(store: Store) -> bytes:
    """Returns the lease of a run on another machine."""
    return json.dumps({"token": "t", "host": "elsewhere", "pid": 7, "process": "00000000-7"}).encode()


def test_a_lease_is_held_by_one_run(store: Store, quick: None) -> None:
    said: list[str] = []
    with lease(store, "lock.json"):
        with pytest.raises(Held, match=r"process .* on "), lease(store, "lock.json", waiting=said.append):
            pytest.fail("two runs hold it")
        assert "waiting up to 2 s" in said[0]
        time.sleep(0.3)  # renewed meanwhile
    assert store.get("lock.json") is None
    with lease(store, "lock.json", waiting=lambda words: pytest.fail(words)):
        pass


def test_a_lease_that_nobody_renews_is_taken_over(store: Store, quick: None) -> None:
    store.put_bytes("lock.json", foreign(store))
    with lease(store, "lock.json"):
        found = store.get("lock.json")
        assert found is not None and found[0] != foreign(store)


def test_a_lease_of_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    dead = {"token": "t", "process": f"{module.process_name().partition('-')[0]}-{2**22 + 1}"}
    store.put_bytes("lock.json", json.dumps(dead).encode())
    with lease(store, "lock.json", waiting=lambda words: pytest.fail(words)):
        pass


def test_a_run_that_lost_its_lease_stops(tmp_path: Path, quick: None, caplog: pytest.LogCaptureFixture) -> None:
    store = LocalStore(str(tmp_path))
    with lease(store, "lock.json"):
        store.put_bytes("lock.json", foreign(store))
        assert until(stopping.asked)
    assert "was taken over by another run" in caplog.text
    found = store.get("lock.json")
    assert found is not None and found[0] == foreign(store)  # not removed: it is the other's


def test_of_many_that_want_a_lease_one_gets_it(tmp_path: Path, quick: None) -> None:
    store = LocalStore(str(tmp_path))
    got: list[int] = []
    release = threading.Event()

    def take(number: int) -> None:
        try:
            with lease(store, "lock.json"):
                got.append(number)
                release.wait(30)
        except Held:
            refused.append(number)

    refused: list[int] = []
    threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    assert until(lambda: len(refused) == 4)
    release.set()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def until(happens: Callable[[], bool]) -> bool:
    for _ in range(1000):
        if happens():
            return True
        time.sleep(0.01)
    return False
