"""A feature cache in a bucket: what one worker adds the others find, and no worker fetches what it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import buckets
import numpy as np
import pytest
from buckets import BUCKET, Bucket

from transforms import store_cache as module
from transforms.formats.cache.contents import Contents
from transforms.formats.records import FormatError
from transforms.storage import objects
from transforms.store_cache import DIGESTS, cache_of

ROOT = f"s3://{BUCKET}/cache"
KEY = '{"features":"test"}'


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with buckets.bucket_server() as running:
        yield running


@pytest.fixture
def bucket(server: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in {**buckets.KEYS, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    move_to(tmp_path / "this machine", monkeypatch)
    objects.forget_clients()
    server.empty()
    yield server
    objects.forget_clients()


def move_to(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes later caches keep their index there, as on another machine."""
    machine.mkdir(exist_ok=True)
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(machine))


def contents(first: int, count: int = 3) -> Contents:
    """Returns results of images, one face each; equal numbers give equal results."""
    numbers = np.arange(first, first + count)
    digest = np.random.default_rng(1).integers(1, 256, (1000, 32)).astype(np.uint8)[numbers]
    return Contents(
        names=[f"{number}.png" for number in numbers],
        labels=["sad"] * count,
        digest=digest,
        width=np.full(count, 9, np.int32),
        height=np.full(count, 9, np.int32),
        status=np.asarray(["labelled"] * count, object),
        reason=np.asarray([""] * count, object),
        face_image=np.arange(count, dtype=np.int32),
        box=np.tile(np.asarray([[0, 0, 9, 9]], np.int32), (count, 1)),
        score=np.ones(count, np.float32),
        features=numbers[:, None].astype(np.float16) * np.ones((1, 4), np.float16),
    )


def features_of(cache: object, wanted: Contents) -> list[float]:
    hit, found = cache.lookup(wanted.digest)  # type: ignore[attr-defined]
    assert hit.all()
    return [float(row[0]) for row in found.features]


def test_what_one_worker_adds_another_finds(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = cache_of(ROOT, KEY)
    name = one.add(contents(0))
    assert not one.lookup(contents(0).digest)[0].any()  # not before `refresh`
    one.refresh()
    assert features_of(one, contents(0)) == [0, 1, 2]

    move_to(tmp_path / "another machine", monkeypatch)
    other = cache_of(ROOT, KEY)
    assert (len(other), features_of(other, contents(0))) == (3, [0, 1, 2])
    other.add(contents(3))
    one.refresh()
    assert features_of(one, contents(2, 3)) == [2, 3, 4]
    assert one.add(contents(0)) == name  # again: no error, no other object
    folder = f"cache/{one.fingerprint[:16]}"
    names = [found.removeprefix(folder + "/") for found in bucket.names(folder)]
    assert len([found for found in names if found.endswith(".h5")]) == 2
    assert "fingerprint.json" in names and f"{name}{DIGESTS}" in names


def test_a_worker_fetches_only_lists_that_are_new_to_it(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(ROOT, KEY)
    for number in range(6):
        cache.add(contents(3 * number))
    bucket.forget()
    assert len(cache_of(ROOT, KEY)) == 18
    assert bucket.count("GET", DIGESTS) == 6
    cache.add(contents(30))
    bucket.forget()
    assert len(cache_of(ROOT, KEY)) == 21  # the index of before stands on this machine's disk
    assert bucket.count("GET", DIGESTS) == 1
    assert bucket.count("GET", ".h5") == 1  # its list alone


def test_a_published_index_spares_the_lists(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SNAPSHOT_LISTS", 4)
    cache = cache_of(ROOT, KEY)
    for number in range(6):
        cache.add(contents(3 * number))
    cache.refresh()
    published = f"cache/{cache.fingerprint[:16]}/index.bin"
    assert published in bucket.names()
    cache.add(contents(30))
    move_to(tmp_path / "another machine", monkeypatch)
    bucket.forget()
    other = cache_of(ROOT, KEY)
    assert bucket.count("GET", DIGESTS) == 1
    assert features_of(other, contents(5, 4)) == [5, 6, 7, 8]

    bucket.put(published, b"damaged" + bucket.get(published)[7:])
    move_to(tmp_path / "a third machine", monkeypatch)
    assert features_of(cache_of(ROOT, KEY), contents(5, 4)) == [5, 6, 7, 8]


@pytest.mark.parametrize("lost", ["segment damaged", "segment gone", "list gone", "list damaged"])
def test_damage_costs_its_segment_alone(bucket: Bucket, lost: str) -> None:
    cache = cache_of(ROOT, KEY)
    name = cache.add(contents(0))
    cache.add(contents(3))
    path = f"cache/{cache.fingerprint[:16]}/{name}"
    if lost == "segment damaged":
        bucket.put(path, bucket.get(path)[:-1])
    elif lost == "segment gone":
        bucket.client.delete_object(Bucket=BUCKET, Key=path)
    elif lost == "list gone":
        bucket.client.delete_object(Bucket=BUCKET, Key=path + DIGESTS)
    else:
        bucket.put(path + DIGESTS, b"damaged")
    again = cache_of(ROOT, KEY)
    hit, _ = again.lookup(contents(0, 6).digest)
    assert hit.tolist() == [not lost.startswith("segment")] * 3 + [True] * 3
    if lost == "segment damaged":
        assert [found for found, _ in again.damaged] == [name]
        assert path + ".damaged" in bucket.names() and path not in bucket.names()
        again.add(contents(0))
        again.refresh()
        assert features_of(again, contents(0)) == [0, 1, 2]


def test_other_settings_in_the_same_place_are_refused(bucket: Bucket) -> None:
    cache = cache_of(ROOT, KEY)
    bucket.put(f"cache/{cache.fingerprint[:16]}/fingerprint.json", b'{"sha256": "0", "settings": {}}')
    with pytest.raises(FormatError, match="has other settings; give another --cache"):
        cache_of(ROOT, KEY)
