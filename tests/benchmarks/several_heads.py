"""Labels FER2013's test part again from the cache, with one head and with three: what two more heads cost.

The runs alternate, each in a process of its own; CPU-seconds count, of the whole process and of its blocks alone
(`work_cpu` of run.json), and medians are shown. Wall times say little on a shared machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

import measuring
from measuring import Ran

HEADS = ("bundled", "bundled/ferplus", "again=bundled")
MOST = 1.3  # times the CPU-seconds of one head


def label(archive: Path, output: Path, cache: Path, heads: int) -> Ran:
    """Labels with the first few heads."""
    arguments = measuring.arguments(archive, output, "--head", *HEADS[:heads], cache=cache)
    return measuring.start("-m", "pipeline", *arguments, output=output).wait().done()


def main() -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--times", type=int, default=5, help="how often each is labelled again")
    options = made.parse_args()
    test = options.data / "fer2013" / "test.tar"
    measuring.needed(test)
    with measuring.workplace(options) as place:
        if options.small:
            some = [member for _, member in zip(range(1200), measuring.members(test), strict=False)]
            test = measuring.write_tar(place / "test.tar", some)
        cache, found = place / "cache", {1: [], 3: []}
        measuring.progress("labelling, cold")
        label(test, place / "cold", cache, 1)
        for number in range(options.times):
            for heads, runs in found.items():
                measuring.progress(f"labelling again, {heads} heads")
                runs.append(label(test, place / f"{heads}_{number}", cache, heads))
        return report(found)


def report(found: dict[int, list[Ran]]) -> int:
    """Prints the table; returns the exit status."""
    whole = {heads: measuring.median(run.cpu_s for run in runs) for heads, runs in found.items()}
    work = {heads: measuring.median(run.seconds["work_cpu"] for run in runs) for heads, runs in found.items()}
    images = found[1][0].record["counts"]["images"]
    lines = [[heads, whole[heads], work[heads], *map(measuring.ratio, (whole[heads] / whole[1], work[heads] / work[1]))]
             for heads in found]  # fmt: skip
    title = f"{images:,} images from the cache, median of {len(found[1])} runs each"
    measuring.show(title, ["heads", "CPU-s of the process", "CPU-s of the blocks", "times", "times"], lines)
    every = [run for runs in found.values() for run in runs]
    first = [measuring.submission(runs[0].output) for runs in found.values()]
    return measuring.verdict(
        [
            (f"three heads cost {whole[3] / whole[1]:.2f} times one, at most {MOST}", whole[3] <= MOST * whole[1]),
            ("every image came from the cache", all(run.record["cache"]["computed"] == 0 for run in every)),
            ("the submission of the first head is the same", first[0] == first[1]),
        ]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
