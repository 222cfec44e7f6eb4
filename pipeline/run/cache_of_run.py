"""The cached features of a finished run, if they still exist."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.records import FormatError

MEMORY_BYTES = 32 * 2**20  # segments kept open: a run's images are read in the order in which they were cached


def cache_of_run(folder: str, record: Mapping[str, Any]) -> FeatureCache:
    """Opens the cache that a run filled, without changing it.

    Args:
        folder: output folder of the run. `record`: its `run.json`.

    Raises:
        FormatError: there is no cache, or it has other features. StorageError: it cannot be read.
    """
    key = record.get("cache_key")
    if not key:
        raise FormatError("run.json names no cache key")
    place = str(record.get("cache_folder") or os.path.join(folder, "cache"))
    return FeatureCache.open(place, str(key), memory_bytes=MEMORY_BYTES, read_only=True)
