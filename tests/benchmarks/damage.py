"""Damages inputs, the cache and the parts, and looks at who else suffers.

Images: one in four is damaged in a known way; the others' rows must be those of an undamaged run, value by value, every
image must have its row, and the exit status must be 0. Archives: cut, or with a wrong byte; what can still be read must
be labelled as ever. Cache: a bit flipped in every segment; all must be found and the results be the same bytes. Parts:
cut, or with a flipped bit, between kill and resumption; the end must be the same bytes.
"""

from __future__ import annotations

import gzip
import random
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import measuring
from measuring import Ran

Files = dict[str, bytes]
SETTINGS = (*measuring.WHOLE, "write.no_face_label=neutral")  # a rejected image has a line in submission.csv too
PARTS = (*SETTINGS, "read.block_images=32")
EVERY = 4  # one image in so many is damaged
MOST_PARTS = 100  # met damaged one after the other: then it does not get on


# --- kinds of damage --------------------------------------------------------------------------------------------------


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(1, len(data))]


def emptied(data: bytes, draw: random.Random) -> bytes:
    return b""


def zeroed(data: bytes, draw: random.Random) -> bytes:
    return bytes(len(data))


def texted(data: bytes, draw: random.Random) -> bytes:
    return b"<html><body>404 not found</body></html>"


