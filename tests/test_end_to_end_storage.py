"""Promises 3 and 6: faulty storage stops a run in one line that says what to do; it goes on when that is done."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pictures
import pytest
import runs
from nearby import Nearby

from pipeline.run import drive
from transforms import finish_run
from transforms.formats import publish
from transforms.storage import store as storage

SETTINGS = ("write.no_face_label=neutral", "read.block_images=16")
DISK_BYTES = 4 * 2**20


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_head(tmp_path_factory.mktemp("head"))


@pytest.fixture
def bench(tmp_path: Path, head: Path) -> runs.Bench:
    return runs.Bench(tmp_path, head)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own; skips the test where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk may be mounted here: {error}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=30)  # an index may still be mapped


def fill(disk: Path, *, leave: int) -> Path:
    """Writes a file that leaves so many bytes of the disk free."""
    ballast = disk / "ballast"
    stat = os.statvfs(disk)
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        file.write(bytes(stat.f_bavail * stat.f_frsize - leave))
    return ballast


def fresh(bench: runs.Bench, source: Path) -> dict[str, str]:
    return runs.results(bench.label(source, "fresh", *SETTINGS).done().output)


def test_a_full_disk_stops_the_run_and_more_room_lets_it_go_on(bench: runs.Bench, disk: Path) -> None:
    source = pictures.write_tar(bench.path / "many.tar", runs.faces(320))
    ballast = fill(disk, leave=200_000)

    stopped = bench.label(source, "disk/out", *SETTINGS)
    assert stopped.status == 3
    assert "No space left on device" in stopped.line
    assert "free space there" in stopped.line
    assert "run the same command to resume" in stopped.line
    kept = runs.parts(stopped.output)
    assert 0 < len(kept) < 20

    ballast.unlink()
    gone_on = bench.label(source, "disk/out", *SETTINGS).done()
    assert gone_on.record["resume"] == {"blocks_reused": len(kept), "blocks_redone": 0}
    assert runs.results(gone_on.output) == fresh(bench, source)


def test_a_disk_that_is_full_when_the_parts_are_merged(bench: runs.Bench, disk: Path) -> None:
    source = pictures.write_tar(bench.path / "many.tar", {**runs.faces(320), "bad.png": b"no image"})
    assert bench.label(source, "disk/out", *SETTINGS, "--max-rejected", "0").status == 3
    ballast = fill(disk, leave=16_000)

    stopped = bench.label(source, "disk/out", *SETTINGS)
    assert stopped.status == 3
    assert "No space left on device" in stopped.line
    assert not (stopped.output / "run.json").exists()

    ballast.unlink()
    gone_on = bench.label(source, "disk/out", *SETTINGS).done()
    assert gone_on.record["resume"] == {"blocks_reused": 21, "blocks_redone": 0}
    assert runs.results(gone_on.output) == fresh(bench, source)


@pytest.mark.parametrize("at, fault", [(2, errno.EACCES), (7, errno.ENOSPC), (12, errno.EIO)])
def test_storage_that_fails_at_some_write_costs_that_run_only(
    at: int, fault: int, bench: runs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures.write_tar(bench.path / "many.tar", runs.faces(100))
    flush, calls = publish._flush, []

    def failing(path: str) -> None:
        calls.append(path)
        if len(calls) >= at:
            raise OSError(fault, os.strerror(fault), path)
        flush(path)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_flush", failing)
        stopped = bench.label(source, "out", *SETTINGS)
    assert stopped.status == 3
    assert os.strerror(fault) in stopped.line
    assert str(bench.path) in stopped.line
    assert not (stopped.output / "run.json").exists()

    gone_on = bench.label(source, "out", *SETTINGS).done()
    assert gone_on.record["resume"]["blocks_redone"] == 0
    assert runs.results(gone_on.output) == fresh(bench, source)


@pytest.mark.parametrize("fault", [errno.EACCES, errno.EIO, errno.ENOENT])
def test_a_fault_that_no_stage_has_named_is_told_in_a_line_too(
    fault: int, bench: runs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures.write_tar(bench.path / "many.tar", runs.faces(20))

    def failing(path: str) -> None:
        raise OSError(fault, os.strerror(fault), path)

    with monkeypatch.context() as patch:
        patch.setattr(finish_run, "part_info", failing)
        stopped = bench.label(source, "out", *SETTINGS)
    assert stopped.status == 3
    assert f"{os.strerror(fault)}: '{stopped.output / 'parts'}" in stopped.line
    assert "run the same command to resume" in stopped.line
    assert bench.label(source, "out", *SETTINGS).done().record["resume"]["blocks_redone"] == 0


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.ETIMEDOUT])
def test_storage_that_fails_now_and_then_costs_nothing(
    fault: int, bench: runs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third file that is opened, and every third that is put in place, fails once."""
    source = pictures.write_folder(bench.path / "in", runs.faces(40))
    pictures.write_tar(source / "a.tar", runs.faces(40, first=100))
    pictures.write_tar(source / "b.tar.gz", runs.faces(40, first=200))

    def shaky(module: Any, name: str) -> list[str]:
        real, calls = getattr(module, name), []

        def work(path: str) -> Any:
            calls.append(path)
            if len(calls) % 3 == 0:
                raise OSError(fault, os.strerror(fault), path)
            return real(path)

        patch.setattr(module, name, work)
        return calls

    with monkeypatch.context() as patch:
        written, opened = shaky(publish, "_flush"), shaky(storage, "_opened")
        ended = bench.label(source, "out", *SETTINGS).done()
    assert len(written) > 30
    assert len(opened) > 40
    assert runs.results(ended.output) == fresh(bench, source)


