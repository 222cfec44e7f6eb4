"""Input, output and cache on gs://, against fake-gcs-server: the bytes of a local run, also after a kill."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import clusters
import gcs
import pictures
import pytest
import runs

pytestmark = pytest.mark.cluster
pytest.importorskip("obstore", reason="needs pip install 'facelabel-pipeline[gcs]'")
from transforms.storage import objects  # noqa: E402 - skipped without it

BUCKET = "face-bucket"
IMAGES = 960


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("bench")
    return runs.Bench(place, runs.make_head(place / "head"), (*runs.SMALL, "read.block_images=16"))


@pytest.fixture(scope="module")
def archive(bench: runs.Bench) -> Path:
    return pictures.write_tar(bench.path / "faces.tar", runs.faces(IMAGES))


@pytest.fixture
def store(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[objects.ObjectStore]:
    """The bucket, with the archive in it."""
    with gcs.fake_gcs(BUCKET) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        objects.forget_clients()
        found = objects.ObjectStore(f"gs://{BUCKET}")
        found.put("in/faces.tar", str(archive))
        yield found
    objects.forget_clients()


@pytest.fixture(scope="module")
def here(bench: runs.Bench, archive: Path) -> dict[str, bytes]:
    """Names and bytes of the results of a local run, but for `images/`, which name the source."""
    ended = bench.label(archive, "here").done()
    return {name: (ended.output / name).read_bytes() for name in runs.results(ended.output) if "images/" not in name}


def arguments(bench: runs.Bench) -> list[str]:
    given = bench.arguments(f"gs://{BUCKET}/in/faces.tar", "x")
    given[given.index("--output") + 1] = f"gs://{BUCKET}/out"
    return given


def read(store: objects.ObjectStore, names: dict[str, bytes]) -> dict[str, bytes]:
    found = {name: store.get(f"out/{name}") for name in names}
    return {name: one[0] for name, one in found.items() if one is not None}


def test_conditions_are_those_of_the_real_store(store: objects.ObjectStore) -> None:
    first = store.put_if_absent("lock", b"1")
    assert first is not None
    assert store.put_if_absent("lock", b"2") is None
    second = store.put_if_same("lock", b"3", first)
    assert second is not None
    assert store.put_if_same("lock", b"4", first) is None
    assert store.get("lock") == (b"3", second)


def test_a_large_object_is_sent_in_pieces(store: objects.ObjectStore, tmp_path: Path) -> None:
    data = bytes(range(256)) * (objects.MULTIPART_BYTES // 256 + 1000)
    (tmp_path / "large").write_bytes(data)
    store.put("large", str(tmp_path / "large"))
    assert store.size("large") == len(data)
    assert store.read_range("large", len(data) - 5, len(data)) == data[-5:]


def test_the_same_bytes_as_a_local_run(
    store: objects.ObjectStore, bench: runs.Bench, here: dict[str, bytes], tmp_path: Path
) -> None:
    runs.run(*arguments(bench), output=tmp_path).done()
    assert read(store, here) == here
    left = {found.name.split("/")[1] for found in store.list("out")}
    assert left == {"cache", "images", "predictions", "report.html", "report.json", "run.json", "submission.csv"}


def test_a_killed_run_continues(
    store: objects.ObjectStore, bench: runs.Bench, here: dict[str, bytes], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments(bench)],
        cwd=clusters.ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    clusters.wait_for(lambda: process.poll() is not None or len(list(store.list("out/parts"))) >= 3, "three parts")
    process.kill()
    process.wait(30)
    standing = len(list(store.list("out/parts")))
    print(f"killed at {standing} parts of {IMAGES // 16}; scratch in {tempfile.gettempdir()}")
    runs.run(*arguments(bench), output=tmp_path).done()
    assert read(store, here) == here
