"""The oracle: what must hold of any file whatever, and a process that holds thousands of mutants against it.

Of an image: pixels or a documented rejection, no other exception; one row on the way through a block, with the same
reason; the same pixels whatever stood in fresh memory; pixels that agree with Pillow's. Of an archive: no exception but
the documented one that stops a run in a line; every member that was in it has a row, or the archive is reported as
damaged, or an independent reader does not find it either; reading by listing and streaming give the same members.

Run as a script it judges a range of mutants and writes a line of JSON for each. What glibc fills fresh memory with is
set outside, by MALLOC_PERTURB_; whoever starts two such processes compares their lines.

Not a test: other tests `import judging`.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import kinds
import mutants
import numpy as np
from against_pillow import by_pillow, difference, excuse
from mutants import Mutant, digest

from transforms.formats.decode import Decoded, decode
from transforms.formats.records import Limits, RejectedContent

PERTURBED = (85, 170)  # complementary bits: fresh memory is 170 in one process and 85 in the other
LIMITS = Limits()
HUNG_S = 120  # a file that takes so long ends the process
MOST_BYTES = 4 * 2**30  # of address space: a bomb must not take the machine
BLOCK = 100  # images that go through the stage together
MOST_APART = 0.01  # of the mutants that both readers take: damage leaves a choice, as where a run of a BMP went
SEARCHED_PIXELS = 2**18  # more would make the search the larger part of the work
UNFORESEEN = "internal_error"  # the row of an exception that nobody meant


@dataclass(frozen=True)
class Judged:
    """What became of one mutant, or of a block of them.

    Attributes:
        number: of the mutant, or of the block's first.
        name: kind of the picture, name of the archive, or "block".
        how: what was done to it.
        given: digest of the file.
        outcome: everything that must be equal in two processes: a digest of pixels, or the reason.
        fault: what the oracle objects to, or "".
        pillow: agree, differ, explained (differ where Pillow is known to be wrong), only we, only they, neither; ""
            where not compared.
        apart: how far the pixels are from Pillow's, or what Pillow said.
        cpu_s: of decoding alone, or of reading.
        grown_kb: by how much the process's peak memory grew.
        peak_kb: the process's peak memory.
    """

    number: int
    name: str
    how: tuple[str, ...]
    given: str
    outcome: str = ""
    fault: str = ""
    pillow: str = ""
    apart: str = ""
    cpu_s: float = 0.0
    grown_kb: int = 0
    peak_kb: int = 0


def _measured(judge: Callable[[], Judged]) -> Judged:
    before, began = peak_kb(), time.process_time()
    judged = judge()
    peak = peak_kb()
    return replace(judged, cpu_s=time.process_time() - began, grown_kb=peak - before, peak_kb=peak)


def peak_kb() -> int:
    """Returns the largest memory that this process has held; `ru_maxrss` would count what its parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# --- images -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """How an image is decoded, and whether it is held against Pillow's pixels (colour at full size only)."""

    channels: int = 3
    at_least: tuple[int, int] | None = None
    pillow: bool = True


def way_of(number: int, *, pillow: bool) -> Way:
    """Returns how a mutant is decoded: in grey or colour, at full size or reduced, by its number."""
    channels, at_least = (1 if number % 3 == 0 else 3), ((8, 8) if number % 5 == 0 else None)
    return Way(channels, at_least, pillow and channels == 3 and at_least is None)


def judge_image(mutant: Mutant, way: Way) -> Judged:
    """Decodes one image and says what came of it."""
    decoded: list[Decoded] = []
    judged = _measured(lambda: _decoded(mutant, way, decoded))
    if not way.pillow:
        return judged
    theirs = by_pillow(mutant.data, LIMITS.max_pixels)
    if theirs.pixels is None:
        return replace(judged, pillow="only we" if decoded else "neither", apart=f"{theirs.form} {theirs.why}")
    if not decoded:
        return replace(judged, pillow="only they", apart=theirs.form)
    apart = difference(decoded[0].image, theirs)
    why = excuse(mutant.data) if apart else ""
    said = "explained" if why else "differ" if apart else "agree"
    return replace(judged, pillow=said, apart=f"{theirs.form} {apart} {why}".strip())


def _decoded(mutant: Mutant, way: Way, keep: list[Decoded]) -> Judged:
    """Puts what was decoded into `keep`: the judgement itself is to be written down."""
    judged = Judged(mutant.number, mutant.name, mutant.how, digest(mutant.data))
    try:
        decoded = decode(mutant.data, channels=way.channels, limits=LIMITS, at_least=way.at_least)
    except RejectedContent as rejected:
        fault = UNFORESEEN if rejected.reason.value == UNFORESEEN else ""
        return replace(judged, outcome=f"{rejected.reason.value} {rejected.width}x{rejected.height}", fault=fault)
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return replace(judged, outcome="raised 0x0", fault=f"{type(error).__name__}: {error}"[:300])
    keep.append(decoded)
    shape = f"{decoded.width}x{decoded.height} {decoded.image.shape}"
    pixels = digest(decoded.image.tobytes())
    return replace(judged, outcome=f"pixels {shape} {pixels}", fault=_wrong_shape(decoded, way.channels))


