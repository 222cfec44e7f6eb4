"""How long until something happens: `--help`, and from the start of a run to its first block, by phase.

`--help` and a mistyped setting: whole processes, ten times, from a warm disk; and once with the files of all installed
packages dropped from memory (each by name, so nobody else's are), as after a start of the machine.

A run: the program in a process of its own, with a clock at the functions where one phase gives way to the next.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import measuring

HERE = Path(__file__)
PHASES = {
    "Python, the command line": "interpreter to the end of `import pipeline.cli`",
    "importing Beam and the stages": "`import pipeline.actions.label`",
    "settings, head, fingerprints": "to the start of planning",
    "planning": "listing the archive",
    "Beam": "graph, its translation, to the first block's reading",
    "reading and decoding": "to the start of the engine",
    "the engine": "importing it, the net, compiling, warming up",
    "the first block": "to its part on the disk",
}


# --- commands ---------------------------------------------------------------------------------------------------------


def commands(options: Namespace) -> None:
    """Prints how long the commands take that should answer at once."""
    repeats = 3 if options.small else 10
    lines = []
    for name, words in (("--help", ["--help"]), ("a mistyped setting", ["--set", "reed.threads=2", "--print-config"])):
        measuring.progress(name)
        cold = [timed(words, cold=True) for _ in range(options.cold)]
        warm = [timed(words) for _ in range(repeats)]
        lines.append([name, measuring.median(warm), min(warm), max(warm), measuring.median(cold) if cold else None])
    head = ["command", "warm, median s", "least", "most", "from a cold disk, s"]
    measuring.show(f"Commands that start neither Beam nor an engine, {repeats} times", head, lines)


def timed(words: Sequence[str], *, cold: bool = False) -> float:
    """Returns the wall time of a command."""
    if cold:
        drop_packages()
    return measuring.start("-m", "pipeline", *words).wait().wall_s


def drop_packages() -> None:
    """Asks the kernel to forget the files of all installed packages; those in use elsewhere stay."""
    import sysconfig

    folders = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")} | {str(measuring.ROOT)}
    for folder in sorted(folders):
        for parent, _, names in os.walk(folder):
            for name in names:
                try:
                    file = os.open(os.path.join(parent, name), os.O_RDONLY)
                except OSError:
                    continue
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)


# --- a run, by phase --------------------------------------------------------------------------------------------------


def phases(options: Namespace, place: Path) -> None:
    """Prints the phases from the start of a run to its first block."""
    source = options.data / "fer2013" / "test.tar"
    measuring.needed(source)
    archive = measuring.write_tar(place / "test.tar", islice(measuring.members(source), 512))
    repeats = 2 if options.small else 5
    found, totals, reported = [], [], []
    for number in range(repeats):
        measuring.progress(f"a run by phase, {number + 1} of {repeats}")
        output = place / f"run{number}"
        words = measuring.arguments(archive, output)
        began = time.time()
        ran = measuring.start(HERE, "--timed", *words, output=output).wait().done()
        marks = [began, *map(float, ran.out.split())]
        found.append([late - early for early, late in pairwise(marks)])
        totals.append(marks[-1] - began)
        reported.append(ran.seconds["to_first_block"])
    medians = [measuring.median(column) for column in zip(*found, strict=True)]
    lines = [[name, what, spent] for (name, what), spent in zip(PHASES.items(), medians, strict=True)]
    lines.append(["all", "start to first part", measuring.median(totals)])
    lines.append(["as run.json has it", "from the command's first line on", measuring.median(reported)])
    measuring.show(f"From start to first block, warm disk, median of {repeats}, seconds", ["phase", "what", "s"], lines)


def run_timed(words: list[str]) -> int:
    """Runs the program in this process; prints when each phase ended (seconds since the epoch)."""
    marks: list[float] = []

    def mark() -> None:
        marks.append(time.time())

    from pipeline.cli import main as program

    mark()
    from pipeline.run import drive

    mark()
    from transforms import extract_features
    from transforms.tally import Tally

    drive.make_plan = _between(mark, drive.make_plan, mark)
    extract_features.get_device = _between(mark, extract_features.get_device, mark)  # type: ignore[assignment]
    Tally.begin = _once(Tally.begin, mark)  # type: ignore[method-assign]
    Tally.add_block = _once(Tally.add_block, mark)  # type: ignore[method-assign]
    status = program(words)
    print(*marks)
    return status


def _between(before: Callable[[], None], call: Callable[..., Any], after: Callable[[], None]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        before()
        result = call(*args, **kwargs)
        after()
        return result

    return wrapped


def _once(call: Callable[..., Any], after: Callable[[], None]) -> Callable[..., Any]:
    done: list[bool] = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        if not done:
            done.append(True)
            after()
        return result

    return wrapped


def main(words: Sequence[str]) -> int:
    if words and words[0] == "--timed":
        return run_timed(list(words[1:]))
    made = measuring.parser(__doc__ or "")
    made.add_argument("--cold", type=int, default=1, help="times to start from a cold disk, 0 for never")
    options = made.parse_args(words)
    if options.small or not hasattr(os, "posix_fadvise"):
        options.cold = 0
    commands(options)
    with measuring.workplace(options) as place:
        phases(options, place)
    return measuring.verdict([])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
