"""Want of memory where libraries say something else: reported as what it is, in one line, and not blamed on Beam."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import memory_limit as module
from pipeline.memory_limit import lack_of_memory

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libtensorflow_cc.so.2: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_what_libraries_say_of_it(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_limit_bytes", lambda: None)
    assert "too little memory to load the libraries" in str(lack_of_memory(error))
    behind = RuntimeError("stage failed")
    behind.__cause__ = error
    assert str(error) in str(lack_of_memory(behind))
    monkeypatch.setattr(module, "_limit_bytes", lambda: 600 * 2**20)
    assert "limited to 600 MB of address space" in str(lack_of_memory(error))


def test_without_a_limit_another_error_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_limit_bytes", lambda: None)
    assert lack_of_memory(ImportError("No module named 'no'")) is None
    assert lack_of_memory(AttributeError("x")) is None


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is kept by Linux")
def test_a_limited_run_ends_in_one_line_that_names_the_limit(tmp_path: Path) -> None:
    megabytes = 600  # with more, libraries may load, and wait for ever for a thread that they could not start
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.pgm").write_bytes(b"P5 24 24 255 " + bytes(576))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes * 2**20, megabytes * 2**20))

    flags = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--set", "faces.detector=none"]
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", "--runner=DirectRunner", *flags],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("pipeline: error: ")]
    assert ended.returncode == 3, ended.stderr
    assert len(lines) == 1
    assert f"limited to {megabytes} MB of address space" in lines[0]
    assert "Traceback" not in ended.stderr
    assert "Beam" not in lines[0]
