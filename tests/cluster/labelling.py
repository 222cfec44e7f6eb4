"""A driver of `label` on a cluster, and what it leaves. Not a test: tests of this folder `import labelling`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import clusters
import h5py
import numpy as np
import runs

SETTINGS = ("faces.detector=none", "read.block_images=32")


def arguments(source: Path, output: Path, disk: Path, flags: list[str], *settings: str) -> list[str]:
    head = ["--head", str(disk / "my_head")]
    given = ["--set", *(settings or SETTINGS), "write.keep_parts=true"]
    return ["--input", str(source), "--output", str(output), *head, *given, *flags]


def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    """Waits for a driver and returns its last line on stderr, or what it printed."""
    out, err = process.communicate(timeout=clusters.PATIENCE_S)
    assert process.returncode == status, err[-3000:]
    return out if status == 0 else err.strip().splitlines()[-1]


def parts(output: Path) -> int:
    return len(list((output / "parts").glob("*.parquet"))) if (output / "parts").is_dir() else 0


def cached(output: Path) -> list[np.ndarray]:
    """Returns the digests of each segment of the cache."""
    found = []
    for path in runs.segments(output / "cache"):
        with h5py.File(path) as segment:
            found.append(segment["digest"][:])
    return found


def computed_twice(digests: list[np.ndarray]) -> int:
    """Returns how many images the segments with these digests hold more than once."""
    return sum(map(len, digests)) - len(np.unique(np.concatenate(digests), axis=0))


def leftovers(output: Path) -> list[str]:
    signs = ("*.tmp", "*.damaged", ".merging*", "*.unfinished")
    return [str(path) for sign in signs for path in output.rglob(sign)]
