"""Batches across blocks, joining with what was cached, and what is kept: on plain arrays, without a network."""

import errno
import os
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
from blocks import extracts, job, through
from hypothesis import given, settings
from hypothesis import strategies as st

from models.runtimes.device import AcceleratorMissing
from transforms import extract_features as module
from transforms.block import Block, Faces, Reason, Status, in_order, no_faces, with_features
from transforms.extract_features import (
    BLOCKS_WAITING,
    SEGMENT_BLOCKS,
    SEGMENT_BYTES,
    SEGMENT_S,
    SMALL_BLOCK,
    BatchAcrossBlocks,
    Groups,
    contents_to_keep,
    copy_to_same,
)
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.publish import StorageError


def block_of(faces_by_image, *, key="k", first_value=0):
    """A block whose every face is a 1x1 crop with a value of its own."""
    n = len(faces_by_image)
    image = np.repeat(np.arange(n, dtype=np.int32), faces_by_image)
    m = len(image)
    values = np.arange(first_value, first_value + m, dtype=np.uint8)
    return Block(
        key=key,
        position=0,
        ids=tuple(f"{key}/{i}" for i in range(n)),
        sources=("s",) * n,
        labels=(None,) * n,
        sizes=np.ones(n, np.int64),
        digests=np.repeat(np.arange(1, n + 1, dtype=np.uint8)[:, None], 32, axis=1),
        data=(None,) * n,
        same_as=np.arange(n, dtype=np.int32),
        cached=np.zeros(n, bool),
        width=np.full(n, 10, np.int32),
        height=np.full(n, 10, np.int32),
        status=tuple(Status.LABELLED if k else Status.NO_FACE for k in faces_by_image),
        reason=(None,) * n,
        fresh=Faces(
            image=image,
            box=np.tile(np.asarray([[0, 0, 5, 5]], np.int32), (m, 1)),
            score=np.linspace(1, 0.5, m, dtype=np.float32) if m else np.zeros(0, np.float32),
            crops=values.reshape(m, 1, 1, 1),
        ),
    )


class Recorder:
    def __init__(self):
        self.sizes = []

    def __call__(self, crops):
        self.sizes.append(len(crops))
        return crops.reshape(len(crops), 1).astype(np.float16) * 2


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=12),
    st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_each_face_gets_its_own_features_and_blocks_keep_their_order(shapes, batch_size):
    blocks, value = [], 0
    for i, shape in enumerate(shapes):
        blocks.append(block_of(shape, key=f"b{i}", first_value=value % 100))
        value += sum(shape)
    extract = Recorder()
    batches = BatchAcrossBlocks(extract, batch_size)
    out = [whole for block in blocks for whole in batches.put(block)] + list(batches.drain())
    assert [b.key for b in out] == [b.key for b in blocks]
    for before, after in zip(blocks, out, strict=True):
        assert len(after.fresh) == 0
        assert len(after.faces) == len(before.fresh)
        if len(after.faces):
            assert (after.faces.features[:, 0] == before.fresh.crops.reshape(-1) * 2.0).all()
    assert sum(extract.sizes) == value
    assert all(size <= batch_size for size in extract.sizes)


class Flights:
    """Computes nothing before its features are taken; notes what happens in which order."""

    def __init__(self):
        self.events = []

    def start(self, crops):
        self.events.append(f"start {crops[0, 0, 0, 0]}")
        return crops

    def taken(self, crops):
        self.events.append(f"take {crops[0, 0, 0, 0]}")
        return crops.reshape(len(crops), 1).astype(np.float16)


