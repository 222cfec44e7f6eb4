"""Fills in cached results of a block's images, found by the digest of their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import apache_beam as beam
import numpy as np

from transforms.block import Block, Faces
from transforms.formats.cache.contents import Contents
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.records import Reason, Status
from transforms.job import CachePlace
from transforms.storage.retrying import with_retries
from transforms.store_cache import cache_of
from transforms.tally import TALLY

_STATUS = {status.value: status for status in Status}  # Status(text) takes ten times as long


def find_cached(block: Block, cache: FeatureCache) -> Block:
    """Returns the block with status, size, faces and features of the images that the cache holds."""
    wanted = np.flatnonzero(_undecided(block))
    if len(wanted) == 0:
        return block
    hit, contents = cache.lookup(block.digests[wanted])
    return apply_contents(block, wanted[hit], contents)


def apply_contents(block: Block, rows: np.ndarray, contents: Contents) -> Block:
    """Returns the block with the cached results of `rows` (one row of `contents` each) filled in.

    The bytes of cached images are dropped, as they are not decoded again.
    """
    if len(rows) == 0:
        return block
    width, height, cached = block.width.copy(), block.height.copy(), block.cached.copy()
    width[rows], height[rows], cached[rows] = contents.width, contents.height, True
    status, reason, data = list(block.status), list(block.reason), list(block.data)
    for row, known, why in zip(rows.tolist(), contents.status, contents.reason, strict=True):
        status[row], reason[row], data[row] = _STATUS[known], Reason(why) if why else None, None
    faces = Faces(
        image=rows[contents.face_image].astype(np.int32),
        box=contents.box,
        score=contents.score,
        features=contents.features,
    )
    return replace(
        block,
        width=width,
        height=height,
        cached=cached,
        status=tuple(status),
        reason=tuple(reason),
        data=tuple(data),
        faces=faces,
    )


def _undecided(block: Block) -> np.ndarray:
    """Returns (n,) bool: True for the first row with its bytes in the block, unless rejected while reading."""
    firsts = block.same_as == np.arange(len(block))
    return np.asarray(firsts & np.asarray([s is None for s in block.status], bool))


@beam.typehints.with_output_types(Block)  # otherwise finish_bundle makes Beam infer Any, and the coder is lost
class FindCached(beam.DoFn):
    """Looks each block up in the cache of the run's cache key."""

    def __init__(self, cache: CachePlace) -> None:
        self._place = cache

    def setup(self) -> None:
        self._cache = with_retries(lambda: cache_of(self._place.root, self._place.key_json))
        self._damaged = 0

    def process(self, block: Block) -> Iterator[Block]:
        with TALLY.clock("cache"):
            found = with_retries(lambda: find_cached(block, self._cache))
        self._tell_damage()
        yield found

    def _tell_damage(self) -> None:
        met = len(self._cache.damaged)
        TALLY.add_damaged(met - self._damaged)
        self._damaged = met
