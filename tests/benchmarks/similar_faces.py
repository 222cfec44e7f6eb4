"""Near-duplicates among a million faces: how many planted ones are found, in how much time and memory.

Features are made up: 512 values of float16, in two kinds. `even`: every direction varies alike, so nothing but the
planted pairs is similar. `uneven`: a few directions vary most, as in features of networks, so many unrelated faces look
somewhat alike and buckets are crowded. 2,000 pairs are planted at cosines from 0.94 to 1. CPU seconds are of adding all
features and of the search, apart. Memory is the largest resident set (VmHWM) of the process, less what it had before;
the features are in a file.

`--peer usearch` or `--peer faiss` also measures an index of that library, where it is installed: each face's nearest
neighbours, whose pairs at the same cosine count as found. The library is no dependency of the program.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import numpy as np

HERE = Path(__file__)
WIDTH, PAIRS, LEAST = 512, 2_000, 0.94
STEP = 8_192
FACES, SMALL = (100_000, 1_000_000), (20_000,)
LEAST_FOUND = {"even": 0.98, "uneven": 0.92}  # share of the planted pairs
SPECTRUM = {"even": 0.0, "uneven": 0.75}  # directions vary as 1 / place ** this


def make(path: Path, faces: int, kind: str) -> np.ndarray:
    """Writes features to a file; returns the planted pairs, (PAIRS, 2)."""
    draw = np.random.default_rng(7)
    scale = (1 / np.arange(1, WIDTH + 1) ** SPECTRUM[kind]).astype(np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.float16, (faces, WIDTH))
    for start in range(0, faces, STEP):
        count = min(STEP, faces - start)
        out[start : start + count] = draw.standard_normal((count, WIDTH), np.float32) * scale + 1
    pairs = draw.permutation(faces)[: 2 * PAIRS].reshape(-1, 2)
    one = out[pairs[:, 0]].astype(np.float32) - 1
    across = draw.standard_normal(one.shape, np.float32)
    length = np.linalg.norm(one, axis=1, keepdims=True)
    across -= (across * one).sum(1, keepdims=True) / length**2 * one
    across *= length / np.linalg.norm(across, axis=1, keepdims=True)
    cosine = draw.uniform(LEAST, 1, (len(pairs), 1)).astype(np.float32)
    out[pairs[:, 1]] = cosine * one + np.sqrt(1 - cosine**2) * across + 1
    out.flush()
    return np.sort(pairs, axis=1)


@dataclass(frozen=True)
class Searched:
    """What a search found: pairs, CPU seconds of adding and of searching, peak memory, and the mean taken off."""

    pairs: set[tuple[int, int]]
    adding: float
    searching: float
    peak: int
    mean: np.ndarray


def ours(path: Path) -> Searched:
    """Searches as the page of a run does."""
    from models.evaluation.near_duplicates import Sketches, candidate_pairs, centred_cosine

    start = time.process_time()
    sketches = Sketches()
    for some in parts(path):
        sketches.add(some)
    added = time.process_time()
    found = candidate_pairs(sketches.words(), LEAST)
    searched, peak = time.process_time(), _peak()
    assert sketches.mean is not None
    pairs, features = set(), np.load(path, mmap_mode="r")
    for at in range(0, len(found), STEP):
        one, other = found.one[at : at + STEP], found.other[at : at + STEP]
        alike = centred_cosine(features[one], features[other], sketches.mean) >= LEAST
        pairs |= set(zip(one[alike].tolist(), other[alike].tolist(), strict=True))
    return Searched(pairs, added - start, searched - added, peak, sketches.mean)


def peer(name: str, path: Path) -> Searched:
    """Searches by an index of another library: the nearest two of each face."""
    features = np.load(path, mmap_mode="r")
    mean = np.array(features[:4_096]).mean(axis=0, dtype=np.float64).astype(np.float32)
    start = time.process_time()
    index: Any
    if name == "usearch":
        from usearch.index import Index

        index = Index(ndim=WIDTH, metric="cos", dtype="f16")
    else:
        import faiss

        cells = int(4 * np.sqrt(len(features)))
        index = faiss.index_factory(WIDTH, f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.train(_unit(np.array(features[:: max(1, len(features) // (40 * cells))]), mean))
        index.nprobe = 8
    del features
    at = 0
    for some in parts(path):
        if name == "usearch":
            index.add(np.arange(at, at + len(some)), _unit(some, mean))
        else:
            index.add(_unit(some, mean))
        at += len(some)
    added = time.process_time()
    pairs: set[tuple[int, int]] = set()
    at = 0
    for some in parts(path):
        if name == "usearch":
            matches = index.search(_unit(some, mean), 3)
            keys, near = matches.keys, 1 - matches.distances
        else:
            near, keys = index.search(_unit(some, mean), 3)
        row, place = np.nonzero((near >= LEAST) & (keys != np.arange(at, at + len(some))[:, None]))
        ends = np.sort(np.stack([row + at, keys[row, place].astype(np.int64)], axis=1), axis=1)
        pairs |= set(map(tuple, ends.tolist()))
        at += len(some)
    return Searched(pairs, added - start, time.process_time() - added, _peak(), mean)


def _unit(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    out = features.astype(np.float32) - mean
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def telling(name: str, path: Path) -> int:
    """Searches in this process; prints CPU seconds, peak memory in bytes, and the share of planted pairs found."""
    from models.evaluation.near_duplicates import centred_cosine

    before = _peak()
    found = ours(path) if name == "ours" else peer(name, path)
    features, planted = np.load(path, mmap_mode="r"), np.load(path.with_suffix(".pairs.npy"))
    cosine = centred_cosine(features[planted[:, 0]], features[planted[:, 1]], found.mean)
    hit = np.array([tuple(pair) in found.pairs for pair in planted.tolist()])
    bands = [hit[(cosine >= low) & (cosine < low + 0.02)].mean() for low in (0.94, 0.96, 0.98)]
    print(found.adding, found.searching, found.peak - before, *bands, len(found.pairs))
    return 0


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def parts(path: Path) -> Iterator[np.ndarray]:
    """Yields the features of a file, read and not mapped, so that memory is what the search takes."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while data := file.read(STEP * WIDTH * 2):
            yield np.frombuffer(data, np.float16).reshape(-1, WIDTH)


