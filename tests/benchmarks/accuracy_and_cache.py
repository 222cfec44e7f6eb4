"""Labels FER2013's test part, cold and from the cache, in alternating pairs: accuracy, equal bytes, hits, and rates.

Measures: rows and ids of submission.csv; accuracy, counted here from submission.csv and the classes in the members'
names, with and without the copies of training images; bytes of the results cold and warm; hits when the members lie in
a folder; images/s, cold and warm, by two figures of `run.json`; and what the warm run spends its time on. Every run has
an output folder of its own.

The claim on the cache rests on the strict figure, `images_per_s_first_to_last_block`: images of all blocks but the
first, by the time from the end of the first block to the end of the last, nothing taken off. Beside it stands
`images_per_s`, of all blocks from the first byte read on, without the engine's start.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import measuring
from measuring import Ran

TIMES = 20  # how much faster a run must be that finds everything in the cache


@dataclass(frozen=True)
class Pair:
    """A run with an empty cache, and the same run with the cache that the first one filled."""

    cold: Ran
    warm: Ran


def pairs(archive: Path, place: Path, count: int) -> list[Pair]:
    """Returns runs in the order cold, warm, cold, warm …, each cold one with a cache of its own."""
    done = []
    for number in range(count):
        measuring.progress(f"pair {number + 1} of {count}")
        cache = place / f"cache{number}"
        cold = measuring.label(archive, place / f"cold{number}", cache=cache)
        done.append(Pair(cold, measuring.label(archive, place / f"warm{number}", cache=cache)))
    return done


def copies_of_training(duplicates: Path) -> set[str]:
    """Returns the members of the test part whose pixels also stand in another part."""
    found: set[str] = set()
    with open(duplicates, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            group = row["members"].split()
            if any("/test_" not in name for name in group):
                found.update(name for name in group if "/test_" in name)
    return found


def accuracy(run: Ran, archive: Path, without: set[str]) -> tuple[float, float, int]:
    """Returns accuracy over all rows, over those not in `without`, and the number of the latter."""
    classes = run.record["head"]["classes"]
    right: list[tuple[bool, bool]] = []
    for name, label in measuring.submission(run.output):
        member = name.removeprefix(f"{archive.name}/")
        right.append((classes[int(label)] == member.split("/")[0], member in without))
    alone = [correct for correct, copy in right if not copy]
    return sum(c for c, _ in right) / len(right), sum(alone) / len(alone), len(alone)


def bound(run: Ran) -> str:
    """Returns the stage that takes the largest share of the time of all blocks, the engine's start left out."""
    seconds = run.seconds
    stages = {name: spent for name, spent in seconds["by_stage"].items() if name != "merge"}  # it comes after them
    name = max(stages, key=lambda stage: stages[stage])
    return f"{name} ({stages[name] / seconds['work']:.0%} of the time, in its thread)"


def show_rates(done: Sequence[Pair]) -> float:
    """Prints a row a pair in two tables; returns the median of the strict ratios."""
    head = ["pair", "cold images/s", "warm images/s", "warm : cold", "the same per CPU-second", "cold s", "warm s"]
    strict, whole = [], []
    for number, pair in enumerate(done, 1):
        for lines, rate, cpu in (
            (strict, "images_per_s_first_to_last_block", "first_to_last_block_cpu"),
            (whole, "images_per_s", "work_cpu"),
        ):
            cold, warm = pair.cold.seconds, pair.warm.seconds
            ratios = [warm[rate] / cold[rate], cold[cpu] / warm[cpu]]
            lines.append([number, cold[rate], warm[rate], *ratios, cold["total"], warm["total"]])
    measuring.show("From the end of the first block to the end of the last", head, strict)
    measuring.show("All blocks, from the first byte read, without the start of the engine", head, whole)
    return measuring.median(line[3] for line in strict)


def show_stages(done: Sequence[Pair]) -> None:
    """Prints where the time of the last pair went."""
    last = done[-1]
    kinds = [(run.seconds, kind) for run in (last.cold, last.warm) for kind in ("by_stage", "by_stage_cpu")]
    stages = sorted({stage for seconds, kind in kinds for stage in seconds[kind]})
    lines = [[stage, *(seconds[kind].get(stage) for seconds, kind in kinds)] for stage in stages]
    whole = [run.seconds[kind] for run in (last.cold, last.warm) for kind in ("work", "work_cpu")]
    lines.append(["all blocks, without the engine's start", *whole])
    head = ["stage (each in its own threads)", "cold s", "cold CPU-s", "warm s", "warm CPU-s"]
    measuring.show("Seconds by stage, last pair (CPU without the engine's own threads)", head, lines)


def main() -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--pairs", type=int, default=3)
    options = made.parse_args()
    source = options.data / "fer2013" / "test.tar"
    duplicates = options.data / "fer2013" / "duplicates.csv"
    measuring.needed(source, duplicates)
    with measuring.workplace(options) as place:
        archive = source
        if options.small:
            some = [member for _, member in zip(range(1200), measuring.members(source), strict=False)]
            archive = measuring.write_tar(place / "test.tar", some)
        listed = list(measuring.members(archive))
        done = pairs(archive, place, 1 if options.small else options.pairs)
        measuring.progress("the same members in a folder")
        folder = measuring.unpack(place / "folder", listed)
        loose = measuring.label(folder, place / "loose", cache=place / "cache0")
        return report(done, loose, archive, [name for name, _ in listed], copies_of_training(duplicates))


def report(done: Sequence[Pair], loose: Ran, archive: Path, names: Sequence[str], copies: set[str]) -> int:
    """Prints all tables; returns the exit status."""
    first = done[0].cold
    ids = [name for name, _ in measuring.submission(first.output)]
    whole, alone, count = accuracy(first, archive, copies)
    lines = [
        ["rows of submission.csv", len(ids)],
        ["accuracy", f"{whole:.4f}"],
        [f"accuracy without copies of training images ({count:,} images)", f"{alone:.4f}"],
        ["hits of the warm run", done[0].warm.record["cache"]["cached"]],
        ["hits when the members lie in a folder", loose.record["cache"]["cached"]],
    ]
    measuring.show(f"{archive.name}, {len(names):,} images", ["what", "found"], lines)
    rate = show_rates(done)
    show_stages(done)
    print(f"\nThe warm run is bounded by: {bound(done[-1].warm)}")
    same = {frozenset(measuring.results(run.output).items()) for pair in done for run in (pair.cold, pair.warm)}
    distinct = len({data for _, data in measuring.members(archive)})
    checks = [
        ("every image has its row, once", sorted(ids) == sorted(f"{archive.name}/{name}" for name in names)),
        ("run.json counts the same accuracy", abs(whole - _stated(first)) < 1e-12),
        ("all runs wrote the same bytes", len(same) == 1),
        ("every warm run hit for every image", all(p.warm.record["cache"]["cached"] == len(names) for p in done)),
        ("every image of the folder hit", loose.record["cache"]["cached"] == len(names)),
        (f"cold runs hit for none but copies ({len(names) - distinct})", _cold_hits(done) <= len(names) - distinct),
        (f"warm is {TIMES} times as fast as cold ({rate:.1f} times, median of {len(done)} pairs)", rate >= TIMES),
    ]
    return measuring.verdict(checks)


def _stated(run: Ran) -> float:
    known = run.record["accuracy"]
    return float(known["correct"] / known["known"])


def _cold_hits(done: Sequence[Pair]) -> int:
    return max(int(pair.cold.record["cache"]["cached"]) for pair in done)


if __name__ == "__main__":
    sys.exit(main())
