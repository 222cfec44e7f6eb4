"""Labels FER2013's test part, then again with other heads from the cache: what a new head costs.

The other heads: the second bundled one, and two of other kinds, ridge and dense layers, trained on the validation part.
Measures, in a process of its own for every run: images decoded, whether an engine was loaded, hits of the cache, and
images/s by the two figures of `run.json`. Each relabelling is done several times; the medians are shown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
from measuring import Ran

WITNESS = """
import json, runpy, sys
from transforms.formats import decode
decoded, real = [], decode.decode
def watched(*given, **more):
    decoded.append(None)
    return real(*given, **more)
decode.decode = watched
try:
    runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
finally:
    engines = sorted({"tensorflow", "keras", "jax"} & set(sys.modules))
    print("witness " + json.dumps({"decoded": len(decoded), "engines": engines}), file=sys.stderr)
"""  # whoever imports `decode` later gets the one that counts


@dataclass(frozen=True)
class Labelling:
    """Runs of one head: `decoded` images and `engines` of each run are what its process reported in the end."""

    head: str
    runs: list[Ran]

    def reported(self, what: str) -> list[Any]:
        """Returns what each run's witness said."""
        found = []
        for run in self.runs:
            line = next(line for line in reversed(run.err.splitlines()) if line.startswith("witness "))
            found.append(json.loads(line.removeprefix("witness "))[what])
        return found

    def rate(self, name: str) -> float:
        """Returns the median of a figure of `run.json`'s seconds."""
        return measuring.median(run.seconds[name] for run in self.runs)


def label(archive: Path, output: Path, cache: Path, head: Path | str | None) -> Ran:
    """Labels with a witness in the process."""
    more = [] if head is None else ["--head", head]
    arguments = measuring.arguments(archive, output, *more, cache=cache)
    return measuring.start("-c", WITNESS, *arguments, output=output).wait().done()


def train(kind: str, labelled: Path, output: Path, cache: Path) -> Path:
    """Trains a head on the features that the bundled one takes; returns its folder."""
    given = ["--runner=DirectRunner", "--quiet", "--input", labelled, "--output", output, "--cache", cache]
    settings = ["--set", *measuring.WHOLE, f"head.kind={kind}", "mlp.epochs=10"]
    measuring.start("-m", "pipeline", "train-head", *given, *settings).wait().done()
    return output


def main() -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--times", type=int, default=3, help="how often each head labels again")
    options = made.parse_args()
    test, labelled = (options.data / "fer2013" / name for name in ("test.tar", "val.tar.gz"))
    measuring.needed(test, labelled)
    with measuring.workplace(options) as place:
        if options.small:
            some = [member for _, member in zip(range(1200), measuring.members(test), strict=False)]
            test = measuring.write_tar(place / "test.tar", some)
        names = [name for name, _ in measuring.members(test)]
        cache, times = place / "cache", 1 if options.small else options.times
        heads: dict[str, Path | str] = {"bundled/ferplus": "bundled/ferplus"}
        for kind in ("ridge", "mlp"):
            measuring.progress(f"training a head: {kind}")
            heads[kind] = train(kind, labelled, place / kind, cache)
        measuring.progress("labelling, cold")
        first = Labelling("bundled, nothing cached", [label(test, place / "cold", cache, None)])
        again = []
        for name, head in heads.items():
            measuring.progress(f"labelling again: {name}")
            folder = place / name.replace("/", "_")
            runs = [label(test, folder.with_name(f"{folder.name}{n}"), cache, head) for n in range(times)]
            again.append(Labelling(name, runs))
        return report(first, again, names)


def report(first: Labelling, again: Sequence[Labelling], names: Sequence[str]) -> int:
    """Prints the table; returns the exit status."""
    head = [
        "head",
        "images decoded",
        "runtime loaded",
        "cached",
        "images/s",
        "first to last block",
        "whole run s",
        "CPU-s",
    ]
    lines = [
        [
            one.head,
            one.reported("decoded")[0],
            "loaded" if one.reported("engines")[0] else "not loaded",
            one.runs[0].record["cache"]["cached"],
            one.rate("images_per_s"),
            one.rate("images_per_s_first_to_last_block"),
            measuring.median(run.wall_s for run in one.runs),
            measuring.median(run.cpu_s for run in one.runs),
        ]
        for one in (first, *again)
    ]
    measuring.show(
        f"{len(names):,} images, median of {len(again[0].runs)} runs of each head after the first", head, lines
    )
    ids = {tuple(row[0] for row in measuring.submission(run.output)) for one in (first, *again) for run in one.runs}
    rates = ", ".join(f"{one.rate('images_per_s') / first.rate('images_per_s'):.1f} times" for one in again)
    print(f"\nLabelling again is {rates} as fast as the first run, by images/s without the engine's start.")
    return measuring.verdict(
        [
            ("the first run decoded every image of different bytes", first.reported("decoded")[0] > 0.9 * len(names)),
            ("labelling again decodes no image", all(set(one.reported("decoded")) == {0} for one in again)),
            (
                "labelling again loads no engine",
                all(engines == [] for one in again for engines in one.reported("engines")),
            ),
            ("every image hit", all(run.record["cache"]["cached"] == len(names) for o in again for run in o.runs)),
            ("a run of one head always writes the same bytes", all(_equal(one.runs) for one in again)),
            ("another head writes other bytes", not _equal([one.runs[0] for one in (first, *again)])),
            ("every image has its row, in every run", len(ids) == 1 and len(next(iter(ids))) == len(names)),
        ]
    )


def _equal(runs: Sequence[Ran]) -> bool:
    return len({frozenset(measuring.results(run.output).items()) for run in runs}) == 1


if __name__ == "__main__":
    sys.exit(main())
