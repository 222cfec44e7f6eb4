"""Flink with two task managers: the bytes of a local run, also after a kill; every error in one line.

Start by tests/cluster/run.sh. Workers have another install place, and see neither the checkout nor the driver's files.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import clusters
import h5py
import numpy as np
import pytest
import runs

pytestmark = pytest.mark.cluster
IMAGES = 512
KILLS = 5
TOLD_S = 30  # from the start of a worker that cannot work to the line that says so
SETTINGS = ("faces.detector=none", "read.block_images=32")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clusters.Flink]:
    with clusters.flink(tmp_path_factory.mktemp("flink")) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_left(cluster: clusters.Flink) -> Iterator[None]:
    yield
    cluster.cancel_all()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that only the driver sees: the head of the runs is there."""
    place = tmp_path_factory.mktemp("driver")
    shutil.copytree(clusters.ROOT / "models" / "weights" / "fer2013", place / "my_head")
    return place


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first images of FER2013's test set, on the shared disk."""
    path = tmp_path_factory.mktemp("input") / "faces.tar"
    with tarfile.open(clusters.data("fer2013/test.tar")) as source, tarfile.open(path, "w") as target:
        for number, member in enumerate(source):
            if number >= IMAGES:
                break
            target.addfile(member, source.extractfile(member))
    return path


@pytest.fixture(scope="module")
def here(faces: Path, disk: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Results of a local run."""
    output = tmp_path_factory.mktemp("here")
    ended(clusters.driver(arguments(faces, output, disk, ["--runner=DirectRunner"])))
    return runs.results(output)


@pytest.fixture
def flags(tmp_path: Path, disk: Path) -> list[str]:
    return clusters.flags_for(clusters.workers(tmp_path / "workers", disk))


def arguments(source: Path, output: Path, disk: Path, flags: list[str], *settings: str) -> list[str]:
    head = ["--head", str(disk / "my_head")]
    given = ["--set", *(settings or SETTINGS), "write.keep_parts=true"]
    return ["--input", str(source), "--output", str(output), *head, *given, *flags]


def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    """Waits for a driver and returns its last line on stderr, or what it printed."""
    out, err = process.communicate(timeout=clusters.PATIENCE_S)
    assert process.returncode == status, err[-3000:]
    return out if status == 0 else err.strip().splitlines()[-1]


def parts(output: Path) -> int:
    return len(list((output / "parts").glob("*.parquet"))) if (output / "parts").is_dir() else 0


def cached(output: Path) -> list[np.ndarray]:
    """Returns the digests of each segment of the cache."""
    found = []
    for path in runs.segments(output / "cache"):
        with h5py.File(path) as segment:
            found.append(segment["digest"][:])
    return found


def connected(cluster: clusters.Flink) -> int:
    """Returns how many workers have started so far."""
    names = [name for name in cluster.processes if name.startswith("tm")]
    return sum(cluster.log(name).count("Fn Control client connected") for name in names)


def leftovers(output: Path) -> list[str]:
    signs = ("*.tmp", "*.damaged", ".merging*", "*.unfinished")
    return [str(path) for sign in signs for path in output.rglob(sign)]


def test_the_same_bytes_as_a_local_run(
    faces: Path, disk: Path, here: dict[str, str], flags: list[str], tmp_path: Path
) -> None:
    began = time.monotonic()
    print(ended(clusters.driver(arguments(faces, tmp_path / "out", disk, flags))))
    print(f"plain: {time.monotonic() - began:.0f} s")
    assert runs.results(tmp_path / "out") == here
    assert leftovers(tmp_path / "out") == []


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
    process = clusters.driver(arguments(faces, output, disk, flags))
    clusters.wait_for(lambda: parts(output) >= 3 or process.poll() is not None, "three parts")
    victim = next(name for name in cluster.processes if name.startswith("tm"))
    standing = parts(output)
    cluster.kill(victim)
    time.sleep(4)
    cluster.start_task_manager(f"tm{time.monotonic_ns()}")
    print(ended(process))
    assert "from state RUNNING to RESTARTING" in cluster.log("jm")
    record = runs.Ended(0, "", "", output).record
    twice = sum(len(rows) for rows in cached(output)) - len(np.unique(np.concatenate(cached(output)), axis=0))
    print(
        f"kill {attempt + 1}: {time.monotonic() - began:.0f} s, at {standing} parts, {record['cache']}, "
        f"{twice} computed twice"
    )
    assert runs.results(output) == here
    assert leftovers(output) == []


def test_photos_with_several_faces(disk: Path, flags: list[str], tmp_path: Path) -> None:
    source = clusters.data("photos/groups.tar")
    settings = ("read.block_images=8",)
    ended(clusters.driver(arguments(source, tmp_path / "here", disk, ["--runner=DirectRunner"], *settings)))
    began = time.monotonic()
    print(ended(clusters.driver(arguments(source, tmp_path / "there", disk, flags, *settings))))
    print(f"groups: {time.monotonic() - began:.0f} s")
    assert runs.results(tmp_path / "there") == runs.results(tmp_path / "here")


def test_workers_without_a_bundled_head_are_named_at_once(faces: Path, disk: Path, tmp_path: Path) -> None:
    chosen = clusters.workers(tmp_path / "workers", disk, without="models/weights/ferplus")
    given = arguments(faces, tmp_path / "out", disk, clusters.flags_for(chosen))
    given[given.index("--head") + 1] = "bundled/ferplus"
    began = time.monotonic()
    line = ended(clusters.driver(given), 2)
    print(f"head missing: {time.monotonic() - began:.0f} s: {line}")
    assert "no head: " in line and "ferplus/head.json does not exist" in line


def test_workers_without_this_program_are_named_at_once(
    cluster: clusters.Flink, faces: Path, disk: Path, tmp_path: Path
) -> None:
    chosen = clusters.workers(tmp_path / "workers", disk, empty=True)
    before = connected(cluster)
    began = time.monotonic()
    process = clusters.driver(arguments(faces, tmp_path / "out", disk, clusters.flags_for(chosen)))
    clusters.wait_for(lambda: connected(cluster) > before or process.poll() is not None, "a worker to start")
    started = time.monotonic()
    line = ended(process, 3)
    took = time.monotonic() - started
    print(f"package missing: {time.monotonic() - began:.0f} s, {took:.0f} of them since a worker started: {line}")
    assert "cannot import this program (ModuleNotFoundError: No module named " in line
    assert took < TOLD_S


def test_ctrl_c_cancels_the_job_and_the_same_command_continues(
    cluster: clusters.Flink, faces: Path, disk: Path, here: dict[str, str], flags: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = clusters.driver(arguments(faces, output, disk, flags))
    clusters.wait_for(lambda: parts(output) >= 2 or process.poll() is not None, "two parts")
    second = clusters.driver(arguments(faces, output, disk, flags))
    assert "another run works in this folder" in ended(second, 3)
    process.send_signal(signal.SIGINT)
    assert "was cancelled" in ended(process, 130)
    clusters.wait_for(lambda: not cluster.running(), "the job to end", 60)
    ended(clusters.driver(arguments(faces, output, disk, flags)))
    assert runs.results(output) == here