def noised(data: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(len(data))


def tail_lost(data: bytes, draw: random.Random) -> bytes:
    """As a download or a full disk leaves it: the right length, zeros from somewhere on."""
    kept = draw.randrange(8, len(data))
    return data[:kept] + bytes(len(data) - kept)


def flipped(data: bytes, draw: random.Random) -> bytes:
    """One bit: whether a picture can still be seen to be damaged depends on its format."""
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def huge(data: bytes, draw: random.Random) -> bytes:
    """A PNG header that claims a billion pixels; a JPEG is left cut after its first marks."""
    if data.startswith(b"\x89PNG"):
        return data[:16] + (40_000).to_bytes(4, "big") * 2 + data[24:]
    return data[:20]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    cut, emptied, zeroed, texted, noised, tail_lost, flipped, huge,
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a claim was tested on, and whether it holds."""

    claim: str
    holds: bool


# --- images -----------------------------------------------------------------------------------------------------------


def rows_by_id(run: Ran) -> dict[str, list[Any]]:
    """Returns for each image its row of images and its rows of predictions, without the paths of this very run."""
    found: dict[str, list[Any]] = {}
    for folder in ("images", "predictions"):
        for row in measuring.rows(run.output / folder):
            found.setdefault(row["image_id"], []).append({k: v for k, v in row.items() if k != "source"})
    return found


def damaged_images(found: Files, place: Path) -> Iterator[Outcome]:
    """Damages one image in four, in a folder and in a tar, and compares the others with an undamaged run."""
    draw = random.Random(4)
    broken = dict(found)
    kinds: dict[str, str] = {}
    for number, name in enumerate(sorted(found)[::EVERY]):
        damage = DAMAGES[number % len(DAMAGES)]
        broken[name] = damage(found[name], draw)
        kinds[name] = damage.__name__
    for shape, write in (("folder", _as_folder), ("archive.tar", _as_tar)):
        measuring.progress(f"damaged images in a {shape}")
        good = measuring.label(write(place / "good" / shape, found), place / f"good {shape}", settings=SETTINGS)
        bad = measuring.label(write(place / "bad" / shape, broken), place / f"bad {shape}", settings=SETTINGS)
        prefix = f"{shape}/" if shape.endswith("tar") else ""
        if not prefix:
            show_kinds(bad, kinds)
        yield from neighbours(good, bad, {prefix + name for name in kinds}, shape)


def _as_folder(path: Path, found: Files) -> Path:
    return measuring.unpack(path, found.items())


def _as_tar(path: Path, found: Files) -> Path:
    return measuring.write_tar(path, found.items())


def show_kinds(run: Ran, kinds: dict[str, str]) -> None:
    """Prints what became of the images by kind of damage."""
    status = {row["image_id"]: row["reason"] or row["status"] for row in measuring.rows(run.output / "images")}
    table: dict[str, Counter[str]] = {}
    for name, kind in kinds.items():
        table.setdefault(kind, Counter())[status[name]] += 1
    lines = []
    for kind, counts in table.items():
        reported = ", ".join(f"{word} {count}" for word, count in counts.most_common())
        lines.append([kind, sum(counts.values()), sum(counts.values()) - counts["labelled"], reported])
    measuring.show("Damaged images", ["damage", "images", "rejected", "what the rows say"], lines)


def neighbours(good: Ran, bad: Ran, touched: set[str], shape: str) -> Iterator[Outcome]:
    """Yields what is claimed of a run with damaged images, whose names are `touched`."""
    before, after = rows_by_id(good), rows_by_id(bad)
    others = [name for name in before if name not in touched]
    same = sum(before[name] == after.get(name) for name in others)
    claim = f"{shape}: {same:,} of {len(others):,} undamaged images have the very rows of before"
    yield Outcome(claim, same == len(others))
    yield Outcome(f"{shape}: every image has its row", set(before) == set(after))
    counts = bad.record["counts"]
    parts = sum(counts[word] for word in ("labelled", "no_face", "rejected", "duplicate"))
    yield Outcome(f"{shape}: {counts['rejected']} rejected, and the counts add up", parts == counts["images"])


# --- archives ---------------------------------------------------------------------------------------------------------


def damaged_archives(found: Files, place: Path) -> Iterator[Outcome]:
    """Yields how runs over damaged archives end; what stands before the damage must be as in the whole archive."""
    for name, write, spoil in ARCHIVES:
        measuring.progress(f"{name}, {spoil.__name__}")
        whole, broken = place / "whole" / name, place / spoil.__name__ / name
        for path in (whole, broken):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, found)
        broken.write_bytes(spoil(broken.read_bytes()))
        good = measuring.label(whole, place / f"whole {name}", "--overwrite", settings=SETTINGS)
        bad = measuring.label(broken, place / f"{spoil.__name__} {name}", settings=SETTINGS)
        before, after = rows_by_id(good), rows_by_id(bad)
        reasons = bad.record["reasons"]
        kept = [image for image in after if after[image] == before.get(image)]
        other = [image for image in after if image in before and after[image] != before[image]]
        changed = [image for image in other if not _is_rejected(after[image])]
        wrong = [image for image in changed if after[image][0]["digest"] == before[image][0]["digest"]]
        reported = ", ".join(f"{word} {count}" for word, count in sorted(reasons.items())) or "nothing rejected"
        claim = (
            f"{name}, {spoil.__name__}: {len(kept):,} of {len(before):,} as before; {reported}; labelled otherwise, "
            f"which only the archive's sum could tell: {len(changed)}; other values for the same bytes: {len(wrong)}"
        )
        yield Outcome(claim, not wrong and len(changed) <= 1 and bool(reasons) and len(kept) > 0)


def _is_rejected(rows: list[Any]) -> bool:
    return bool(rows[0].get("status") == "rejected")


def _write_zip(path: Path, found: Files) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in found.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def _write_tar(path: Path, found: Files) -> None:
    measuring.write_tar(path, found.items())


def _write_tar_gz(path: Path, found: Files) -> None:
    plain = measuring.write_tar(path.with_suffix(""), found.items())
    path.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()


def cut_in_the_middle(data: bytes) -> bytes:
    return data[: len(data) // 2]


def a_wrong_bit_in_the_middle(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


def a_wrong_header(data: bytes) -> bytes:
    """Spoils the name in the first tar header after the middle."""
    at = data.index(b"ustar", len(data) // 2) - 257
    return data[: at + 3] + bytes([data[at + 3] ^ 1]) + data[at + 4 :]


ARCHIVES: tuple[tuple[str, Callable[[Path, Files], None], Callable[[bytes], bytes]], ...] = (
    ("images.tar", _write_tar, cut_in_the_middle),
    ("images.tar", _write_tar, a_wrong_header),
    ("images.tar.gz", _write_tar_gz, cut_in_the_middle),
    ("images.tar.gz", _write_tar_gz, a_wrong_bit_in_the_middle),
    ("images.zip", _write_zip, a_wrong_bit_in_the_middle),
)


# --- what the program keeps -------------------------------------------------------------------------------------------


def damaged_cache(archive: Path, place: Path) -> Iterator[Outcome]:
    """Flips a bit in every segment, at places drawn from a seed, and cuts the index."""
    measuring.progress("a damaged cache")
    cache, draw = place / "cache", random.Random(6)
    first = measuring.label(archive, place / "first", settings=SETTINGS, cache=cache)
    segments = sorted(cache.glob("*/*.h5"))
    for path in segments:
        path.write_bytes(flipped(path.read_bytes(), draw))
    again = measuring.label(archive, place / "again", settings=SETTINGS, cache=cache)
    reported = again.record["cache"]
    same = measuring.results(again.output) == measuring.results(first.output)
    claim = f"a bit flipped in each of {len(segments)} segments: {reported['damaged']} found"
    yield Outcome(claim, reported["damaged"] == len(segments) and reported["cached"] == 0)
    yield Outcome("… and the results are the same bytes", same)
    for path in cache.glob("*/index.bin"):
        path.write_bytes(path.read_bytes()[:-100])
    third = measuring.label(archive, place / "third", settings=SETTINGS, cache=cache)
    hits = third.record["cache"]["cached"]
    whole = third.record["counts"]["images"]
    yield Outcome(f"a cut index: built anew, {hits:,} of {whole:,} hits", hits == whole)


def damaged_parts(archive: Path, place: Path) -> Iterator[Outcome]:
    """Stops a run by killing it, damages half of its parts, and lets it go on."""
    measuring.progress("damaged parts")
    expected = measuring.label(archive, place / "expected", settings=PARTS)
    output, draw = place / "parts", random.Random(7)
    words = measuring.arguments(archive, output, settings=PARTS)
    started = measuring.start("-m", "pipeline", *words, output=output)
    while len(list((output / "parts").glob("*.parquet"))) < 4:
        if started.ended():
            sys.exit(f"a run ended before it could be killed: {started.wait().err[-2000:]}")
        time.sleep(0.002)
    started.kill()
    standing = sorted((output / "parts").glob("*.parquet"))
    for number, path in enumerate(standing[::2]):
        path.write_bytes((cut if number % 2 else flipped)(path.read_bytes(), draw))
    ended, again = _as_told(words, output)
    same = ended.status == 0 and measuring.results(output) == measuring.results(expected.output)
    claim = (
        f"{len(standing[::2])} of {len(standing)} parts damaged between kill and resumption, {again} stops of the "
        "merge, which removed them itself and said to give the same command again: the end is the same bytes"
    )
    yield Outcome(claim, same)


def _as_told(words: list[str], output: Path) -> tuple[Ran, int]:
    """Gives the same command until it is done, as it says; counts how often damaged parts stopped its merge."""
    met = 0
    while True:
        ended = measuring.start("-m", "pipeline", *words, output=output).wait()
        line = next((text for text in ended.err.splitlines() if text.startswith("pipeline: error")), "")
        if ended.status != 3 or "is damaged" not in line or met > MOST_PARTS:
            return ended, met
        met += 1


# --- all of it --------------------------------------------------------------------------------------------------------


def main() -> int:
    made = measuring.parser(__doc__ or "")
    options = made.parse_args()
    faces, photos = options.data / "fer2013" / "test.tar", options.data / "photos" / "groups.tar"
    measuring.needed(faces, photos)
    count = 160 if options.small else 1_500
    with measuring.workplace(options) as place:
        found = {f"photos/{name}": data for name, data in islice(measuring.members(photos), count // 8)}
        found |= dict(islice(measuring.members(faces), count))
        archive = measuring.write_tar(place / "sample.tar", found.items())
        outcomes: Sequence[Outcome] = [
            *damaged_images(found, place),
            *damaged_archives(found, place),
            *damaged_cache(archive, place),
            *damaged_parts(archive, place),
        ]
    return measuring.verdict([(outcome.claim, outcome.holds) for outcome in outcomes])


if __name__ == "__main__":
    sys.exit(main())
