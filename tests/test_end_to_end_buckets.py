"""Runs over object stores: the bytes of a local run, no more read than the archives hold, and resuming.

S3 here is moto's server on this machine, behind a proxy that counts requests and injects faults (`buckets.py`).
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import buckets
import numpy as np
import pictures
import pytest
import runs
from buckets import BUCKET, Bucket

from pipeline.run.plan import Layout, make_plan
from transforms.formats.records import Limits
from transforms.storage import objects

ROOT = f"s3://{BUCKET}"
SETTINGS = ("write.no_face_label=neutral", "read.block_images=16")


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with buckets.bucket_server() as running:
        yield running


@pytest.fixture
def bucket(server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in {**buckets.KEYS, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "REQUEST_S", 5)
    objects.forget_clients()
    server.empty()
    yield server
    objects.forget_clients()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_head(tmp_path_factory.mktemp("head"))


@pytest.fixture
def bench(tmp_path: Path, head: Path) -> runs.Bench:
    return runs.Bench(tmp_path, head)


def upload(bucket: Bucket, folder: Path, prefix: str) -> None:
    """Stores all files of a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            bucket.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Images of every kind of input: loose, in a plain tar, a gzipped one, a zip."""
    made = runs.faces(96)
    names = sorted(made)
    parts = [{name: made[name] for name in names[start::4]} for start in range(4)]
    place = tmp_path / "in"
    pictures.write_folder(place / "loose", parts[0])
    pictures.write_tar(place / "a.tar", parts[1])
    pictures.write_tar(place / "b.tar.gz", parts[2])
    pictures.write_zip(place / "c.zip", parts[3])
    return place


def without_sources(output: Path) -> list[dict[str, Any]]:
    return [{**row, "source": None} for row in runs.rows(output / "images")]


def test_images_on_s3_are_labelled_as_those_in_a_folder(bench: runs.Bench, bucket: Bucket, collection: Path) -> None:
    upload(bucket, collection, "in")
    local = bench.label(collection, "local", *SETTINGS).done()
    bucket.forget()
    far = bench.label(ROOT + "/in", "far", *SETTINGS, "--cache", str(bench.path / "other")).done()
    assert far.record["counts"] == local.record["counts"]
    assert far.record["counts"]["images"] == 96
    assert runs.predictions(far.output) == runs.predictions(local.output)
    assert without_sources(far.output) == without_sources(local.output)
    assert runs.submission(far.output) == runs.submission(local.output)
    assert {row["source"].partition("/in/")[0] for row in runs.rows(far.output / "images")} == {ROOT}
    assert "nothing has changed" in bench.label(ROOT + "/in", "far", *SETTINGS).done().out


def test_beams_flags_reach_the_store(
    bench: runs.Bench, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, collection: Path
) -> None:
    """Without --overwrite the flags were once given to nobody."""
    for name in (*buckets.KEYS, "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    objects.forget_clients()
    bucket.put("in/a.tar", (collection / "a.tar").read_bytes())
    flags = (
        f"--s3_endpoint_url={bucket.url}",
        "--s3_access_key_id=x",
        "--s3_secret_access_key=y",
        "--s3_region_name=us-east-1",
    )
    ended = bench.label(ROOT + "/in/a.tar", "out", *SETTINGS, *flags).done()
    assert ended.record["counts"]["images"] == 24
    assert bench.label(ROOT + "/in/a.tar", "dry", *SETTINGS, *flags, "--dry-run").done()


def noise_tar(count: int, size: int) -> bytes:
    """Returns a tar file of images that are rejected at once, as only their bytes matter here."""
    draw = np.random.default_rng(count)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(count):
            member = tarfile.TarInfo(f"{number:06d}.png")
            member.size = size
            tar.addfile(member, io.BytesIO(b"\x89PNG" + draw.bytes(size - 4)))
    return out.getvalue()


@pytest.mark.parametrize("count, size", [(100, 100_000), (2_000, 2_000)])
def test_an_archive_is_read_once_and_planned_without_reading_it(
    bench: runs.Bench, bucket: Bucket, count: int, size: int
) -> None:
    data = noise_tar(count, size)
    bucket.put("in/a.tar", data)
    bucket.forget()
    plan = make_plan([ROOT + "/in/a.tar"], str(bench.path / "plan"), Layout(256, 2**26), Limits())
    assert (plan.streamed, bucket.sent) == (1, 0)
    bucket.forget()
    ended = bench.label(ROOT + "/in/a.tar", "out", SETTINGS[0]).done()
    assert ended.record["counts"]["rejected"] == count
    assert bucket.sent <= 1.01 * len(data)
    assert bucket.count("GET", "/faces/in") <= 2 + len(data) // 2**23


def test_a_zip_is_read_once_beside_its_directory(bench: runs.Bench, bucket: Bucket) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, name in enumerate(sorted(made := runs.faces(600))):
            archive.writestr(name, made[name] + np.random.default_rng(number).bytes(1500))
    data = out.getvalue()
    bucket.put("in/a.zip", data)
    bucket.forget()
    settings = ("read.block_images=128", "write.report=false")  # a page reads its few pictures again
    ended = bench.label(ROOT + "/in/a.zip", "out", *settings).done()
    assert ended.record["counts"]["images"] == 600
    assert bucket.sent <= 1.1 * len(data)


def test_a_store_that_fails_now_and_then_costs_nothing(bench: runs.Bench, bucket: Bucket, collection: Path) -> None:
    upload(bucket, collection, "in")
    calm = bench.label(ROOT + "/in", "calm", *SETTINGS).done()
    asked = [0]

    def every_fifth(handler: Any) -> bool:
        asked[0] += 1
        if asked[0] % 5 or handler.command != "GET":
            return False
        (buckets.server_error, buckets.reset, buckets.cut_off)[asked[0] // 5 % 3](handler)
        return True

    bucket.faults.append(every_fifth)
    shaken = bench.label(ROOT + "/in", "shaken", *SETTINGS, "--cache", str(bench.path / "other")).done()
    assert asked[0] > 30
    assert runs.results(shaken.output) == runs.results(calm.output)


def test_a_store_that_is_gone_stops_the_run_in_one_line_and_it_goes_on(
    bench: runs.Bench, bucket: Bucket, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "RETRIES", 1)
    objects.forget_clients()
    upload(bucket, collection, "in")
    fresh = bench.label(ROOT + "/in", "fresh", *SETTINGS).done()
    bucket.faults.append(buckets.failing(10**6, buckets.server_error, method="GET", part="loose"))
    stopped = bench.label(ROOT + "/in", "out", *SETTINGS)
    assert stopped.status == 3
    assert "s3://faces/in/loose/" in stopped.line and "the same command goes on" in stopped.line
    bucket.faults.clear()
    gone_on = bench.label(ROOT + "/in", "out", *SETTINGS).done()
    assert gone_on.record["counts"]["rejected"] == 0
    assert runs.results(gone_on.output) == runs.results(fresh.output)
