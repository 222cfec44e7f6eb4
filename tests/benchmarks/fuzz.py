"""Damages images and archives by the ten thousand, and looks at what the program makes of them.

Each file goes through the reader twice, in processes whose fresh memory is filled with other bytes
(`MALLOC_PERTURB_` 85 and 170): results must not differ. Images are held against Pillow's pixels as well, and go through
the stage that makes rows; archives are held against other readers. A file that ends the process is counted, and another
process goes on after it. The same numbers mean the same files: `--first` takes others.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measuring
from tqdm import tqdm

PERTURBED = (85, 170)
PIECE = 2500  # files of one process
MOST_CPU_S, MOST_PEAK_MB = 5.0, 2048  # of one file; of a process that reads a piece of them
MOST_APART = 0.01  # of the images that both take may differ from Pillow's
SHOWN = 20
JUDGE = Path(__file__).parents[1] / "judging.py"


@dataclass
class Seen:
    """What came of all files of a kind.

    Attributes:
        files: how many.
        ended: runs ended by a file, in words.
        missing: files without a line, in one process or the other.
        faults: what the oracle objected to.
        differing: files with other results in the two processes.
        fresh: bytes found in memory that nobody wrote: two of them, or nothing was tested.
        pillow: how many agree, differ, …
        apart: files whose pixels are not Pillow's.
        slowest: the line of the slowest file.
        largest_kb: the largest peak of a process that reads with ours alone: Pillow, in the first, takes more.
        outcomes: how many were taken, and how many refused for which reason.
    """

    files: int
    ended: list[str] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    fresh: set[int] = field(default_factory=set)
    pillow: Counter[str] = field(default_factory=Counter)
    apart: list[str] = field(default_factory=list)
    slowest: dict[str, Any] = field(default_factory=dict)
    largest_kb: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0

    def add(self, numbers: range, reports: Sequence[list[dict[str, Any]]]) -> None:
        """Adds a piece, as both processes have it."""
        for lines in reports:
            self.fresh |= {line["fresh"] for line in lines if "fresh" in line}
            self.ended += [f"{line['ended']}: {line['words'][-300:]}" for line in lines if "ended" in line]
            judged = [line for line in lines if "number" in line]
            self.missing += sorted({*numbers} - {line["number"] for line in judged if line["name"] != "block"})
            self.faults += [f"{_named(line)}: {line['fault']}" for line in judged if line["fault"]]
            self.slowest = max([self.slowest, *judged], key=lambda line: line.get("cpu_s", 0.0))
            self.cpu_s += sum(line["cpu_s"] for line in judged)
        self.largest_kb = max([self.largest_kb, *(line.get("peak_kb", 0) for line in reports[1])])
        one, other = (
            {(line["number"], line["name"] == "block"): line for line in lines if "number" in line} for lines in reports
        )
        both = [(one[key], other[key]) for key in one if key in other]
        self.differing += [_named(a) for a, b in both if (a["outcome"], a["given"]) != (b["outcome"], b["given"])]
        for line in one.values():
            if line["name"] != "block":
                self.outcomes[line["outcome"].partition(" ")[0]] += 1
                self.pillow[line["pillow"]] += 1
                self.apart += [f"{_named(line)}: {line['apart']}"] if line["pillow"] == "differ" else []


def _named(line: dict[str, Any]) -> str:
    return f"{line['number']} {line['name']} ({', '.join(line['how'])})"


def judged(what: str, numbers: range, report: Path, perturb: int) -> list[dict[str, Any]]:
    """Judges a piece in processes of its own; returns their lines."""
    pillow = ["--pillow"] if what == "images" and perturb == PERTURBED[0] else []
    words = [what, str(numbers.start), str(numbers.stop), report, "--perturb", str(perturb), *pillow]
    measuring.start(JUDGE, *words).wait().done()
    return list(_lines(report))


def _lines(report: Path) -> Iterator[dict[str, Any]]:
    for line in report.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # cut, where a file ended the process


def look(what: str, numbers: range, place: Path, jobs: int) -> Seen:
    """Judges all numbers, piece by piece."""
    seen = Seen(len(numbers))
    pieces = [range(first, min(first + PIECE, numbers.stop)) for first in range(numbers.start, numbers.stop, PIECE)]
    with tqdm(total=len(numbers), desc=what, unit="file", mininterval=1) as bar, ThreadPoolExecutor(jobs) as pool:

        def piece(numbers: range) -> tuple[range, list[list[dict[str, Any]]]]:
            reports = [place / f"{what}-{numbers.start}-{perturb}" for perturb in PERTURBED]
            pairs = zip(reports, PERTURBED, strict=True)
            return numbers, [judged(what, numbers, report, perturb) for report, perturb in pairs]

        for done in as_completed([pool.submit(piece, numbers) for numbers in pieces]):
            numbers, reports = done.result()
            seen.add(numbers, reports)
            bar.update(len(numbers))
    return seen


def report(images: Seen, archives: Seen) -> None:
    """Prints the tables."""
    both = (images, archives)
    measuring.show(
        "Damaged files, each read twice",
        ("what", "images", "archives"),
        [
            ("files", *(seen.files for seen in both)),
            ("runs ended", *(len(seen.ended) for seen in both)),
            ("rows missing", *(len(seen.missing) for seen in both)),
            ("other faults", *(len(seen.faults) for seen in both)),
            ("differences between MALLOC_PERTURB_ 85 and 170", *(len(seen.differing) for seen in both)),
            ("slowest file, CPU-s", *(float(seen.slowest.get("cpu_s", 0)) for seen in both)),
            ("largest peak of a process (without Pillow), MB", *(seen.largest_kb / 1024 for seen in both)),
            ("CPU-s in all", *(seen.cpu_s for seen in both)),
        ],
    )
    measuring.show("What became of the images", ("outcome", "images"), images.outcomes.most_common())
    words = ("agree", "differ", "explained", "only we", "only they", "neither")
    measuring.show("Pixels beside Pillow's", ("of one in two images", "images"), [(w, images.pillow[w]) for w in words])
    slow = [_named(seen.slowest) for seen in both if seen.slowest]
    print(f"\nThe slowest: {'; '.join(slow)}.")
    for title in ("ended", "faults", "differing", "apart"):
        for seen in both:
            for line in getattr(seen, title)[:SHOWN]:
                print(f"{title}: {line}", file=sys.stderr)


def claims(images: Seen, archives: Seen) -> Iterator[tuple[str, bool]]:
    """Yields what must hold."""
    both = (images, archives)
    yield "no file ends a run", not any(seen.ended for seen in both)
    yield "no row is missing", not any(seen.missing for seen in both)
    yield "no exception but the documented ones, nothing lost in silence", not any(seen.faults for seen in both)
    yield "fresh memory was filled in two ways", all(len(seen.fresh) == 2 for seen in both if seen.files)
    yield "no difference between the two", not any(seen.differing for seen in both)
    slowest = max(float(seen.slowest.get("cpu_s", 0)) for seen in both)
    yield f"no file takes {MOST_CPU_S:.0f} CPU-s (the slowest: {slowest:.2f})", slowest < MOST_CPU_S
    peak = max(seen.largest_kb for seen in both) / 1024
    yield f"no process holds {MOST_PEAK_MB:,} MB (the largest: {peak:.0f})", peak < MOST_PEAK_MB
    compared = images.pillow["agree"] + images.pillow["differ"]
    share = images.pillow["differ"] / max(1, compared)
    yield (
        f"of {compared:,} images that Pillow takes too, {share:.2%} differ, at most {MOST_APART:.0%}",
        share <= MOST_APART,
    )


def run(options: argparse.Namespace, place: Path) -> int:
    """Judges, and prints what came of it."""
    began = time.perf_counter()
    share = 25 if options.small else 1
    images, archives = (
        look(what, range(options.first, options.first + count // share), place, options.jobs)
        for what, count in (("images", options.images), ("archives", options.archives))
    )
    report(images, archives)
    print(f"\n{time.perf_counter() - began:,.0f} s by the wall clock, {options.jobs} processes at a time.")
    return measuring.verdict(claims(images, archives))


def main(words: Sequence[str]) -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--images", type=int, default=50_000, help="default: %(default)s")
    made.add_argument("--archives", type=int, default=2_000, help="default: %(default)s")
    made.add_argument("--first", type=int, default=0, help="number of the first mutant (default: %(default)s)")
    made.add_argument("--jobs", type=int, default=2, help="processes at a time (default: %(default)s)")
    options = made.parse_args(words)
    with measuring.workplace(options) as place:
        return run(options, place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
