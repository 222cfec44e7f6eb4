"""Runs over object stores: the bytes of a local run, no more read than the archives hold, and resuming.

S3 here is moto's server on this machine, behind a proxy that counts requests and injects faults (`buckets.py`).
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import buckets
import numpy as np
import pictures
import pyarrow.parquet as pq
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
    assert "s3://faces/in/loose/" in stopped.line and "run the same command to resume" in stopped.line
    bucket.faults.clear()
    gone_on = bench.label(ROOT + "/in", "out", *SETTINGS).done()
    assert gone_on.record["counts"]["rejected"] == 0
    assert runs.results(gone_on.output) == runs.results(fresh.output)


# --- output -----------------------------------------------------------------------------------------------------------

OUT = f"{ROOT}/some/out"


def run_to_bucket(bench: runs.Bench, source: Path | str, *more: str) -> runs.Ended:
    """Runs with results in the bucket and a local cache."""
    given = ("--output", OUT, "--cache", str(bench.path / "cache"))
    return bench.label(source, "ignored", *SETTINGS, *given, *more)


def fetched(bucket: Bucket, folder: Path) -> Path:
    """Copies the results from the bucket into a local folder."""
    for name in bucket.names("some/out/"):
        path = folder / name.removeprefix("some/out/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.get(name))
    return folder


def test_results_in_a_bucket_are_those_of_a_local_run(bench: runs.Bench, bucket: Bucket, collection: Path) -> None:
    local = bench.label(collection, "local", *SETTINGS).done()
    ended = run_to_bucket(bench, collection).done()
    assert f"written: {OUT}/predictions, {OUT}/images, {OUT}/submission.csv, {OUT}/run.json" in ended.out
    far = fetched(bucket, bench.path / "far")
    assert runs.results(far) == runs.results(local.output)
    names = {path.relative_to(far).parts[0] for path in far.rglob("*") if path.is_file()}
    assert names == {"predictions", "images", "submission.csv", "report.html", "report.json", "run.json"}
    record = json.loads((far / "run.json").read_text())
    for part in (*record["parts"], *record["report"]["files"]):
        assert hashlib.sha256((far / part["path"]).read_bytes()).hexdigest() == part["sha256"]
    before = bucket.names()
    assert "nothing has changed" in run_to_bucket(bench, collection).done().out
    assert bucket.names() == before


def test_a_run_into_a_bucket_that_was_stopped_goes_on_by_one_list(
    bench: runs.Bench, bucket: Bucket, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = bench.label(collection, "local", *SETTINGS).done()
    monkeypatch.setattr(objects, "RETRIES", 1)
    objects.forget_clients()
    part = "-0.parquet"
    let_through = buckets.failing(3, lambda handler: handler.forward(), method="PUT", part=part)
    bucket.faults += [let_through, buckets.failing(10**6, buckets.server_error, method="PUT", part=part)]
    stopped = run_to_bucket(bench, collection)
    assert stopped.status == 3
    assert f"{OUT}/parts/" in stopped.line and f"saved in {OUT}" in stopped.line
    assert sum(name.endswith(".parquet") for name in bucket.names("some/out/parts/")) == 3
    assert "some/out/run.json" not in bucket.names() and "some/out/lock.json" not in bucket.names()

    other = run_to_bucket(bench, collection, "read.max_pixels=90000000")
    assert other.status == 2 and f"--output {OUT} holds a run with other settings" in other.line

    bucket.faults.clear()
    bucket.forget()
    gone_on = run_to_bucket(bench, collection).done()
    assert "3 blocks reused from an earlier run" in gone_on.out
    assert runs.results(fetched(bucket, bench.path / "far")) == runs.results(local.output)
    parts = [what for how, what in bucket.requests if how == "GET" and what.endswith(".parquet") and "/parts/" in what]
    assert len(parts) == len(set(parts))  # none is opened before the merge fetches it


def test_a_run_into_a_bucket_that_was_killed_goes_on(
    bench: runs.Bench, bucket: Bucket, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is taken over at once, as it was a process of this machine."""
    local = bench.label(collection, "local", *SETTINGS).done()
    given = ("--output", OUT, "--cache", str(bench.path / "cache"))
    process = runs.start(*bench.arguments(collection, "ignored", *SETTINGS, *given))
    bucket.faults.append(lambda _: time.sleep(0.05) or False)  # so that it does not end before it is killed
    runs.wait_until(lambda: bool(bucket.names("some/out/parts/")), process)
    runs.kill(process)
    bucket.faults.clear()
    assert "some/out/lock.json" in bucket.names() and "some/out/run.json" not in bucket.names()
    for name in bucket.names("some/out/parts/"):
        if name.endswith(".parquet"):
            pq.ParquetFile(io.BytesIO(bucket.get(name)), page_checksum_verification=True).read()
    run_to_bucket(bench, collection).done()
    assert runs.results(fetched(bucket, bench.path / "far")) == runs.results(local.output)


