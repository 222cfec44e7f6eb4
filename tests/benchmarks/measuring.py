"""What the benchmarks share: running the program and knowing what that cost, archives to run it on, tables.

No benchmark itself: the scripts beside it `import measuring`. Nothing of the program is imported here, every run is a
process of its own. Run a script from the checkout: `python tests/benchmarks/NAME.py [--small]`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parents[3] / "shared" / "data"
WHOLE = ("faces.detector=none", "features.pooling=multi")  # an image is a face; the bundled head's features
RESULTS = ("predictions", "images", "submission.csv")  # what depends on input and settings alone
VERSIONED = (
    "apache-beam", "tensorflow", "tensorflow-cpu", "keras", "numpy", "pyarrow", "h5py", "opencv-python",
    "opencv-python-headless",
)  # fmt: skip
MARK = "\N{CHECK MARK}"


# --- options ----------------------------------------------------------------------------------------------------------


def parser(text: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=text.splitlines()[0])
    made.add_argument("--data", type=Path, default=DATA, help="folder of the data sets (default: %(default)s)")
    made.add_argument("--small", action="store_true", help="a fraction of the work: shows that it runs")
    made.add_argument("--work", type=Path, help="folder to work in, kept; default: a temporary one, removed")
    return made


def needed(*paths: Path) -> None:
    """Ends the script where data are missing: there is nothing to measure."""
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        sys.exit(f"skipped: {', '.join(missing)} is not there; give --data FOLDER")


@contextlib.contextmanager
def workplace(options: argparse.Namespace, keep: Sequence[str] = ()) -> Iterator[Path]:
    """Gives an empty folder to work in; `keep` names what stays from an earlier time, where `--work` was given."""
    if options.work is None:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            yield Path(folder)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    for path in options.work.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    yield options.work.resolve()


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Gives a worktree of a commit, removed in the end."""
    with tempfile.TemporaryDirectory(prefix="before-") as folder:
        place = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(place), commit], check=True)
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True)


# --- running the program ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """How a process ended, and what it cost.

    Attributes:
        status: exit status, negative for a signal.
        out, err: what it printed.
        wall_s: from its start to its end. cpu_s: user and system time of it and of the children it waited for.
        output: folder of its results.
    """

    status: int
    out: str
    err: str
    wall_s: float
    cpu_s: float
    output: Path

    @property
    def record(self) -> dict[str, Any]:
        """What its `run.json` holds."""
        return json.loads((self.output / "run.json").read_text(encoding="utf-8"))

    @property
    def seconds(self) -> dict[str, Any]:
        """The times in its `run.json`."""
        return self.record["seconds"]

    def done(self) -> Ran:
        """Returns itself; ends the benchmark if the process failed."""
        if self.status != 0:
            sys.exit(f"a measured process ended with {self.status}:\n{self.err[-4000:]}")
        return self


@dataclass(frozen=True)
class Started:
    """A process under way, in a session of its own."""

    process: subprocess.Popen[bytes]
    began: float
    out: Any
    err: Any
    output: Path

    def ended(self) -> bool:
        """True if it has ended by itself; leaves it to `wait` to say how."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> Ran:
        """Returns how it ended."""
        _, status, usage = os.wait4(self.process.pid, 0)
        wall = time.perf_counter() - self.began
        self.process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (self.out, self.err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        return Ran(self.process.returncode, *texts, wall, usage.ru_utime + usage.ru_stime, self.output)

    def kill(self) -> Ran:
        """Ends it and its children as a failing machine would; returns what is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.wait()


def start(*command: str | Path, output: Path | None = None) -> Started:
    """Starts a Python script or module (`-m`, name) with the program's packages to import."""
    return _started([sys.executable, *map(str, command)], output)


def shell(*command: str | Path, output: Path | None = None) -> Started:
    """Starts a shell script, which takes this Python."""
    return _started(["sh", *map(str, command)], output)


def _started(command: list[str], output: Path | None) -> Started:
    out = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe would fill and stop it; `wait` closes them
    err = tempfile.TemporaryFile()  # noqa: SIM115
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHON": sys.executable, **os.environ, "PYTHONPATH": path},
        stdout=out,
        stderr=err,
        start_new_session=True,
    )
    return Started(process, began, out, err, output or ROOT)


def arguments(
    inputs: Path | Sequence[Path],
    output: Path,
    *more: str | Path,
    settings: Sequence[str] = WHOLE,
    cache: Path | None = None,
) -> list[str]:
    """Returns the arguments of a run of `label`; `more` are flags."""
    sources = [inputs] if isinstance(inputs, Path) else inputs
    listed: list[str | Path] = ["--runner=DirectRunner", "--quiet", "--input", *sources, "--output", output]
    if cache is not None:
        listed += ["--cache", cache]
    return [str(word) for word in [*listed, "--set", *settings, *more]]


