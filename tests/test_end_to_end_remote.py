"""A run on a runner elsewhere: head, labels and sample travel with it; no path of the driver is in the graph."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pictures
import pytest
import remote_runner
import runs

from pipeline.run.remote_job import RemoteJob
from transforms.storage import staged_files
from transforms.tally import Totals


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("bench")
    return runs.Bench(place, runs.make_head(place / "head"))


@pytest.fixture(scope="module")
def photos(bench: runs.Bench) -> Path:
    return pictures.write_folder(bench.path / "photos", runs.faces(30))


@pytest.fixture
def driver(tmp_path: Path, bench: runs.Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The disk of the machine that starts the run: its files are gone when the work begins."""
    disk = tmp_path / "driver_disk"
    disk.mkdir()
    shutil.copytree(bench.head, disk / "my_head")
    rows = [f"{name},{number % 3}" for number, name in enumerate(sorted(runs.faces(30)))]
    (disk / "sample.csv").write_text("\n".join(["id,label", *rows, ""]))
    (disk / "labels.csv").write_text("\n".join(["image,label", *(f"{row.partition(',')[0]},sad" for row in rows), ""]))
    worker = tmp_path / "worker_disk"
    worker.mkdir()
    monkeypatch.setattr(remote_runner.Elsewhere, "hidden", [disk])
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(worker))
    staged_files._fetched.cache_clear()
    return disk


def given(driver: Path) -> list[str]:
    return [
        *("--runner", remote_runner.RUNNER, "--head", str(driver / "my_head")),
        *("--sample-submission", str(driver / "sample.csv"), f"read.labels={driver / 'labels.csv'}"),
    ]


def test_what_is_ones_own_travels(bench: runs.Bench, photos: Path, driver: Path) -> None:
    here = bench.label(photos, "here", *given(driver)[2:]).done()
    there = bench.label(photos, "there", *given(driver)).done()
    assert runs.results(there.output) == runs.results(here.output)
    for field in ("head", "settings", "identity", "counts", "accuracy", "submission"):
        assert there.record[field] == here.record[field]
    assert not (there.output / "staged").exists()  # a finished run needs it no more


def test_the_graph_has_no_path_of_the_drivers_disk(bench: runs.Bench, photos: Path, driver: Path) -> None:
    bench.label(photos, "there_again", *given(driver)).done()
    reported = b"\n".join(remote_runner.texts(remote_runner.Elsewhere.proto))
    assert b"there_again/parts" in reported  # what is pickled was looked into
    assert b"CheckWorkers/AskWorker" in reported
    assert b"driver_disk" not in reported
    ours = re.escape(str(runs.ROOT).encode()) + rb"(?!/\.venv/)"  # Beam's own code names the place it was installed to
    assert re.search(ours, reported) is None


def test_progress_is_visible_where_the_runner_counts_only_in_the_end(
    bench: runs.Bench, photos: Path, driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[RemoteJob] = []
    monkeypatch.setattr(RemoteJob, "_counted", lambda self: followed.append(self) or Totals())
    bench.label(photos, "followed", *given(driver), "write.keep_parts=true").done()
    assert followed[-1].totals().images == 30
