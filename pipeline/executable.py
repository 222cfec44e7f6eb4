"""Makes the executable: a folder that runs on machines without Python.

`python -m pipeline.executable DIR` makes DIR/facelabel by PyInstaller and `configs/executable.spec`, and prints how
large it is and how long it takes to start. It needs the source tree and the extra `executable`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.errors import PipelineError, StoppedError, UsageError

ROOT = Path(__file__).parents[1]
SPEC = ROOT / "configs" / "executable.spec"
NAME = "facelabel"
MB = 1_000_000
STARTS = 3  # times; the least counts, as other work on a machine only adds


def make_executable(folder: Path) -> Path:
    """Returns the path of the executable, made in `folder`/facelabel; one of before is replaced.

    Raises:
        UsageError: PyInstaller or the source tree is missing.
        StoppedError: PyInstaller failed.
    """
    if importlib.util.find_spec("PyInstaller") is None:
        raise UsageError("PyInstaller is not installed; pip install 'facelabel-pipeline[executable]'")
    if not SPEC.is_file():
        raise UsageError(f"{SPEC} is missing: the executable is made in the source tree")
    with tempfile.TemporaryDirectory(prefix="executable-") as work:
        words = ["--noconfirm", "--log-level", "ERROR", "--distpath", str(folder), "--workpath", work]
        ended = subprocess.run([sys.executable, "-m", "PyInstaller", *words, str(SPEC)], cwd=ROOT, check=False)
    if ended.returncode:
        raise StoppedError("PyInstaller failed; the lines above say why")
    return folder / NAME / NAME


def size_of(folder: Path) -> int:
    """Returns the bytes of all files below a folder; a link counts nothing."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def start_s(executable: Path) -> float:
    """Returns the seconds that `--version` takes in an empty environment, the least of several."""
    least = float("inf")
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run([executable, "--version"], env={}, check=True, stdout=subprocess.DEVNULL)
        least = min(least, time.perf_counter() - began)
    return least


def main(arguments: list[str]) -> int:
    """Makes the executable in the folder named and returns the exit status."""
    try:
        if len(arguments) != 1 or arguments[0].startswith("-"):
            raise UsageError("usage: python -m pipeline.executable DIR")
        made = make_executable(Path(os.path.abspath(arguments[0])))
    except PipelineError as error:
        print(f"pipeline: error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{made}: {size_of(made.parent) / MB:.0f} MB with its folder, starts in {start_s(made):.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