@pytest.mark.parametrize(
    ("in_flight", "events"),
    [
        (1, ["start 0", "take 0", "start 8", "take 8", "start 16", "take 16", "start 24", "take 24"]),
        (2, ["start 0", "start 8", "take 0", "start 16", "take 8", "start 24", "take 16", "take 24"]),
        (3, ["start 0", "start 8", "start 16", "take 0", "start 24", "take 8", "take 16", "take 24"]),
    ],
)
def test_the_next_batch_is_sent_before_the_features_of_the_one_before_are_taken(in_flight, events):
    flights = Flights()
    batches = BatchAcrossBlocks(flights.start, 8, flights.taken)
    batches.in_flight = in_flight
    blocks = [block_of([1, 3, 3], key=f"b{n}", first_value=7 * n) for n in range(4)]
    out = [whole for block in blocks for whole in batches.put(block)] + list(batches.drain())
    assert flights.events == events
    assert keys(out) == [f"b{n}" for n in range(4)]
    assert np.concatenate([block.faces.features[:, 0] for block in out]).tolist() == list(range(28))


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=12), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_how_many_batches_are_in_flight_changes_nothing(shapes, in_flight):
    flights = Flights()
    batches = BatchAcrossBlocks(flights.start, 4, flights.taken)
    batches.in_flight = in_flight
    blocks = [block_of(shape, key=f"b{n}", first_value=n) for n, shape in enumerate(shapes)]
    out = [whole for block in blocks for whole in batches.put(block)] + list(batches.drain())
    assert keys(out) == keys(blocks)
    for before, after in zip(blocks, out, strict=True):
        found = [] if after.faces.features is None else after.faces.features[:, 0].tolist()
        assert found == before.fresh.crops.reshape(-1).tolist()


def test_batches_fill_across_blocks():
    extract = Recorder()
    batches = BatchAcrossBlocks(extract, 8)
    for i in range(4):
        list(batches.put(block_of([1, 2], key=f"b{i}")))
    list(batches.drain())
    assert extract.sizes == [8, 4]


def test_blocks_with_few_faces_do_not_pile_up():
    extract = Recorder()
    batches = BatchAcrossBlocks(extract, 1000)
    left = sum(1 for i in range(BLOCKS_WAITING + 1) for _ in batches.put(block_of([1], key=f"b{i}")))
    assert left == BLOCKS_WAITING + 1


def test_a_block_without_new_faces_passes_without_the_device():
    batches = BatchAcrossBlocks(lambda crops: pytest.fail("nothing to extract"), 8)
    assert [b.key for b in batches.put(block_of([0, 0]))] == ["k"]


def test_faces_from_the_cache_and_new_ones_come_in_image_order():
    block = block_of([0, 2, 0, 1])
    cached = Faces(
        image=np.asarray([0, 2], np.int32),
        box=np.asarray([[1, 1, 2, 2], [3, 3, 4, 4]], np.int32),
        score=np.asarray([0.9, 0.8], np.float32),
        features=np.asarray([[100], [101]], np.float16),
    )
    joined = with_features(replace(block, faces=cached), np.asarray([[1], [2], [3]], np.float16))
    assert joined.faces.image.tolist() == [0, 1, 1, 2, 3]
    assert joined.faces.features[:, 0].tolist() == [100, 1, 2, 101, 3]


def test_faces_of_an_image_are_numbered_by_score_then_y_then_x():
    faces = Faces(
        image=np.asarray([1, 0, 0, 0], np.int32),
        box=np.asarray([[0, 0, 1, 1], [5, 2, 1, 1], [4, 2, 1, 1], [9, 1, 1, 1]], np.int32),
        score=np.asarray([0.1, 0.5, 0.5, 0.5], np.float32),
    )
    assert in_order(faces).box[:, 0].tolist() == [9, 4, 5, 0]


def test_only_what_was_computed_here_is_kept_and_each_content_once():
    block = with_features(block_of([1, 0, 1, 2, 1]), np.asarray([[0], [2], [3], [4], [5]], np.float16))
    block = replace(
        block,
        same_as=np.asarray([0, 1, 0, 3, 4], np.int32),
        cached=np.asarray([False, False, False, True, False]),
        status=(Status.LABELLED, Status.NO_FACE, None, Status.LABELLED, Status.REJECTED),
        reason=(None, None, None, None, Reason.DAMAGED_MEMBER),
    )
    kept = contents_to_keep(block)
    assert kept is not None
    assert kept.names == ("k/0", "k/1")
    assert kept.status.tolist() == ["labelled", "no_face"]
    assert kept.face_image.tolist() == [0]
    assert kept.features[:, 0].tolist() == [0]