def _wrong_shape(decoded: Decoded, channels: int) -> str:
    sides = (-(-decoded.height // decoded.reduction), -(-decoded.width // decoded.reduction))
    wanted = sides if channels == 1 else (*sides, 3)
    fits = decoded.image.shape == wanted and decoded.image.dtype == np.uint8
    return "" if fits else f"an array of {decoded.image.shape} {decoded.image.dtype} where {wanted} were told"


def judge_block(found: Sequence[Mutant], judged: Sequence[Judged], folder: Path) -> Judged:
    """Sends mutants through the stage that detects faces: each must have a row, with the reason it has alone.

    In every fifth block faces are searched for, in images of moderate size.
    """
    import blocks

    from models.detectors.registry import DetectorSpec
    from transforms.crop_faces import detect_rows, rows_to_detect, with_rows

    searched = found[0].number // BLOCK % 5 == 4
    detecting = blocks.job(folder, detector=DetectorSpec("bundled" if searched else "none")).detecting
    block = blocks.raw([mutant.data for mutant in found])
    about = Judged(found[0].number, "block", (), "")
    try:
        rows = [row for row in rows_to_detect(block) if not searched or _pixels(judged[row]) <= SEARCHED_PIXELS]
        seen = with_rows(block, [detect_rows(block, rows, detecting, detecting.detector.load())])
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return replace(about, outcome="raised 0x0", fault=f"{type(error).__name__}: {error}"[:300])
    reasons = [reason.value if reason else "" for reason in seen.reason]
    faults = [
        f"{judged[row].number}: row {reasons[row]!r}, alone {judged[row].outcome!r}"
        for row in rows
        if seen.status[row] is None or reasons[row] != _reason(judged[row]) or reasons[row] == UNFORESEEN
    ]
    crops = b"" if seen.fresh.crops is None else seen.fresh.crops.tobytes()
    outcome = digest(repr(reasons).encode(), seen.width.tobytes(), seen.height.tobytes(), crops)
    return replace(about, outcome=outcome, fault="; ".join(faults))


def _pixels(judged: Judged) -> int:
    width, height = judged.outcome.split(" ")[1].split("x")
    return int(width) * int(height)


def _reason(judged: Judged) -> str:
    first = judged.outcome.partition(" ")[0]
    return "" if first == "pixels" else first


def judge_images(numbers: range, *, pillow: bool) -> Iterator[Judged]:
    """Yields a judgement for each image, and one for each block of them."""
    with tempfile.TemporaryDirectory() as folder:
        for first in range(numbers.start, numbers.stop, BLOCK):
            found = [mutants.image_mutant(number) for number in range(first, min(first + BLOCK, numbers.stop))]
            judged = []
            for mutant in found:
                judged.append(judge_image(mutant, way_of(mutant.number, pillow=pillow)))
                yield judged[-1]
            yield judge_block(found, judged, Path(folder))


def judge_files(numbers: range, folder: Path) -> Iterator[Judged]:
    """Yields a judgement for each file below a folder, as far as there are any, in the order of their names."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for number, path in list(enumerate(paths))[numbers.start : numbers.stop]:
        name = path.relative_to(folder).as_posix()
        yield judge_image(Mutant(number, name, (), path.read_bytes(), {}), Way())


def judge_kinds(numbers: range) -> Iterator[Judged]:
    """Yields a judgement for each kind of file that is made here, as far as there are any."""
    for number, (name, data) in list(enumerate(kinds.kinds().items()))[numbers.start : numbers.stop]:
        yield judge_image(Mutant(number, name, (), data, {}), Way())


# --- archives ---------------------------------------------------------------------------------------------------------


def judge_archives(numbers: range) -> Iterator[Judged]:
    """Yields a judgement for each archive."""
    from archive_oracle import judge_archive

    for number in numbers:
        mutant = mutants.archive_mutant(number)

        def judge(mutant: Mutant = mutant) -> Judged:
            outcome, fault = judge_archive(mutant)
            return Judged(mutant.number, mutant.name, mutant.how, digest(mutant.data), outcome, fault)

        yield _measured(judge)


# --- a process of its own ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What processes wrote.

    Attributes:
        fresh: a byte of memory that nobody wrote.
        judged: in order.
        ended: files that ended the process: number, and its last words.
    """

    fresh: int
    judged: list[Judged]
    ended: dict[int, str]

    @property
    def peak_kb(self) -> int:
        """The largest memory that one of the processes has held."""
        return max((judged.peak_kb for judged in self.judged), default=0)


def supervised(what: str, numbers: range, report: Path, *more: str, perturb: int) -> Report:
    """Judges a range in a process; where a file ends it, another one goes on after that file."""
    first = numbers.start
    while first < numbers.stop:
        left = range(first, numbers.stop)
        status = _start(what, left, report, *more, perturb=perturb)
        if status == 0:
            break
        lost, first = _lost(left, read(report).judged, in_blocks=what == "images")
        _append(report, {"ended": lost, "words": f"status {status}: {_last_words(report)}"})
    return read(report)


def _lost(numbers: range, judged: Sequence[Judged], *, in_blocks: bool) -> tuple[int, int]:
    """Returns the number that ended a process, and the one to go on with; a block is meant by its last image."""
    last = max([numbers.start - 1, *(one.number for one in judged if one.name != "block")])
    done = last + 1 - numbers.start
    in_block = in_blocks and done > 0 and judged[-1].name != "block" and (done % BLOCK == 0 or last + 1 == numbers.stop)
    return (last if in_block else last + 1), (last + 1 if in_block else last + 2)


def _start(what: str, numbers: range, report: Path, *more: str, perturb: int) -> int:
    here = Path(__file__).parent
    with open(f"{report}.err", "ab") as words:
        return subprocess.run(
            [sys.executable, __file__, what, str(numbers.start), str(numbers.stop), str(report), *more],
            cwd=here.parent,
            env={**os.environ, "MALLOC_PERTURB_": str(perturb), "PYTHONPATH": f"{here.parent}{os.pathsep}{here}"},
            stdout=subprocess.DEVNULL,
            stderr=words,
            check=False,
        ).returncode


def _append(report: Path, values: dict[str, Any]) -> None:
    with report.open("a") as file:
        file.write("\n" + json.dumps(values) + "\n")  # the line before may be cut


def _last_words(report: Path) -> str:
    return Path(f"{report}.err").read_text(errors="replace")[-1500:]


def read(report: Path) -> Report:
    """Returns what is written so far."""
    lines = []
    for line in report.read_text().splitlines() if report.exists() else []:
        with contextlib.suppress(ValueError):  # the last line of a process that was ended may be cut
            lines.append(json.loads(line))
    fresh = [line["fresh"] for line in lines if "fresh" in line]
    ended = {line["ended"]: line["words"] for line in lines if "ended" in line}
    judged = [Judged(**{**line, "how": tuple(line["how"])}) for line in lines if "number" in line]
    return Report(fresh[0] if fresh else -1, judged, ended)


def differences(one: Report, other: Report) -> list[tuple[Judged, Judged]]:
    """Returns what came out otherwise in one process than in the other, or went in."""
    there = {(judged.number, judged.name == "block"): judged for judged in other.judged}
    pairs = [(judged, there.get((judged.number, judged.name == "block"))) for judged in one.judged]
    return [(a, b) for a, b in pairs if b is not None and (a.outcome, a.given) != (b.outcome, b.given)]


def _bounded() -> None:
    faulthandler.enable()
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _write(path: Path, lines: Iterator[Judged]) -> None:
    with path.open("a", buffering=1) as file:
        file.write(json.dumps({"fresh": int(np.empty(4096, np.uint8)[3000])}) + "\n")
        while True:
            faulthandler.dump_traceback_later(HUNG_S, exit=True)
            judged = next(lines, None)
            if judged is None:
                break
            file.write(json.dumps(asdict(judged)) + "\n")
    faulthandler.cancel_dump_traceback_later()


def main(words: Sequence[str]) -> int:
    """Judges a range of mutants, files or kinds."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("what", choices=("images", "archives", "files", "kinds"))
    made.add_argument("first", type=int)
    made.add_argument("stop", type=int)
    made.add_argument("report", type=Path, help="file to append to")
    made.add_argument("--pillow", action="store_true", help="hold images against Pillow's pixels")
    made.add_argument("--folder", type=Path, help="of the files")
    made.add_argument("--perturb", type=int, help="start a process with this MALLOC_PERTURB_, again if a file ends it")
    options = made.parse_args(words)
    numbers = range(options.first, options.stop)
    if options.perturb is not None:
        more = [
            *(["--pillow"] if options.pillow else []),
            *(["--folder", str(options.folder)] if options.folder else []),
        ]
        supervised(options.what, numbers, options.report, *more, perturb=options.perturb)
        return 0
    _bounded()
    judge: dict[str, Callable[[], Iterator[Judged]]] = {
        "images": lambda: judge_images(numbers, pillow=options.pillow),
        "archives": lambda: judge_archives(numbers),
        "files": lambda: judge_files(numbers, options.folder),
        "kinds": lambda: judge_kinds(numbers),
    }
    _write(options.report, judge[options.what]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