def main() -> int:
    words = measuring.parser(__doc__)
    words.add_argument("--peer", action="append", default=[], choices=("usearch", "faiss"))
    words.add_argument("--faces", type=int, help="instead of the usual numbers of faces")
    options = words.parse_args()
    sizes = (options.faces,) if options.faces else SMALL if options.small else FACES
    lines: list[tuple[Any, ...]] = []
    recalls: dict[str, list[float]] = {kind: [] for kind in SPECTRUM}
    with measuring.workplace(options) as work:
        for faces in sizes:
            for kind in SPECTRUM:
                measuring.progress(f"{faces:,} {kind} faces")
                path = work / "features.npy"
                np.save(work / "features.pairs.npy", make(path, faces, kind))
                for name in ("ours", *options.peer):
                    ran = measuring.start(HERE, "--telling", name, path).wait().done()
                    adding, searching, peak, *rest = (float(word) for word in ran.out.split())
                    lines.append(
                        (f"{faces:,} {kind}, {name}", adding, searching, peak / 2**20, *rest[:3], int(rest[3]))
                    )
                    recalls[kind] += rest[:3] if name == "ours" else []
    head = ("faces", "CPU s to add", "to search", "MB", "found ≥ 0.94", "≥ 0.96", "≥ 0.98", "pairs found")
    measuring.show("Near-duplicates: share of the planted pairs that are found, by their cosine", head, lines)
    return measuring.verdict(
        [
            (
                f"at least {LEAST_FOUND[kind]} of the planted pairs of {kind} faces are found",
                all(share >= LEAST_FOUND[kind] for share in recalls[kind]),
            )
            for kind in SPECTRUM
        ]
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--telling"]:
        sys.exit(telling(sys.argv[2], Path(sys.argv[3])))
    sys.exit(main())
