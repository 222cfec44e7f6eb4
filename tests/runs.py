"""Runs the whole program for the end-to-end tests, and reads what it wrote as plain Python.

Not a test: other tests `import runs`. A run is the command line's own `main`, in this process where it can be and in
one of its own where it must be (to be killed, to be interrupted, to start clean).

The features are those of a small picture and of weights drawn from a seed, so that a run takes a second and nothing
depends on the weights that ship.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pyarrow.parquet as pq

from models.heads.linear import LinearHead
from models.runtimes.device import get_device
from models.training.fit_head import Fitted
from pipeline.cli import main
from pipeline.run.fitting import save_head
from pipeline.run.identity import feature_settings, identity_of
from pipeline.settings.load import load_settings
from transforms.formats.canonical import fingerprint_of

ROOT = Path(__file__).parents[1]
CLASSES = ("happy", "neutral", "sad")
SMALL = ("faces.detector=none", "features.weights=random", "features.pooling=avg", "features.input_size=16")
SLOWER = ("faces.detector=none", "features.weights=random", "features.pooling=avg", "features.input_size=48")
PATIENCE_S = 180.0  # for a process of its own on a busy machine, most of it for importing TensorFlow
RESULTS = ("predictions", "images", "submission.csv")  # what must not depend on how a run went


# --- what a run is given ----------------------------------------------------------------------------------------------


def faces(count: int, *, side: int = 24, first: int = 0) -> dict[str, bytes]:
    """Returns small grey PNG files of different patterns, by name, in a folder a class: no two are alike."""
    return {
        f"{CLASSES[number % 3]}/{number:05d}.png": pictures.png(pattern(number, side))
        for number in range(first, first + count)
    }


def pattern(number: int, side: int) -> np.ndarray:
    """Returns (side, side) uint8: coarse squares of grey drawn from the number, some dark and some light."""
    draw = np.random.default_rng(number)
    squares = draw.integers(0, 256, (4, 4)) * draw.uniform(0.1, 1)
    return np.kron(squares, np.ones((-(-side // 4),) * 2))[:side, :side].astype(np.uint8)


def make_head(folder: Path, *, settings: Sequence[str] = SMALL, classes: Sequence[str] = CLASSES) -> Path:
    """Writes a linear head for the features of these settings, its numbers drawn from a seed; returns its folder."""
    chosen = load_settings((), settings)
    device = get_device(feature_settings(chosen))
    draw = np.random.default_rng(7)
    count, height, _, _ = device.input_shape
    crops = np.stack([pattern(1_000_000 + number, height) for number in range(count)])[..., None]
    seen = device.features(crops).astype(np.float64)
    head = LinearHead(
        classes=tuple(classes),
        coef=draw.normal(0, 0.2, (len(classes), device.width)).astype(np.float32),
        intercept=np.zeros(len(classes)),
        mean=seen.mean(0),
        scale=seen.std(0) + 1e-3,
    )
    space = identity_of(chosen, None).feature_space
    save_head(folder, Fitted(head, sweep=(), split={}, metrics={}), fingerprint_of(space), space)
    return folder


def fingerprint_of_space(settings: Sequence[str]) -> str:
    """Returns the fingerprint that a head of these settings' features carries."""
    return fingerprint_of(identity_of(load_settings((), settings), None).feature_space)


@dataclass(frozen=True)
class Bench:
    """A place to run in: a folder of its own, and a head for the settings of its runs.

    Attributes:
        path: nothing else writes there.
        head: folder of the head.
        settings: of every run, as `--set` takes them.
    """

    path: Path
    head: Path
    settings: tuple[str, ...] = SMALL

    def arguments(self, source: Path | str | Sequence[Path], output: str, *more: str) -> list[str]:
        """Returns the arguments of `label`; `more`, settings and flags in any order, come last, so that they win."""
        sources = [source] if isinstance(source, Path | str) else source
        settings = [given for given in more if re.match(r"[a-z]+\.[a-z_]+=", given)]
        flags = [given for given in more if given not in settings]
        return [
            *("--runner=DirectRunner", "--input", *map(str, sources), "--output", str(self.path / output)),
            *("--head", str(self.head), "--set", *self.settings, *settings, *flags),
        ]

    def label(self, source: Path | str | Sequence[Path], output: str = "out", *more: str) -> Ended:
        """Runs `label` in this process."""
        return run(*self.arguments(source, output, *more), output=self.path / output)


# --- running ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit status, what it printed, and where its output lies."""

    status: int
    out: str
    err: str
    output: Path

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` holds."""
        return json.loads((self.output / "run.json").read_text(encoding="utf-8"))

    @property
    def line(self) -> str:
        """The one line of an error, checked to be one and no traceback."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("pipeline: error: ")
        return lines[0].removeprefix("pipeline: error: ")

    def done(self) -> Ended:
        """Returns itself, checked to have ended well."""
        assert self.status == 0, self.err
        return self


def run(*arguments: str, output: Path) -> Ended:
    """Runs the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(arguments))
    return Ended(status, out.getvalue(), err.getvalue(), output)


def start(*arguments: str, script: str | None = None) -> subprocess.Popen[str]:
    """Starts the command line, or a script that is given its arguments, in a process of its own."""
    program = ["-m", "pipeline"] if script is None else ["-c", script]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], output: Path) -> Ended:
    """Waits for a started process and returns how it ended; a process that does not end is killed and fails."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    return Ended(process.returncode, out, err, output)


def kill(process: subprocess.Popen[str]) -> None:
    """Kills a started process and its children at once, as a failing machine would."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # a session of its own: nobody else is hit
    process.communicate()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Returns as soon as the condition holds; fails if the process ends before."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode} before: {process.communicate()[1]}"
        assert time.monotonic() < end
        time.sleep(0.002)


# --- reading what was written -----------------------------------------------------------------------------------------


def images(output: Path) -> dict[str, dict[str, Any]]:
    """Returns the rows of `images/` by image id, in the order of the files."""
    return {row["image_id"]: row for row in rows(output / "images")}


def predictions(output: Path) -> list[dict[str, Any]]:
    """Returns the rows of `predictions/`, in the order of the files."""
    return rows(output / "predictions")


def rows(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of a folder of Parquet files."""
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def submission(output: Path) -> list[str]:
    """Returns the lines of submission.csv."""
    return (output / "submission.csv").read_text(encoding="utf-8").splitlines()


def results(output: Path) -> dict[str, str]:
    """Returns the digest of each final file's bytes, by path below the output folder."""
    found = {}
    for name in RESULTS:
        top = output / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            found[path.relative_to(output).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(found) >= 3
    return found


def tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Returns inode, size and time of change of everything below a folder: equal trees were not touched."""
    return {
        path.relative_to(folder).as_posix(): (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        for stat in [path.lstat()]
    }


def parts(output: Path) -> set[str]:
    """Returns the names of the finished parts that stand in an output folder."""
    folder = output / "parts"
    return {path.name for path in folder.glob("*.parquet")} if folder.is_dir() else set()


def segments(cache: Path) -> list[Path]:
    """Returns the segments of a feature cache."""
    return sorted(cache.glob("*/*.h5"))


def same_content(files: Mapping[str, bytes], found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields pairs (name in `files`, name in `found`) that end alike: the same image under another root."""
    for name in files:
        matching = [other for other in found if other == name or other.endswith("/" + name)]
        assert len(matching) == 1, name
        yield name, matching[0]
