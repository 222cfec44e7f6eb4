"""Peak memory of whole runs over few and over many images, cold and from the cache, and what one more image costs.

Measures: the largest resident set of the process that does all the work (VmHWM, as Linux keeps it: that of a parent may
be inherited by what `getrusage` tells of a child). The many images are those of FER2013 again and again under new names
and as new bytes, so that none is a copy. The growth is (peak with many − peak with few) / (many − few).
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import measuring

LIMIT_BYTES = 512  # an image, beyond what depends on block and pool sizes
HERE = Path(__file__)
MB = 2**20


def peak(archive: Path, output: Path, cache: Path) -> int:
    """Returns the peak memory of a run, in bytes."""
    words = measuring.arguments(archive, output, cache=cache)
    ran = measuring.start(HERE, "--telling", *words, output=output).wait().done()
    return int(ran.out.split()[-1])


def telling(words: list[str]) -> int:
    """Runs the program in this process, then prints its peak memory in bytes."""
    from pipeline.cli import main as program

    status = program(words)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            print(int(line.split()[1]) * 1024)
    return status


def measured(options: Namespace, place: Path, counts: Sequence[int]) -> list[tuple[str, list[list[int]]]]:
    """Returns for cold and warm runs the peaks of each repetition, a column a count."""
    source = options.data / "fer2013" / "test.tar"
    archives = []
    for count in counts:
        measuring.progress(f"making {count:,} images")
        archives.append(measuring.write_tar(place / f"images{count}.tar", measuring.repeated(source, count)))
    cold, warm = [], []
    for number in range(options.repeats):
        outputs = [place / f"cold{number}-{count}" for count in counts]
        caches = [place / f"cache{number}-{count}" for count in counts]
        measuring.progress(f"cold, {number + 1} of {options.repeats}")
        cold.append([peak(*three) for three in zip(archives, outputs, caches, strict=True)])
        measuring.progress(f"warm, {number + 1} of {options.repeats}")
        again = [place / f"warm{number}-{count}" for count in counts]
        warm.append([peak(*three) for three in zip(archives, again, caches, strict=True)])
    return [("cold", cold), ("from the cache", warm)]


def main(words: Sequence[str]) -> int:
    if words and words[0] == "--telling":
        return telling(list(words[1:]))
    made = measuring.parser(__doc__ or "")
    made.add_argument("--few", type=int, default=4_000)
    made.add_argument("--many", type=int, default=40_000)
    made.add_argument("--repeats", type=int, default=3)
    options = made.parse_args(words)
    measuring.needed(options.data / "fer2013" / "test.tar", Path("/proc/self/status"))
    if options.small:
        options.few, options.many, options.repeats = 500, 3_000, 1
    few, many = options.few, options.many
    lines, claims = [], []
    with measuring.workplace(options) as place:
        for name, repeats in measured(options, place, (few, many)):
            low, high = (measuring.median(column) for column in zip(*repeats, strict=True))
            growth = (high - low) / (many - few)
            swing = max(max(column) - min(column) for column in zip(*repeats, strict=True))
            lines.append([name, f"{low / MB:.0f}", f"{high / MB:.0f}", f"{growth:.0f}", f"{swing / MB:.0f}"])
            claims.append((f"{name}: at most {LIMIT_BYTES} bytes an image ({growth:.0f})", growth <= LIMIT_BYTES))
    head = ["run", f"peak at {few:,} images, MB", f"at {many:,}", "growth, bytes an image", "repetitions differ by, MB"]
    measuring.show(f"Peak memory, face_vgg, median of {options.repeats}", head, lines)
    return measuring.verdict(claims)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
