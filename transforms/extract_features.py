"""Runs crops through the device in full batches across blocks, and stores the results in the cache.

Photos with few faces would send half-empty batches, so batches fill across blocks. A block leaves when the features of
its last face are done. Features do not depend on the batch that a face was in: `models/runtimes/device.py`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindows

from models.runtimes.device import AcceleratorMissing, Device, InFlight, get_device, revision_of, weights_digest
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.gpus import visible_gpus
from transforms.ahead import Ahead, single
from transforms.block import Block, with_features
from transforms.formats.cache.contents import Contents
from transforms.formats.publish import REFUSED, StorageError
from transforms.job import CachePlace
from transforms.provenance import REVISION, WEIGHTS, Provenance, refuse_another
from transforms.storage.retrying import with_retries
from transforms.storage.staged_files import local_path
from transforms.storage.stopping import check
from transforms.store_cache import cache_of
from transforms.tally import TALLY
from transforms.telling import telling

logger = logging.getLogger("pipeline.cache")

BLOCKS_WAITING = 16  # most blocks waiting for a full batch; then it is sent part-filled, to bound memory
SEGMENTS_BEHIND = 1  # groups of blocks whose cache segment is being written while the device works
SEGMENT_BLOCKS = 4  # per group at most; a segment costs as much as writing several blocks, mostly on a cold cache
SEGMENT_BYTES = 4 * 2**20  # of features; then the group is closed
SEGMENT_S = 2.0  # then a group is closed, so that a kill loses at most this much device time, or one block
SMALL_BLOCK = 128  # images; a smaller block closes its group, as small blocks are meant to lose little

SHOWN_AS = {"tensorflow": "TensorFlow", "jax": "JAX", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(slots=True)
class _InHand:
    """A block that waits for features: `features` (m, d) is filled up to `done`; `sent` rows are in batches."""

    block: Block
    features: np.ndarray | None = None
    sent: int = 0
    done: int = 0


class BatchAcrossBlocks:
    """Regroups the crops of successive blocks into full batches.

    Args:
        extract: (n, h, w, c) uint8, n at most `batch_size` -> (n, d) float16, or what `taken` waits for.
        taken: returns the features of what `extract` returned.

    Attributes:
        in_flight: batches to send before the features of the first are taken; 2 let a GPU copy one while it computes
            the other. Changes speed, not results.
    """

    def __init__(
        self, extract: Callable[[np.ndarray], Any], batch_size: int, taken: Callable[[Any], np.ndarray] = np.asarray
    ) -> None:
        self._extract, self._taken = extract, taken
        self._batch_size = batch_size
        self.in_flight = 1
        self._in_hand: deque[_InHand] = deque()
        self._sent: deque[tuple[list[tuple[_InHand, int, int]], Any]] = deque()  # rows of blocks, and their features
        self._waiting = 0  # crops not yet sent

    def put(self, block: Block) -> Iterator[Block]:
        """Adds a block; yields the blocks that are complete."""
        self._in_hand.append(_InHand(block))
        self._waiting += len(block.fresh)
        while self._waiting >= self._batch_size:
            self._send()
            yield from self._whole()
        yield from self._whole()
        if len(self._in_hand) > BLOCKS_WAITING:
            yield from self.drain()

    def drain(self) -> Iterator[Block]:
        """Sends the remaining crops, with the last batch padded; yields all blocks."""
        while self._waiting:
            self._send()
        while self._sent:
            self._take()
        yield from self._whole()

    def _send(self) -> None:
        taken: list[tuple[_InHand, int, int]] = []
        room = self._batch_size
        for item in self._in_hand:
            count = min(room, len(item.block.fresh) - item.sent)
            if count > 0:
                taken.append((item, item.sent, count))
                item.sent += count
                room -= count
            if room == 0:
                break
        crops = [_crops(item.block)[start : start + count] for item, start, count in taken]
        self._waiting -= sum(count for _, _, count in taken)
        self._sent.append((taken, self._extract(crops[0] if len(crops) == 1 else np.concatenate(crops))))
        while len(self._sent) >= self.in_flight:
            self._take()

    def _take(self) -> None:
        taken, pending = self._sent.popleft()
        features, offset = self._taken(pending), 0
        for item, start, count in taken:
            if item.features is None:
                item.features = np.empty((len(item.block.fresh), features.shape[1]), features.dtype)
            item.features[start : start + count] = features[offset : offset + count]
            item.done += count
            offset += count

    def _whole(self) -> Iterator[Block]:
        while self._in_hand and self._in_hand[0].done == len(self._in_hand[0].block.fresh):
            item = self._in_hand.popleft()
            yield with_features(item.block, item.features)


def _crops(block: Block) -> np.ndarray:
    assert block.fresh.crops is not None  # DetectFaces makes them
    return block.fresh.crops


class Groups:
    """Gathers blocks that arrive quickly, to store them in one cache segment.

    A slow block gets its own segment. The grouping changes only the order of rows in the cache, not the result of a
    run, so it may depend on the clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._blocks: list[Block] = []
        self._bytes = 0
        self._since = clock()

    def put(self, block: Block) -> list[Block]:
        """Adds a block; returns the group if it is now closed, else an empty list."""
        self._blocks.append(block)
        self._bytes += 0 if block.faces.features is None else block.faces.features.nbytes
        closed = (
            len(self._blocks) >= SEGMENT_BLOCKS
            or len(block) < SMALL_BLOCK
            or self._bytes >= SEGMENT_BYTES
            or self._clock() - self._since >= SEGMENT_S
        )
        return self.drain() if closed else []

    def drain(self) -> list[Block]:
        """Returns the gathered blocks."""
        group, self._blocks, self._bytes = self._blocks, [], 0
        self._since = self._clock()
        return group


