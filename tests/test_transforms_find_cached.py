"""What the cache knows is filled in by content, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks import job, raw, through

from transforms.block import Block, Reason, Status
from transforms.extract_features import copy_to_same
from transforms.find_cached import FindCached, apply_contents, find_cached
from transforms.formats.cache.contents import Contents
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.job import Job
from transforms.tally import TALLY


def contents(block: Block, rows: list[int], faces: list[int], **other: Any) -> Contents:
    """What the cache holds of some rows: `faces` on each, features that tell them apart; -1 is a rejected image."""
    counts = np.maximum(np.asarray(faces, np.int64), 0)
    total = int(counts.sum())
    words = [Status.REJECTED if n < 0 else Status.LABELLED if n else Status.NO_FACE for n in faces]
    given: dict[str, Any] = {
        "digest": block.digests[np.asarray(rows, np.intp)],
        "width": np.arange(100, 100 + len(rows), dtype=np.int32),
        "height": np.arange(200, 200 + len(rows), dtype=np.int32),
        "status": np.asarray([str(word) for word in words], object),
        "reason": np.asarray(["truncated" if n < 0 else "" for n in faces], object),
        "face_image": np.repeat(np.arange(len(rows), dtype=np.int32), counts),
        "box": np.arange(4 * total, dtype=np.int32).reshape(total, 4),
        "score": np.linspace(1, 0.5, total, dtype=np.float32),
        "features": np.arange(total, dtype=np.float16).reshape(total, 1),
        "names": tuple(f"old/{row}" for row in rows),
        "labels": (None,) * len(rows),
        **other,
    }
    return Contents(**given)


def a_cache(given: Job, *kept: Contents) -> FeatureCache:
    cache = FeatureCache.create(given.cache.root, given.cache.key_json)
    for one in kept:
        cache.add(one)
    cache.refresh()
    return cache


def test_hits_are_filled_in_and_misses_stay_as_they_were(tmp_path: Path) -> None:
    block = raw([b"a", b"b", b"c", b"d"])
    found = find_cached(block, a_cache(job(tmp_path), contents(block, [3, 1], [1, 2])))
    assert found.cached.tolist() == [False, True, False, True]
    assert found.status == (None, Status.LABELLED, None, Status.LABELLED)
    assert (found.width.tolist(), found.height.tolist()) == ([0, 101, 0, 100], [0, 201, 0, 200])
    assert found.data == (b"a", None, b"c", None)
    assert found.faces.image.tolist() == [1, 1, 3]
    assert found.faces.features is not None
    assert found.faces.features[:, 0].tolist() == [1, 2, 0]
    assert (found.ids, found.labels) == (block.ids, block.labels)  # never the cache's old names


def test_no_face_and_rejected_are_results_too(tmp_path: Path) -> None:
    block = raw([b"a", b"b"])
    found = find_cached(block, a_cache(job(tmp_path), contents(block, [0, 1], [0, -1])))
    assert found.status == (Status.NO_FACE, Status.REJECTED)
    assert found.reason == (None, Reason.TRUNCATED)
    assert (len(found.faces), found.data) == (0, (None, None))


def test_rows_rejected_while_reading_are_not_asked_for(tmp_path: Path) -> None:
    block = raw([None, b"b"])
    found = find_cached(block, a_cache(job(tmp_path), contents(block, [1], [1])))
    assert found.status == (Status.REJECTED, Status.LABELLED)
    assert found.reason == (Reason.DAMAGED_MEMBER, None)
    assert found.cached.tolist() == [False, True]
    assert found.faces.image.tolist() == [1]


def test_a_rejected_row_with_bytes_keeps_its_reason(tmp_path: Path) -> None:
    block = replace(raw([b"a"]), status=(Status.REJECTED,), reason=(Reason.UNSAFE_NAME,))
    found = find_cached(block, a_cache(job(tmp_path), contents(block, [0], [1])))
    assert (found.reason, found.cached.tolist(), len(found.faces)) == ((Reason.UNSAFE_NAME,), [False], 0)


def test_copies_within_a_block_are_no_hits_of_their_own(tmp_path: Path) -> None:
    block = raw([b"a", b"b", b"a"])
    found = find_cached(block, a_cache(job(tmp_path), contents(block, [0], [2])))
    assert found.cached.tolist() == [True, False, False]
    assert found.status == (Status.LABELLED, None, None)
    copied = copy_to_same(replace(found, status=(Status.LABELLED, Status.NO_FACE, None)))
    assert copied.status == (Status.LABELLED, Status.NO_FACE, Status.LABELLED)
    assert copied.faces.image.tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize("block", [raw([]), raw([None, None])])
def test_a_block_with_nothing_to_ask_passes_as_it_is(tmp_path: Path, block: Block) -> None:
    assert find_cached(block, a_cache(job(tmp_path))) is block


def test_nothing_is_filled_in_for_no_row() -> None:
    block = raw([b"a"])
    assert apply_contents(block, np.zeros(0, np.intp), contents(block, [], [])) is block


def test_a_block_is_not_changed_in_place(tmp_path: Path) -> None:
    block = raw([b"a"])
    find_cached(block, a_cache(job(tmp_path), contents(block, [0], [1])))
    assert (block.cached.tolist(), block.width.tolist(), block.status) == ([False], [0], (None,))


def test_the_stage_looks_up_by_fingerprint_and_tells_of_damage(tmp_path: Path) -> None:
    block = raw([b"a", b"b"])
    given = job(tmp_path)
    cache = a_cache(given, contents(block, [0], [1]), contents(block, [1], [1]))
    TALLY.reset()
    (found,) = through(FindCached(given.cache), [block])
    assert found.cached.tolist() == [True, True]
    (other,) = through(FindCached(job(tmp_path, cache_key_json='{"features":"others"}').cache), [block])
    assert other.cached.tolist() == [False, False]
    segment = sorted(Path(cache.folder).glob("*.h5"))[0]
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    (hurt,) = through(FindCached(given.cache), [block])
    assert hurt.cached.sum() == 1
    assert TALLY.totals().damaged == 1
