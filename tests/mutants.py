"""Mutants by number: damaged images and archives, the same for the same number on every machine with the same codecs.

Not a test: other tests `import mutants`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import kinds
import mutations
import numpy as np
import pictures

SPLICES = 0.08  # the share of mutants that are made of two files
UNTOUCHED = 0.02  # stay as they are: what is sound must be taken


@dataclass(frozen=True)
class Mutant:
    """A damaged file.

    Attributes:
        number: the seed.
        name: kind of the picture it was, or the archive's file name.
        how: names of what was done to it.
        data: its bytes.
        whole: for an archive, the members it had.
    """

    number: int
    name: str
    how: tuple[str, ...]
    data: bytes
    whole: dict[str, bytes]


def image_mutant(number: int) -> Mutant:
    """Returns the damaged image of this number."""
    draw = random.Random(f"image {number}")
    seeds = kinds.kinds()
    name = draw.choice(_names())
    if draw.random() < SPLICES:
        data = mutations.spliced(seeds[name], seeds[draw.choice(_names())], draw)
        return Mutant(number, name, ("spliced",), data, {})
    how, data = _mutated(seeds[name], mutations.OF_IMAGES, draw)
    return Mutant(number, name, how, data, {})


def archive_mutant(number: int) -> Mutant:
    """Returns the damaged archive of this number."""
    draw = random.Random(f"archive {number}")
    seeds = archives()
    name = draw.choice(list(seeds))
    whole, data = seeds[name]
    if draw.random() < SPLICES:
        other = draw.choice(list(seeds.values()))[1]
        return Mutant(number, name, ("spliced",), mutations.spliced(data, other, draw), whole)
    how, data = _mutated(data, mutations.OF_ARCHIVES[Path(name).suffix], draw)
    return Mutant(number, name, how, data, whole)


def _mutated(data: bytes, ways: Sequence[mutations.Mutation], draw: random.Random) -> tuple[tuple[str, ...], bytes]:
    if draw.random() < UNTOUCHED:
        return (), data
    how: list[str] = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if data:
            way = draw.choice(ways)
            how.append(way.__name__)
            data = way(data, draw)
    return tuple(how), data


@cache
def _names() -> list[str]:
    """Returns the kinds, those of formats with few kinds repeated: each format gets a fair share of the mutants."""
    by_format: dict[str, list[str]] = {}
    for name in kinds.kinds():
        by_format.setdefault(name.partition("/")[0], []).append(name)
    return [name for names in by_format.values() for name in names * max(1, 24 // len(names))]


@cache
def archives() -> dict[str, tuple[dict[str, bytes], bytes]]:
    """Returns sound archives by file name: the members that are images, and the file's bytes."""
    files = {
        f"{folder}/{number}.png": pictures.png(pictures.plain(4, 4, number * 9) + np.eye(4, dtype=np.uint8))
        for number, folder in enumerate(("happy", "sad", "happy", "angry", "sad", "happy", "sad"))
    }
    long = {f"{'a_long_folder/' * 12}{name}": data for name, data in files.items()}
    made: dict[str, tuple[dict[str, bytes], bytes]] = {}
    for form, words in ((0, "ustar"), (1, "gnu"), (2, "pax")):
        made[f"{words}.tar"] = files, pictures.tar_bytes(files, form)
    made["long.tar"] = long, pictures.tar_bytes(long)
    made["two.tar"] = files | long, pictures.tar_bytes(files) + pictures.tar_bytes(long)
    made["small.tar.gz"] = files, gzip.compress(pictures.tar_bytes(files), mtime=0)
    made["stored.zip"] = files, _zip(files, zipfile.ZIP_STORED)
    made["deflated.zip"] = files, _zip(files, zipfile.ZIP_DEFLATED)
    made["streamed.zip"] = files, _zip(files, zipfile.ZIP_DEFLATED, streamed=True)
    with tempfile.TemporaryDirectory() as folder:
        write = {
            "records.tfrecord": pictures.write_tfrecord,
            "packed.tfrecord.gz": pictures.write_tfrecord,
            "rows.parquet": pictures.write_parquet,
        }
        for name, writer in write.items():
            made[name] = files, writer(Path(folder) / name, files).read_bytes()
        groups = pictures.write_parquet(Path(folder) / "groups.parquet", files, rows_in_group=2)
        made[groups.name] = files, groups.read_bytes()
        faces = {f"happy/{shift}": np.roll(pictures.gradient(48, 48), shift) for shift in range(3)}
        table = pictures.write_fer_csv(Path(folder) / "fer2013.csv", {n: pictures.png(f) for n, f in faces.items()})
        rows = {f"Training/{row:08d}": pictures.pnm(face) for row, face in enumerate(faces.values())}
        made["fer2013.csv"] = rows, table.read_bytes()
    return made


class _OneWay(io.BytesIO):
    """A file that cannot be sought: zipfile then writes sizes after the members."""

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("seek")


def _zip(files: dict[str, bytes], method: int, *, streamed: bool = False) -> bytes:
    file = _OneWay() if streamed else io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def digest(*parts: bytes) -> str:
    """Returns a short SHA-256 of what came out."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def main(words: Sequence[str]) -> int:
    """Writes one mutant to standard output: `mutants.py image|archive NUMBER`."""
    make = {"image": image_mutant, "archive": archive_mutant}[words[0]]
    mutant = make(int(words[1]))
    print(mutant.name, *mutant.how, sep=", ", file=sys.stderr)
    sys.stdout.buffer.write(mutant.data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