def contents_to_keep(block: Block) -> Contents | None:
    """Returns what this block adds to the cache: newly computed results, once per content.

    Faults of reading or of the program do not come from the content, so they are not cached.
    """
    firsts = block.same_as == np.arange(len(block))
    computed = [
        s is not None and (r is None or r.is_of_content) for s, r in zip(block.status, block.reason, strict=True)
    ]
    rows = np.flatnonzero(firsts & ~block.cached & np.asarray(computed, bool))
    if len(rows) == 0:
        return None
    new_row = np.full(len(block), -1, np.int32)
    new_row[rows] = np.arange(len(rows), dtype=np.int32)
    faces = block.faces.take(np.flatnonzero(new_row[block.faces.image] >= 0))
    features = faces.features if faces.features is not None else np.zeros((0, 0), np.float16)
    listed = rows.tolist()
    return Contents(
        digest=block.digests[rows],
        width=block.width[rows],
        height=block.height[rows],
        status=np.asarray([str(block.status[r]) for r in listed], object),
        reason=np.asarray([str(block.reason[r] or "") for r in listed], object),
        face_image=new_row[faces.image],
        box=faces.box,
        score=faces.score,
        features=features,
        names=tuple(block.ids[r] for r in listed),
        labels=tuple(block.labels[r] for r in listed),
    )


def copy_to_same(block: Block) -> Block:
    """Returns the block with each result copied to every row with the same bytes."""
    copies = np.flatnonzero(block.same_as != np.arange(len(block)))
    if len(copies) == 0:
        return block
    width, height, cached = (column[block.same_as] for column in (block.width, block.height, block.cached))
    status = tuple(block.status[i] for i in block.same_as.tolist())
    reason = tuple(block.reason[i] for i in block.same_as.tolist())
    rows, images = [np.arange(len(block.faces))], [block.faces.image]
    for copy in copies.tolist():
        own = np.flatnonzero(block.faces.image == block.same_as[copy])
        rows.append(own)
        images.append(np.full(len(own), copy, np.int32))
    faces = replace(block.faces.take(np.concatenate(rows)), image=np.concatenate(images))
    order = np.argsort(faces.image, kind="stable")
    return replace(
        block,
        width=width,
        height=height,
        cached=cached,
        status=status,
        reason=reason,
        faces=faces.take(order),
    )


