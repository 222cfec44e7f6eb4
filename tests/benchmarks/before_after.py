"""Whether two commits give the same values: boxes, labels and probabilities of three inputs, row by row.

FER2013's test part without a detector, group photos with Haar, and the nasty files of the tests. Both commits run with
the same settings, an old commit from a worktree of its own. Columns that only one of them has are listed. What is meant
to differ is named by `--expect COLUMN`: it is counted, and breaks no claim. `--renamed OLD=NEW` gives a column of the
old commit its new name.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import measuring

INPUTS = {  # name: settings
    "fer2013": ("faces.detector=none",),
    "groups": ("faces.detector=haar",),
    "nasty": ("faces.detector=none",),
}
KEYS = {"predictions": ("image_id", "face_index"), "images": ("image_id",)}
Rows = dict[tuple[Any, ...], dict[str, Any]]


def inputs(options: Namespace, place: Path) -> dict[str, Path]:
    """Returns the inputs by name; with `--small` some of their images."""
    import pictures

    step = 20 if options.small else 1
    found = {}
    for name, file in (("fer2013", "fer2013/test.tar"), ("groups", "photos/groups.tar")):
        measuring.needed(options.data / file)
        members = list(measuring.members(options.data / file))[::step]
        found[name] = measuring.write_tar(place / f"{name}.tar", members)
    nasty = [(name, data) for name, (data, _) in pictures.nasty_files().items()]
    found["nasty"] = measuring.write_tar(place / "nasty.tar", nasty)
    return found


def rows_of(
    tree: Path, source: Path, output: Path, settings: Sequence[str], renamed: Mapping[str, str]
) -> dict[str, Rows]:
    """Labels an input with the program in `tree` and returns its rows by table and key.

    Args:
        renamed: new names of columns by their names in the output.
    """
    words = ["--input", source, "--output", output, "--quiet", "--set", "write.no_face_label=neutral", *settings]
    command = [sys.executable, "-m", "pipeline", *map(str, words)]
    ran = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{tree} on {source.name} ended with {ran.returncode}:\n{ran.stderr[-2000:]}")
    found: dict[str, Rows] = {table: {} for table in KEYS}
    for table, keys in KEYS.items():
        for given in measuring.rows(output / table):
            row = {renamed.get(name, name): value for name, value in given.items()}
            found[table][tuple(row[key] for key in keys)] = row
    return found


def compared(before: Rows, after: Rows) -> tuple[dict[str, int], list[str]]:
    """Returns the rows that differ by column, `row` for rows of one side alone, and columns of one side alone."""
    different: dict[str, int] = {}
    if lost := len(before.keys() ^ after.keys()):
        different["row"] = lost
    columns: list[set[str]] = [set(), set()]
    for key in before.keys() & after.keys():
        old, new = before[key], after[key]
        columns[0] |= old.keys()
        columns[1] |= new.keys()
        for name in old.keys() & new.keys():
            if old[name] != new[name]:
                different[name] = different.get(name, 0) + 1
    return different, sorted(columns[0] ^ columns[1])


def words(counts: Mapping[str, int]) -> str:
    """Returns counts as a text."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


def run(options: Namespace, place: Path) -> int:
    """Compares, prints, and returns the exit status."""
    lines, claims = [], []
    renamed = dict(text.split("=", 1) for text in options.renamed)
    with measuring.checkout(options.before) as tree:
        for name, source in inputs(options, place).items():
            measuring.progress(f"{name}: the old program, then the new one")
            settings = INPUTS[name]
            old = rows_of(tree, source, place / f"old_{name}", settings, renamed)
            new = rows_of(measuring.ROOT, source, place / f"new_{name}", settings, {})
            for table in KEYS:
                different, apart = compared(old[table], new[table])
                unexpected = {column: count for column, count in different.items() if column not in options.expect}
                lines.append(
                    [name, table, f"{len(old[table]):,}", f"{len(new[table]):,}", words(different), ", ".join(apart)]
                )
                claims.append((f"{name}: {table} has the same values, but for what is meant", not unexpected))
    head = ["input", "table", "rows before", "rows after", "rows that differ, by column", "columns of one side"]
    measuring.show(f"{options.before} and this tree", head, lines)
    return measuring.verdict(claims)


def main(arguments: Sequence[str]) -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--before", required=True, help="the old commit")
    made.add_argument("--expect", nargs="*", default=[], help="columns that are meant to differ; row for rows")
    made.add_argument("--renamed", nargs="*", default=[], metavar="OLD=NEW", help="columns that have new names")
    options = made.parse_args(arguments)
    with measuring.workplace(options) as place:
        return run(options, place)


if __name__ == "__main__":
    sys.path.insert(0, str(measuring.ROOT / "tests"))  # for `pictures`
    sys.exit(main(sys.argv[1:]))
