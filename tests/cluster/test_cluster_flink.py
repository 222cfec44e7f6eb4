"""Flink with two task managers: the bytes of a local run, also after a kill; every error in one line.

Start by tests/cluster/run.sh. Workers have another install place, and see neither the checkout nor the driver's files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import buckets
import clusters
import h5py
import labelling
import pytest
import runs

pytestmark = pytest.mark.cluster
KILLS = 5
TOLD_S = 30  # from the start of a worker that cannot work to the line that says so


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clusters.Flink]:
    with clusters.flink(tmp_path_factory.mktemp("flink")) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_left(cluster: clusters.Flink) -> Iterator[None]:
    yield
    cluster.cancel_all()


@pytest.fixture
def flags(tmp_path: Path, disk: Path) -> list[str]:
    return clusters.flags_for(clusters.workers(tmp_path / "workers", disk))


def connected(cluster: clusters.Flink) -> int:
    """Returns how many workers have started so far."""
    names = [name for name in cluster.processes if name.startswith("tm")]
    return sum(cluster.log(name).count("Fn Control client connected") for name in names)


def test_the_same_bytes_as_a_local_run(
    faces: Path, disk: Path, here: dict[str, str], flags: list[str], tmp_path: Path
) -> None:
    began = time.monotonic()
    print(labelling.ended(clusters.driver(labelling.arguments(faces, tmp_path / "out", disk, flags))))
    print(f"plain: {time.monotonic() - began:.0f} s")
    assert runs.results(tmp_path / "out") == here
    assert labelling.leftovers(tmp_path / "out") == []


@pytest.mark.parametrize("attempt", range(KILLS))
def test_a_killed_task_manager_is_survived(
    cluster: clusters.Flink,
    faces: Path,
    disk: Path,
    here: dict[str, str],
    flags: list[str],
    tmp_path: Path,
    attempt: int,
) -> None:
    began = time.monotonic()
    output = tmp_path / "out"
    process = clusters.driver(labelling.arguments(faces, output, disk, flags))
    clusters.wait_for(lambda: labelling.parts(output) >= 3 or process.poll() is not None, "three parts")
    victim = next(name for name in cluster.processes if name.startswith("tm"))
    standing = labelling.parts(output)
    cluster.kill(victim)
    time.sleep(4)
    cluster.start_task_manager(f"tm{time.monotonic_ns()}")
    print(labelling.ended(process))
    assert "from state RUNNING to RESTARTING" in cluster.log("jm")
    record = runs.Ended(0, "", "", output).record
    twice = labelling.computed_twice(labelling.cached(output))
    took = f"{time.monotonic() - began:.0f} s, at {standing} parts"
    print(f"kill {attempt + 1}: {took}, {record['cache']}, {twice} computed twice")
    assert runs.results(output) == here
    assert labelling.leftovers(output) == []


@pytest.fixture
def bucket(faces: Path) -> Iterator[buckets.Bucket]:
    """A store that speaks S3, with the images in four archives."""
    with buckets.bucket_server() as running:
        for path in in_archives(faces, 4, faces.parent / "archives").iterdir():
            running.put(f"in/{path.name}", path.read_bytes())
        yield running


def in_archives(source: Path, count: int, folder: Path) -> Path:
    """Returns a folder with the members of an archive, dealt out to so many."""
    if folder.is_dir():
        return folder
    folder.mkdir()
    with contextlib.ExitStack() as held:
        targets = [held.enter_context(tarfile.open(folder / f"{number}.tar", "w")) for number in range(count)]
        for number, member in enumerate(opened := held.enter_context(tarfile.open(source))):
            targets[number % count].addfile(member, opened.extractfile(member))
    return folder


@pytest.mark.parametrize("killed", [False, True])
def test_input_output_and_cache_on_a_store(
    cluster: clusters.Flink, faces: Path, disk: Path, flags: list[str], bucket: buckets.Bucket, tmp_path: Path,
    killed: bool,
) -> None:  # fmt: skip
    source = in_archives(faces, 4, faces.parent / "archives")
    labelling.ended(clusters.driver(labelling.arguments(source, tmp_path / "here", disk, ["--runner=DirectRunner"])))
    keys = ["--s3_access_key_id=x", "--s3_secret_access_key=y", "--s3_region_name=us-east-1"]
    given = labelling.arguments(source, tmp_path, disk, [*flags, f"--s3_endpoint_url={bucket.url}", *keys])
    given[1], given[3] = f"s3://{buckets.BUCKET}/in", f"s3://{buckets.BUCKET}/out"
    began = time.monotonic()
    process = clusters.driver(given)
    if killed:
        clusters.wait_for(lambda: len(bucket.names("out/parts")) >= 3 or process.poll() is not None, "three parts")
        cluster.kill(next(name for name in cluster.processes if name.startswith("tm")))
        time.sleep(4)
        cluster.start_task_manager(f"tm{time.monotonic_ns()}")
    print(labelling.ended(process))
    stored = {name.removeprefix("out/"): bucket.get(name) for name in bucket.names("out")}
    digests = []
    for name, data in stored.items():
        if name.endswith(".h5"):
            with h5py.File(io.BytesIO(data)) as segment:
                digests.append(segment["digest"][:])
    twice = labelling.computed_twice(digests)
    took = f"{time.monotonic() - began:.0f} s, {len(bucket.requests)} requests, {twice} computed twice"
    print(f"on a store, killed={killed}: {took}")
    here = runs.results(tmp_path / "here")
    kept = {name for name in here if "images/" not in name}  # these name the source
    assert kept
    assert {name: hashlib.sha256(stored[name]).hexdigest() for name in kept} == {name: here[name] for name in kept}


def test_photos_with_several_faces(disk: Path, flags: list[str], tmp_path: Path) -> None:
    source = clusters.data("photos/groups.tar")
    settings = ("read.block_images=8",)
    labelling.ended(
        clusters.driver(labelling.arguments(source, tmp_path / "here", disk, ["--runner=DirectRunner"], *settings))
    )
    began = time.monotonic()
    print(labelling.ended(clusters.driver(labelling.arguments(source, tmp_path / "there", disk, flags, *settings))))
    print(f"groups: {time.monotonic() - began:.0f} s")
    assert runs.results(tmp_path / "there") == runs.results(tmp_path / "here")


def test_workers_without_a_bundled_head_are_named_at_once(faces: Path, disk: Path, tmp_path: Path) -> None:
    chosen = clusters.workers(tmp_path / "workers", disk, without="models/weights/ferplus")
    given = labelling.arguments(faces, tmp_path / "out", disk, clusters.flags_for(chosen))
    given[given.index("--head") + 1] = "bundled/ferplus"
    began = time.monotonic()
    line = labelling.ended(clusters.driver(given), 2)
    print(f"head missing: {time.monotonic() - began:.0f} s: {line}")
    assert "no head: " in line and "ferplus/head.json does not exist" in line


def test_workers_without_this_program_are_named_at_once(
    cluster: clusters.Flink, faces: Path, disk: Path, tmp_path: Path
) -> None:
    chosen = clusters.workers(tmp_path / "workers", disk, empty=True)
    before = connected(cluster)
    began = time.monotonic()
    process = clusters.driver(labelling.arguments(faces, tmp_path / "out", disk, clusters.flags_for(chosen)))
    clusters.wait_for(lambda: connected(cluster) > before or process.poll() is not None, "a worker to start")
    started = time.monotonic()
    line = labelling.ended(process, 3)
    took = time.monotonic() - started
    print(f"package missing: {time.monotonic() - began:.0f} s, {took:.0f} of them since a worker started: {line}")
    assert "cannot import this program (ModuleNotFoundError: No module named " in line
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    assert took < TOLD_S * max(1.0, busy)


def test_ctrl_c_cancels_the_job_and_the_same_command_continues(
    cluster: clusters.Flink, faces: Path, disk: Path, here: dict[str, str], flags: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = clusters.driver(labelling.arguments(faces, output, disk, flags))
    clusters.wait_for(lambda: labelling.parts(output) >= 2 or process.poll() is not None, "two parts")
    second = clusters.driver(labelling.arguments(faces, output, disk, flags))
    assert "another run is using this folder" in labelling.ended(second, 3)
    process.send_signal(signal.SIGINT)
    assert "was cancelled" in labelling.ended(process, 130)
    clusters.wait_for(lambda: not cluster.running(), "the job to end", 60)
    labelling.ended(clusters.driver(labelling.arguments(faces, output, disk, flags)))
    assert runs.results(output) == here