@contextlib.contextmanager
def behind_planning(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> Iterator[None]:
    """While inside, something happens in each run between its plan and its first stage."""
    real = drive.run_graph

    def run_graph(*given: Any, **named: Any) -> Any:
        happens()
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(drive, "run_graph", run_graph)
        yield


def test_a_file_that_goes_away_after_planning_stops_the_run_and_is_not_rejected(
    bench: runs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures.write_folder(bench.path / "in", runs.faces(40))
    victim = source / "sad" / "00002.png"
    data = victim.read_bytes()
    with behind_planning(monkeypatch, victim.unlink):
        stopped = bench.label(source, "out", *SETTINGS)
    assert stopped.status == 3
    assert str(victim) in stopped.line
    assert not (stopped.output / "run.json").exists()

    victim.write_bytes(data)
    gone_on = bench.label(source, "out", *SETTINGS).done()
    assert gone_on.record["counts"]["rejected"] == 0
    assert runs.results(gone_on.output) == fresh(bench, source)


@pytest.mark.parametrize("truncate", [lambda data: data[: len(data) // 2], lambda data: b""])
def test_an_archive_that_shrinks_after_planning_does_not_crash(
    truncate: Callable[[bytes], bytes], bench: runs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can no longer be read has its row; the next run plans anew and sees what is there."""
    source = pictures.write_tar(bench.path / "many.tar", runs.faces(40))
    data = source.read_bytes()
    with behind_planning(monkeypatch, lambda: source.write_bytes(truncate(data))):
        ended = bench.label(source, "out", *SETTINGS)
    assert ended.status in (0, 3)
    assert "Traceback" not in ended.err

    source.write_bytes(data)
    gone_on = bench.label(source, "out", *SETTINGS).done()
    assert gone_on.record["counts"]["labelled"] == 40
    assert runs.results(gone_on.output) == fresh(bench, source)


# --- storage of another kind ------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is `nearby://bucket`: files of every kind that is opened in a way of its own."""
    monkeypatch.setattr(Nearby, "base", tmp_path, raising=False)
    made = runs.faces(120)
    names = sorted(made)
    parts = [{name: made[name] for name in names[start::4]} for start in range(4)]
    place = tmp_path / "bucket"
    pictures.write_folder(place / "loose", parts[0])
    pictures.write_tar(place / "a.tar", parts[1])
    pictures.write_tar(place / "b.tar.gz", parts[2])
    pictures.write_zip(place / "c.zip", parts[3])
    return place


def without_sources(output: Path) -> list[dict[str, Any]]:
    return [{**row, "source": None} for row in runs.rows(output / "images")]


def test_images_in_a_bucket_are_labelled_as_those_in_a_folder(bench: runs.Bench, bucket: Path) -> None:
    local = bench.label(bucket, "local", *SETTINGS).done()
    far = bench.label("nearby://bucket", "far", *SETTINGS).done()
    assert far.record["counts"] == local.record["counts"]
    assert far.record["counts"]["images"] == 120
    assert runs.predictions(far.output) == runs.predictions(local.output)
    assert without_sources(far.output) == without_sources(local.output)
    assert runs.submission(far.output) == runs.submission(local.output)
    assert {row["source"].partition("/bucket")[0] for row in runs.rows(far.output / "images")} == {"nearby:/"}
    again = bench.label("nearby://bucket", "far", *SETTINGS).done()
    assert "nothing has changed" in again.out


def test_a_run_over_a_bucket_that_was_stopped_goes_on(
    bench: runs.Bench, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = sorted((bucket / "loose" / "sad").iterdir())[-1]
    data = victim.read_bytes()
    with behind_planning(monkeypatch, victim.unlink):
        stopped = bench.label("nearby://bucket", "out", *SETTINGS)
    assert stopped.status == 3
    assert f"nearby://bucket/loose/sad/{victim.name} cannot be opened" in stopped.line
    victim.write_bytes(data)
    gone_on = bench.label("nearby://bucket", "out", *SETTINGS).done()
    fresh_run = bench.label("nearby://bucket", "fresh", *SETTINGS).done()
    assert runs.results(gone_on.output) == runs.results(fresh_run.output)


def test_a_closed_stderr_stops_nothing(bench: runs.Bench) -> None:
    source = pictures.write_folder(bench.path / "in", runs.faces(3))
    words = [sys.executable, "-m", "pipeline", *bench.arguments(source, "out")]
    closed = ["sh", "-c", 'exec "$@" 2>&-', "sh", *words]
    ended = subprocess.run(closed, cwd=runs.ROOT, capture_output=True, text=True, timeout=runs.PATIENCE_S)
    assert ended.returncode == 0
    assert "3 images: 3 labelled" in ended.stdout