def test_a_rejection_by_content_is_kept_and_a_fault_of_reading_or_of_the_program_is_not():
    block = replace(
        block_of([0, 0, 0]),
        status=(Status.REJECTED,) * 3,
        reason=(Reason.TRUNCATED, Reason.DAMAGED_ARCHIVE, Reason.INTERNAL_ERROR),
    )
    kept = contents_to_keep(block)
    assert kept is not None
    assert kept.reason.tolist() == ["truncated"]


def test_copies_get_the_results_of_the_first_with_the_same_bytes():
    block = with_features(block_of([2, 0, 1]), np.asarray([[1], [2], [3]], np.float16))
    block = replace(block, same_as=np.asarray([0, 0, 2], np.int32), status=(Status.LABELLED, None, Status.LABELLED))
    copied = copy_to_same(block)
    assert copied.status == (Status.LABELLED,) * 3
    assert copied.faces.image.tolist() == [0, 0, 1, 1, 2]
    assert copied.faces.features[:, 0].tolist() == [1, 2, 1, 2, 3]


def test_a_block_without_any_face_keeps_its_no_face_results():
    kept = contents_to_keep(with_features(replace(block_of([0, 0]), fresh=no_faces()), None))
    assert kept is not None
    assert len(kept) == 2
    assert kept.features.shape[0] == 0


# --- groups of blocks that share a segment ----------------------------------------------------------------------------


class FreeDevice:
    """Gives each crop's first value as its feature."""

    in_flight = 1

    def start(self, crops):
        return SimpleNamespace(features=lambda: crops.reshape(len(crops), -1)[:, :1].astype(np.float16))

    def device_names(self):
        return ["free"]


def large(number, *, features=0, images=SMALL_BLOCK):
    """A block that is no small one, of images that no other has."""
    block = block_of([1] * images, key=f"b{number}")
    digests = np.repeat(np.arange(1, images + 1, dtype=np.uint8)[:, None], 32, axis=1)
    digests[:, 1] = number
    faces = Faces(
        image=np.zeros(1, np.int32),
        box=np.zeros((1, 4), np.int32),
        score=np.ones(1, np.float32),
        features=np.zeros((1, features), np.float16),
    )
    return replace(block, digests=digests, faces=faces if features else no_faces())


def keys(blocks):
    return [block.key for block in blocks]


def test_blocks_that_come_quickly_share_a_segment():
    groups = Groups(clock=lambda: 7.0)
    found = [keys(groups.put(large(n))) for n in range(SEGMENT_BLOCKS + 1)]
    assert found == [[]] * (SEGMENT_BLOCKS - 1) + [[f"b{n}" for n in range(SEGMENT_BLOCKS)]] + [[]]
    assert keys(groups.drain()) == [f"b{SEGMENT_BLOCKS}"]
    assert groups.drain() == []


def test_a_group_is_closed_when_it_was_long_in_the_making_so_that_a_slow_block_leaves_alone():
    now = [0.0]
    groups = Groups(clock=lambda: now[0])
    found = []
    for number, at in enumerate([0.5, SEGMENT_S - 0.1, SEGMENT_S, 100.0, 160.0, 160.5]):
        now[0] = at
        found.append(keys(groups.put(large(number))))
    assert found == [[], [], ["b0", "b1", "b2"], ["b3"], ["b4"], []]


def test_a_small_block_waits_for_none():
    groups = Groups(clock=lambda: 0.0)
    assert keys(groups.put(block_of([1], key="small"))) == ["small"]
    assert groups.put(large(1)) == []
    assert keys(groups.put(large(2, images=SMALL_BLOCK - 1))) == ["b1", "b2"]


