"""A worker that cannot import this program says so in code that needs nothing of it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.internal import pickler

from pipeline import __version__
from pipeline.errors import StoppedError
from pipeline.run.drive import ON_WORKERS
from pipeline.run.failures import ended_by, failure_in_text
from pipeline.run.staging import Staging
from transforms.check_workers import question

ERROR = f"{StoppedError.__module__}.{StoppedError.__qualname__}"
WORKER = """
import sys
from importlib.abc import MetaPathFinder

class Nothing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"pipeline", "transforms", "models"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
from apache_beam.internal import pickler
pickler.loads(sys.stdin.buffer.read())(0)
"""


def test_a_worker_without_this_program_tells_the_driver(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path / "out"))
    Path(staging.place).mkdir(parents=True)
    asked = pickler.dumps(question(staging.place, ON_WORKERS, __version__, ERROR))
    ended = subprocess.run([sys.executable, "-c", WORKER], input=asked, capture_output=True, cwd=tmp_path)
    assert ended.returncode == 1
    failure = failure_in_text(staging.complaint())
    assert failure is not None
    found = ended_by(failure, "again")
    assert isinstance(found, StoppedError)
    assert str(found) == (
        f"worker {socket.gethostname()} cannot import this program (ModuleNotFoundError: No module named 'pipeline'); "
        "install the same version in the workers' image or environment (docs/scaling.md), or send it with "
        "--setup_file=PATH/setup.py; again"
    )
    assert failure_in_text(ended.stderr.decode()) == failure  # for runners that pass on errors themselves
    assert [path.name for path in Path(staging.place).iterdir()] == ["failure.txt"]


def test_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=rf"has version {__version__} of this program, not 9\.9"):
        question(str(tmp_path), ON_WORKERS, "9.9", ERROR)(0)
    assert "not 9.9" in (tmp_path / "failure.txt").read_text()


def test_a_library_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"No module named 'pipeline\.gone'"):
        question(str(tmp_path), ("pipeline.gone",), __version__, ERROR)(0)


def test_a_note_that_cannot_be_written_reaches_the_runner(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"not 9\.9; .*the driver cannot be told: FileNotFoundError"):
        question(str(tmp_path / "gone"), ON_WORKERS, "9.9", ERROR)(0)


def test_a_worker_with_this_program_says_nothing(tmp_path: Path) -> None:
    question(str(tmp_path), ON_WORKERS, __version__, ERROR)(0)
    assert list(tmp_path.iterdir()) == []