def label(
    inputs: Path | Sequence[Path],
    output: Path,
    *more: str | Path,
    settings: Sequence[str] = WHOLE,
    cache: Path | None = None,
) -> Ran:
    """Runs the program as a user would; a run that fails ends the benchmark."""
    command = arguments(inputs, output, *more, settings=settings, cache=cache)
    return start("-m", "pipeline", *command, output=output).wait().done()


# --- what was written -------------------------------------------------------------------------------------------------


def results(output: Path) -> dict[str, str]:
    """Returns the SHA-256 of each final file's bytes, by path below the output folder."""
    found = {}
    for name in RESULTS:
        top = output / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            found[path.relative_to(output).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def rows(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of a folder of Parquet files, in the order of the files."""
    import pyarrow.parquet as pq

    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def submission(output: Path) -> list[tuple[str, str]]:
    """Returns (id, label) of each line of submission.csv."""
    import csv

    with open(output / "submission.csv", newline="", encoding="utf-8") as file:
        return [(row[0], row[1]) for row in list(csv.reader(file))[1:]]


# --- archives to run on -----------------------------------------------------------------------------------------------


def members(*archives: Path) -> Iterator[tuple[str, bytes]]:
    """Yields name and bytes of the files of tar archives, in their order."""
    for path in archives:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None:
                    yield member.name, file.read()


def distinct(found: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yields the first of each content: a copy would cost less than an image."""
    seen = set()
    for name, data in found:
        digest = hashlib.sha256(data).digest()
        if digest not in seen:
            seen.add(digest)
            yield name, data


def repeated(archive: Path, count: int) -> Iterator[tuple[str, bytes]]:
    """Yields `count` images: those of an archive again and again, under new names, as other bytes."""
    made = 0
    while made < count:
        for name, data in members(archive):
            if made == count:
                return
            folder, _, file = name.rpartition("/")
            yield f"{folder}/{made:08d}_{file}" if folder else f"{made:08d}_{file}", renewed(data, made)
            made += 1


def renewed(data: bytes, number: int) -> bytes:
    """Returns the same picture as other bytes: with a comment chunk (PNG) or segment (JPEG)."""
    note = b"%08d" % number
    if data.startswith(b"\x89PNG"):
        chunk = b"tEXtnumber\0" + note
        whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return data[:-12] + whole + data[-12:]  # the end is a chunk of twelve bytes
    if data.startswith(b"\xff\xd8"):
        return data[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(note)) + note + data[2:]
    raise ValueError(f"neither PNG nor JPEG: {data[:8]!r}")


def write_tar(path: Path, found: Iterable[tuple[str, bytes]]) -> Path:
    """Writes a plain tar file, a member at a time; returns its path."""
    import io

    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in found:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def unpack(path: Path, found: Iterable[tuple[str, bytes]]) -> Path:
    """Writes each member as a file below the folder `path`; returns it."""
    for name, data in found:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


# --- what is printed --------------------------------------------------------------------------------------------------


def machine() -> str:
    """Returns a line on what this was measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = []
    for name in VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return (
        f"Machine: {cores} cores, {_processor()}, {_memory()}, {platform.system()} {platform.release()}; "
        f"load {load:.1f} at the end. Python {platform.python_version()}, {', '.join(versions)}."
    )


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "processor unknown"


def _memory() -> str:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return "memory unknown"


def show(title: str, head: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Prints a Markdown table; the first column is text, the others are figures."""
    print(f"\n**{title}**\n")
    print("| " + " | ".join(head) + " |")
    print("|---|" + "---:|" * (len(head) - 1))
    for line in lines:
        print("| " + " | ".join(_cell(value) for value in line) + " |")
    sys.stdout.flush()


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return MARK if value else "**no**"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def progress(text: str) -> None:
    """Tells on standard error what is being done."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def ratio(value: float) -> str:
    """Returns a ratio with three places."""
    return f"{value:.3f}"


def median(values: Iterable[float]) -> float:
    """Returns the median."""
    return float(statistics.median(values))


def spread(values: Sequence[float]) -> str:
    """Returns `median (least … most)` of ratios."""
    return f"{median(values):.3f} ({min(values):.3f} … {max(values):.3f})"


def verdict(checks: Iterable[tuple[str, bool]]) -> int:
    """Prints which claims hold, and the machine; returns the exit status: 1 if one does not."""
    listed = list(checks)
    print()
    for claim, holds in listed:
        print(f"- {'holds' if holds else '**DOES NOT HOLD**'}: {claim}")
    print(f"\n{machine()}")
    return 0 if all(holds for _, holds in listed) else 1
