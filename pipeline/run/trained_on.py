"""The images that a head was trained on: a compact set of digests next to `head.npz`, for warnings in `evaluate`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from models.heads.outputs import HeadError
from models.heads.registry import load_head
from transforms.formats.publish import publish_bytes

TRAINED_ON = "trained_on.npy"
KEPT_BYTES = 8  # of a SHA-256: a million images against a million others give a false match once in 18 million times


def write_trained_on(folder: str, digests: Iterable[bytes]) -> None:
    """Publishes the first bytes of each digest, sorted: (n,) big-endian uint64.

    Raises:
        StorageError: the folder cannot be written.
    """
    buffer = io.BytesIO()
    np.save(buffer, np.unique(_starts(digests)))
    publish_bytes(os.path.join(folder, TRAINED_ON), buffer.getvalue())


def count_trained_on(head: str, head_digest: str, digests: Iterable[str]) -> int:
    """Returns how many of these images the head was trained on; 0 if unknown.

    Args:
        head: its folder, which may no longer exist or contain another head by now.
        head_digest: of the head in question.
        digests: SHA-256 of each image, in hex; "" for an image without bytes.
    """
    path = Path(head, TRAINED_ON)
    if not path.is_file():
        return 0
    with suppress(OSError, ValueError, HeadError):  # a warning must not stop an evaluation
        if load_head(head).digest != head_digest:
            return 0
        known = np.load(path, allow_pickle=False)
        return int(np.isin(_starts(bytes.fromhex(digest) for digest in digests if digest), known).sum())
    return 0


def _starts(digests: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digest[:KEPT_BYTES] for digest in digests), ">u8")
