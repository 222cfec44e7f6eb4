"""Worker processes: their run ends as any other does, and says no more than it has to."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pictures
import pytest
import runs

SETTINGS = ("read.block_images=32", "write.no_face_label=neutral")
PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    """Pictures of 48 pixels a side: slow enough to be caught at work."""
    place = tmp_path_factory.mktemp("bench")
    return runs.Bench(place, runs.make_head(place / "head", settings=runs.SLOWER), runs.SLOWER)


def workers(output: Path) -> list[int]:
    return [int(path.stem.removeprefix("worker-")) for path in (output / "heartbeats").glob("worker-*.log")]


def begun(bench: runs.Bench, source: Path, *, parts: int) -> subprocess.Popen[str]:
    """Starts a run with two worker processes; returns it as soon as some parts more stand."""
    output = bench.path / "out"
    before = len(runs.parts(output))
    process = runs.start(*bench.arguments(source, "out", *SETTINGS, *PROCESSES))
    runs.wait_until(lambda: len(runs.parts(output)) >= before + parts, process)
    return process


def lines(ended: runs.Ended) -> list[str]:
    return [line for line in ended.err.splitlines() if line.strip()]


def test_crashed_and_interrupted_it_says_so_in_a_line_and_goes_on(bench: runs.Bench) -> None:
    broken = {"broken.png": pictures.nasty_files()["wrong_sum.png"][0]}  # libpng complains aloud
    source = pictures.write_tar(bench.path / "many.tar", {**broken, **runs.faces(800)})
    output = bench.path / "out"

    process = begun(bench, source, parts=2)
    assert len(workers(output)) == 2
    os.kill(workers(output)[0], signal.SIGSEGV)
    crashed = runs.finish(process, output)
    assert crashed.status == 3
    assert "a worker process ended unexpectedly (SIGSEGV); its last output: Fatal Python error" in crashed.line
    assert "run the same command to resume" in crashed.line

    process = begun(bench, source, parts=2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the run
    interrupted = runs.finish(process, output)
    assert interrupted.status == 130
    stopping, last = lines(interrupted)
    assert stopping == "stopping after the current step ..."
    assert last.endswith(f"interrupted; run the same command to resume; progress is saved in {output}")

    done = runs.finish(runs.start(*bench.arguments(source, "out", *SETTINGS, *PROCESSES)), output).done()
    assert done.err == ""
    assert done.record["resume"]["blocks_reused"] >= 4
    assert not (output / "heartbeats").exists()
    assert done.record["counts"]["images"] == 801

    again = bench.label(source, "out", *SETTINGS, *PROCESSES).done()
    assert "already finished" in again.out
    assert not (output / "heartbeats").exists()