def test_a_damaged_part_in_a_bucket_is_made_again(bench: runs.Bench, bucket: Bucket, collection: Path) -> None:
    local = bench.label(collection, "local", *SETTINGS).done()
    assert run_to_bucket(bench, collection, "--max-rejected", "0.5", "--keep-parts").done()
    victim = bucket.names("some/out/parts/")[0]
    bucket.put(victim, bucket.get(victim)[:-20])
    bucket.client.delete_object(Bucket=BUCKET, Key="some/out/run.json")
    stopped = run_to_bucket(bench, collection)
    assert stopped.status == 3 and "so it was removed, to be computed again" in stopped.line
    assert victim not in bucket.names()
    run_to_bucket(bench, collection).done()
    assert runs.results(fetched(bucket, bench.path / "far")) == runs.results(local.output)


def test_an_output_in_a_bucket_belongs_to_one_run(
    bench: runs.Bench, bucket: Bucket, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.storage.lease.EXPIRES_S", 3.0)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.5):
            bucket.put("some/out/lock.json", json.dumps({"host": "elsewhere", "pid": 7, "at": time.time()}).encode())

    bucket.put("some/out/lock.json", b"{}")
    thread = threading.Thread(target=beat)
    thread.start()
    refused = run_to_bucket(bench, collection, "--quiet")
    stop.set()
    thread.join()
    assert refused.status == 3
    assert f"--output {OUT}: another run is using it (process " in refused.err
    run_to_bucket(bench, collection, "--quiet").done()  # nobody renews it any more
    assert "some/out/lock.json" not in bucket.names()


def test_what_is_not_a_runs_own_stays(bench: runs.Bench, bucket: Bucket, collection: Path) -> None:
    bucket.put("some/out/images/mine.jpg", b"a photo")
    refused = run_to_bucket(bench, collection, "--overwrite")
    assert refused.status == 2 and "images/mine.jpg is where results are written" in refused.line
    bucket.empty()
    bucket.put("some/out/notes.txt", b"mine")
    run_to_bucket(bench, collection).done()
    run_to_bucket(bench, collection, "--overwrite").done()
    assert bucket.get("some/out/notes.txt") == b"mine"


def test_an_input_around_the_output_does_not_hold_its_own_results(
    bench: runs.Bench, bucket: Bucket, collection: Path
) -> None:
    bucket.put("some/a.tar", (collection / "a.tar").read_bytes())
    run_to_bucket(bench, ROOT + "/some").done()
    run_to_bucket(bench, ROOT + "/some", "--overwrite").done()
    record = json.loads(bucket.get("some/out/run.json"))
    assert record["counts"]["images"] == 24
    assert record["skipped_files"]["count"] == 0


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_cache_in_a_bucket_is_as_good_as_a_local_one(
    bench: runs.Bench, bucket: Bucket, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything in the bucket: input, output, cache; then another machine, with nothing but the cache."""
    local = bench.label(collection, "local", *SETTINGS).done()
    upload(bucket, collection, "in")
    far = bench.label(ROOT + "/in", "ignored", *SETTINGS, "--output", OUT).done()
    assert "0 of 96 results from the cache" in far.out
    assert any(name.startswith("some/out/cache/") and name.endswith(".h5") for name in bucket.names())
    cold = fetched(bucket, bench.path / "cold")
    assert runs.predictions(cold) == runs.predictions(local.output)
    assert runs.submission(cold) == runs.submission(local.output)
    assert without_sources(cold) == without_sources(local.output)

    monkeypatch.setattr("transforms.store_cache.tempfile.gettempdir", lambda: str(bench.path))
    warm = bench.label(ROOT + "/in", "warm", *SETTINGS, "--cache", OUT + "/cache").done()
    assert "96 of 96 results from the cache" in warm.out
    assert runs.predictions(warm.output) == runs.predictions(local.output)
    assert runs.submission(warm.output) == runs.submission(local.output)
    dry = bench.label(ROOT + "/in", "dry", *SETTINGS, "--cache", OUT + "/cache", "--dry-run").done()
    assert "100% are already in the cache" in dry.out


def test_two_runs_share_a_cache_in_a_bucket(bench: runs.Bench, bucket: Bucket, collection: Path) -> None:
    cache = ("--cache", ROOT + "/cache")
    one = bench.label(collection / "a.tar", "one", *SETTINGS, *cache).done()
    two = bench.label(collection, "two", *SETTINGS, *cache).done()
    assert one.record["cache"] == {"cached": 0, "computed": 24, "damaged": 0}
    assert two.record["cache"] == {"cached": 24, "computed": 72, "damaged": 0}
    victim = next(name for name in bucket.names("cache/") if name.endswith(".h5"))
    bucket.put(victim, bucket.get(victim)[:-9])
    again = bench.label(collection, "again", *SETTINGS, *cache).done()
    assert again.record["cache"]["damaged"] == 1 and again.record["cache"]["computed"] > 0
    assert runs.results(again.output) == runs.results(two.output)
