"""A worker process: what it does with signals, with what is written in it, and when its run is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.run.worker_folder import WORDS_SHOWN, last_words, log_file, tell_to_stop

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0
DEAD = 2**22 + 1  # no process has such a number: systems count up to 2**22 at most

# A worker whose work is to write to the descriptors, to warn, and to wait until it is asked to stop.
WORKING = """
import logging, os, sys, time, types
from pipeline.run import worker
from transforms.storage import stopping
def work(folder):
    os.write(1, b"a library's greeting\\n")
    os.write(2, b"a library's complaint\\n")
    logging.getLogger("pipeline.storage").warning("our own")
    logging.getLogger("pipeline.storage").info("not asked for")
    with open(sys.argv[1] + "/ready.tmp", "w") as file:
        file.write(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    os.rename(sys.argv[1] + "/ready.tmp", sys.argv[1] + "/ready")
    end = time.monotonic() + 60
    while not stopping.asked() and time.monotonic() < end:
        time.sleep(0.02)
    sys.exit(0 if stopping.asked() else 9)
sys.modules["pipeline.run.runners"] = types.SimpleNamespace(work_for_beam=work)  # Beam takes seconds to import
worker.main(sys.argv[1:])
"""


def start(folder: Path, manner: str = "quiet") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKING, str(folder), manner],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(folder / "ready")
    return process


def wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_each_worker_has_a_gpu_of_its_own_before_a_runtime_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    seen = []
    for number in range(3):
        process = start(tmp_path)
        seen.append((tmp_path / "ready").read_text())
        (tmp_path / "ready").unlink()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
        assert (tmp_path / f"place-{number}").exists()
    assert seen == ["4", "7", "4"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None])
def test_it_stops_between_steps_and_speaks_to_its_file(tmp_path: Path, number: int | None) -> None:
    process = start(tmp_path)
    if number is None:
        tell_to_stop(str(tmp_path))
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert (out, err.splitlines()) == ("", ["pipeline: WARNING: pipeline.storage: our own"])
    reported = log_file(str(tmp_path), process.pid).read_text()
    assert "a library's greeting" in reported
    assert "a library's complaint" in reported


def test_where_the_user_wants_all_of_it_it_speaks_aloud(tmp_path: Path) -> None:
    process = start(tmp_path, "loud")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert out == "a library's greeting\n"
    assert "a library's complaint\n" in err
    assert not log_file(str(tmp_path), process.pid).exists()


def test_a_crash_leaves_its_trace_in_the_file(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.send_signal(signal.SIGSEGV)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGSEGV
    assert last_words(str(tmp_path)) == "Fatal Python error: Segmentation fault"


def test_it_does_not_outlive_its_run(tmp_path: Path) -> None:
    script = f"""
import subprocess, sys, time
process = subprocess.Popen([sys.executable, "-c", {WORKING!r}, {str(tmp_path)!r}, "quiet"])
while not __import__("os").path.exists({str(tmp_path / "ready")!r}):
    time.sleep(0.02)
print(process.pid)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True)
    orphan = int(ended.stdout)
    end = time.monotonic() + PATIENCE_S / 2
    while is_working(orphan):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_working(pid: int) -> bool:
    """True unless the process is gone, or dead and not buried yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# --- last words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "log, words",
    [
        ("", ""),
        ("WARNING:root:no tools\nINFO:x:hello\n\n", ""),
        ("INFO:x:hello\nterminate called\n", "terminate called"),
        ("Fatal Python error: Aborted\n\nThread 1\n  File x\nExtension modules: a, b", "Fatal Python error: Aborted"),
        ("x" * 1000, "x" * WORDS_SHOWN),
        (b"\xff bytes\n".decode("latin-1"), "\xff bytes"),
    ],
)
def test_last_words(tmp_path: Path, log: str, words: str) -> None:
    log_file(str(tmp_path), DEAD).write_text(log)
    assert last_words(str(tmp_path)) == words


def written(folder: Path, *logs: tuple[int, str]) -> str:
    """Writes logs of these processes, the newest first; returns their folder."""
    for age, (pid, text) in enumerate(logs):
        path = log_file(str(folder), pid)
        path.write_text(text)
        os.utime(path, (1000 - age, 1000 - age))
    return str(folder)


def test_the_worker_that_wrote_last_is_quoted(tmp_path: Path) -> None:
    logs = written(tmp_path, (DEAD + 2, "INFO: nothing"), (DEAD, "later"), (DEAD + 1, "earlier"))
    assert last_words(logs) == "later"
    assert last_words(str(tmp_path / "nowhere")) == ""


def test_a_worker_that_lives_is_not_quoted(tmp_path: Path) -> None:
    assert last_words(written(tmp_path, (os.getpid(), "libpng warning: x"), (DEAD, "terminate called"))) == (
        "terminate called"
    )


def test_a_crash_comes_before_what_another_wrote_since(tmp_path: Path) -> None:
    crash = "Fatal Python error: Bus error\n\nThread 1\n  File x"
    logs = written(tmp_path, (DEAD, "libpng warning: x"), (DEAD + 1, crash), (DEAD + 2, "terminate called"))
    assert last_words(logs) == "Fatal Python error: Bus error"