@beam.typehints.with_output_types(Block)  # otherwise finish_bundle makes Beam infer Any, and the coder is lost
class ExtractFeatures(beam.DoFn):
    """Feeds the process's device; writes cache segments while the device works.

    A block leaves when its results are cached, or when the cache turns out to be read-only.
    """

    def __init__(
        self, features: FeatureSettings, cache: CachePlace, provenance: Provenance, *, accelerator: str = ""
    ) -> None:
        """Takes the settings, and the accelerator that its workers were promised, as Beam names it; "" for none."""
        self._settings, self._place, self._provenance = features, cache, provenance
        self._accelerator = accelerator

    @telling
    def setup(self) -> None:
        if "nvidia" in self._accelerator and not visible_gpus():
            raise self._missing()  # at once, without loading a runtime
        self._settings = replace(self._settings, weights=local_path(self._settings.weights))
        self._cache = with_retries(lambda: cache_of(self._place.root, self._place.key_json))
        TALLY.add_damaged(len(self._cache.damaged))  # the stage that opens the cache first finds damaged segments
        self._keeps = True
        self._device: Device | None = None
        self._batches = BatchAcrossBlocks(self._extract, self._settings.batch_size, self._taken)
        self._groups = Groups()
        self._behind: Ahead[list[Block], list[Block]] = single(self._keep, depth=SEGMENTS_BEHIND)

    def teardown(self) -> None:
        self._behind.close()

    def process(self, block: Block) -> Iterator[Block]:
        for whole in self._batches.put(block):
            yield from self._handed_on(whole)
        yield from chain.from_iterable(self._behind.ready())

    def finish_bundle(self) -> Iterator[Any]:
        for whole in self._batches.drain():
            for block in self._handed_on(whole):
                yield GlobalWindows.windowed_value(block)
        for block in chain.from_iterable([*self._behind.put(self._groups.drain()), *self._behind.drain()]):
            yield GlobalWindows.windowed_value(block)

    def _handed_on(self, block: Block) -> Iterator[Block]:
        TALLY.note_first(images=len(block))
        if group := self._groups.put(block):
            yield from chain.from_iterable(self._behind.put(group))

    def _extract(self, crops: np.ndarray) -> InFlight:
        check()
        if self._device is None:  # built for the first crop, so a fully cached run loads no runtime
            runtime = self._settings.runtime
            with TALLY.runtime_start(SHOWN_AS.get(runtime, runtime)):
                made = get_device(self._settings)
            digest = weights_digest(self._settings)
            if self._accelerator and not made.has_accelerator():
                raise self._missing()
            refuse_another(self._provenance, {WEIGHTS: digest, REVISION: revision_of(runtime)})
            self._device = made
            self._batches.in_flight = made.in_flight
            TALLY.add_devices(self._device.device_names())
        with TALLY.clock("device"):
            return self._device.start(crops)

    def _taken(self, batch: InFlight) -> np.ndarray:
        with TALLY.clock("device"):
            return batch.features()

    def _missing(self) -> AcceleratorMissing:
        where = SHOWN_AS.get(self._settings.runtime, self._settings.runtime)
        return AcceleratorMissing(
            f"worker {socket.gethostname()} was promised an accelerator (features.accelerator={self._accelerator}), "
            f"and {where} sees none: check the driver and the GPU libraries there, or drop features.accelerator"
        )

    def _keep(self, group: list[Block]) -> list[Block]:
        with TALLY.clock("cache"):
            kept = [contents for contents in map(contents_to_keep, group) if contents is not None]
            if kept and self._keeps:
                self._keeps = self._added(Contents.concatenate(kept))
            return [copy_to_same(block) for block in group]

    def _added(self, contents: Contents) -> bool:
        """Adds to the cache; False, with a warning, if its folder is read-only; the run does not need it."""
        try:
            with_retries(lambda: self._cache.add(contents))
        except StorageError as error:
            if error.errno not in REFUSED:
                raise
            why = os.strerror(error.errno)
            logger.warning(
                "cache %s cannot be written (%s), so new features are not cached; to cache them, give another --cache",
                self._place.root,
                why,
            )
            return False
        return True
