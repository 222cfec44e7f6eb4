"""Labels the same images in many ways and compares what comes out, bit for bit.

Compares, for each way of running: submission.csv; the rows of predictions and of images, in their order, with every
value as it is stored; and the bytes of all final files. The ways: batch sizes, threads, worker processes, block sizes,
a cold and a warm cache, the order in which the archives are named, and archives that are streamed.

`--heads A B C` gives each run several heads, whose columns stand side by side.
`--photos` labels photos with several faces each, found by the default detector, in place of ready crops.
"""

from __future__ import annotations

import hashlib
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import measuring

PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
THREADS = ("--direct_running_mode=in_memory", "--direct_num_workers=2")


@dataclass(frozen=True)
class Way:
    """One way of doing the same work: settings and flags over the usual ones, and a cache to share."""

    name: str
    settings: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    backwards: bool = False
    cache: str = ""


WAYS = (
    Way("as usual (batch 64, blocks of 256, one process), cold", cache="usual"),
    Way("the same, warm", cache="usual"),
    Way("batch 8", ("features.batch_size=8",)),
    Way("batch 32, warm", ("features.batch_size=32",), cache="usual"),
    Way("1 thread", ("read.threads=1",)),
    Way("4 threads", ("read.threads=4",)),
    Way("2 workers in memory", (), THREADS),
    Way("2 worker processes", (), PROCESSES),
    Way("2 worker processes, warm", (), PROCESSES, cache="usual"),
    Way("blocks of 32", ("read.block_images=32",)),
    Way("blocks of 32, batch 8, 2 worker processes", ("read.block_images=32", "features.batch_size=8"), PROCESSES),
    Way("blocks of 32, warm from blocks of 256", ("read.block_images=32",), cache="usual"),
    Way("archives named in the other order", backwards=True),
    Way("the other order, warm, blocks of 100", ("read.block_images=100",), backwards=True, cache="usual"),
)
SMALL = (0, 1, 2, 7, 9, 12)


def run(
    way: Way, archives: Sequence[Path], place: Path, name: str, usual: Sequence[str], heads: Sequence[str] = ()
) -> Path:
    """Runs it in a folder of its own; returns the folder."""
    inputs = list(reversed(archives)) if way.backwards else list(archives)
    cache = place / way.cache if way.cache else None
    settings = (*usual, *way.settings)
    flags = (*way.flags, *(("--head", *heads) if heads else ()))
    return measuring.label(inputs, place / name, *flags, settings=settings, cache=cache).output


def digests(output: Path) -> tuple[str, str, str, str]:
    """Returns SHA-256 of submission.csv, of the rows of predictions and of images, and of the bytes of all files."""
    files = measuring.results(output)
    whole = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
    return files["submission.csv"], rows_digest(output / "predictions"), rows_digest(output / "images"), whole


def rows_digest(folder: Path) -> str:
    """Returns the SHA-256 of names, types and values of all rows of a folder of Parquet files, in the files' order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as stream:
        stream.write_table(table.replace_schema_metadata(None).combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def archives(options: Namespace, place: Path) -> list[Path]:
    """Returns two archives: a plain tar, and a gzipped one as it is, or 750 images of both parts; or two of photos."""
    names = ("photos/groups.tar", "photos/street.tar") if options.photos else ("fer2013/val.tar.gz", "fer2013/test.tar")
    sources = [options.data / name for name in names]
    measuring.needed(*sources)
    if options.photos:
        return sources
    if not options.small:
        return sources
    return [
        measuring.write_tar(place / f"{path.name.split('.')[0]}.tar", islice(measuring.members(path), 750))
        for path in sources
    ]


def chosen(options: Namespace) -> Iterator[Way]:
    """Yields the ways to run."""
    yield from (way for number, way in enumerate(WAYS) if not options.small or number in SMALL)


def main() -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--heads", nargs="+", default=[], help="heads of every run; default: the bundled one")
    made.add_argument("--photos", action="store_true", help="photos and the default detector, not ready crops")
    options = made.parse_args()
    usual = ("write.no_face_label=neutral",) if options.photos else measuring.WHOLE
    with measuring.workplace(options) as place:
        inputs = archives(options, place)
        found = []
        for number, way in enumerate(chosen(options)):
            measuring.progress(way.name)
            found.append((way, digests(run(way, inputs, place, f"run{number}", usual, options.heads))))
        head = ["way", "submission.csv", "rows of predictions", "rows of images", "bytes of all files", "same"]
        lines = [[way.name, *(digest[:12] for digest in four), four == found[0][1]] for way, four in found]
        names = " and ".join(path.name for path in inputs)
        measuring.show(f"{names}: first digits of SHA-256", head, lines)
        differing = sum(four != found[0][1] for _, four in found)
        return measuring.verdict([(f"all {len(found)} ways give the same bytes ({differing} differ)", differing == 0)])


if __name__ == "__main__":
    sys.exit(main())