def test_many_features_close_a_group():
    groups = Groups(clock=lambda: 0.0)
    assert keys(groups.put(large(1, features=SEGMENT_BYTES // 2))) == ["b1"]


def test_blocks_of_a_group_are_in_one_segment_and_leave_only_when_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "get_device", lambda settings: FreeDevice())
    monkeypatch.setattr(module.Groups.__init__, "__defaults__", (lambda: 0.0,))
    stage = extracts(job(tmp_path, features=replace(job(tmp_path).features, batch_size=SMALL_BLOCK)))
    left, count = [], 2 * SEGMENT_BLOCKS + 1
    stage.setup()
    for number in range(count):
        for block in stage.process(large(number)):
            stage._cache.refresh()
            assert stage._cache.lookup(block.digests)[0].all()  # a part, which follows, is never without its segment
            left.append(block)
    left += [made.value for made in stage.finish_bundle()]
    stage.teardown()
    assert keys(left) == [f"b{n}" for n in range(count)]
    stage._cache.refresh()
    assert len(stage._cache) == count * SMALL_BLOCK
    assert len(stage._cache._index.segments) == 3


def test_a_block_whose_segment_cannot_be_written_does_not_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "get_device", lambda settings: FreeDevice())
    stage = extracts(job(tmp_path))

    def fail(self, contents):
        raise ValueError("no segment")

    monkeypatch.setattr(FeatureCache, "add", fail)
    with pytest.raises(ValueError, match="no segment"):
        through(stage, [block_of([1])])


def refuse(monkeypatch, number):
    """Lets no segment be written; returns the list of attempts."""
    attempts = []

    def fail(self, contents):
        attempts.append(contents)
        raise StorageError(number, f"cannot write x.h5: {os.strerror(number)}; choose another folder")

    monkeypatch.setattr(module, "get_device", lambda settings: FreeDevice())
    monkeypatch.setattr(FeatureCache, "add", fail)
    return attempts


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_cache_that_may_only_be_read_is_told_of_once_and_stops_nothing(tmp_path, monkeypatch, caplog, number):
    attempts = refuse(monkeypatch, number)
    given = job(tmp_path)
    left = through(extracts(given), [block_of([1, 2], key=f"b{n}", first_value=n) for n in range(3)])
    assert keys(left) == ["b0", "b1", "b2"]
    assert [block.faces.features[:, 0].tolist() for block in left] == [[n, n + 1, n + 2] for n in range(3)]
    assert len({id(contents) for contents in attempts}) == 1  # tried with_retries, then no more
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line == (
        f"cache {given.cache.root} cannot be written ({os.strerror(number)}), "
        "so new features are not cached; to cache them, give another --cache"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ETIMEDOUT])
def test_other_faults_of_the_cache_stop_a_run(tmp_path, monkeypatch, number):
    refuse(monkeypatch, number)
    with pytest.raises(StorageError, match=os.strerror(number)):
        through(extracts(job(tmp_path)), [block_of([1])])


T4 = "type:nvidia-tesla-t4;count:1;install-nvidia-driver"


def test_a_worker_without_the_gpu_it_was_promised_fails_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "get_device", lambda settings: pytest.fail("a runtime was loaded"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(AcceleratorMissing, match=r"was promised an accelerator .*type:nvidia.*TensorFlow sees none"):
        extracts(job(tmp_path, accelerator=T4)).setup()


@pytest.mark.parametrize("promised", [T4, "type:tpu-v5"])
def test_a_gpu_that_the_runtime_cannot_use_is_missing_too(tmp_path, monkeypatch, promised):
    monkeypatch.setattr(module, "get_device", lambda settings: OnCpu())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    stage = extracts(job(tmp_path, accelerator=promised))
    stage.setup()
    with pytest.raises(AcceleratorMissing, match="TensorFlow sees none"):
        list(chain(stage.process(large(0)), stage.finish_bundle()))
    stage.teardown()


class OnCpu:
    def has_accelerator(self):
        return False
