"""Following faces: which boxes are the same face, and labels that are the mean of a track."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.heads.output_spec import ClassOutput
from pipeline.api.faces import Box, Face
from pipeline.live.smoothing import Smoother
from pipeline.live.tracks import Tracker


def boxes(*lefts: float) -> np.ndarray:
    """Returns a row of boxes of 10 x 10."""
    return np.asarray([[left, 0, 10, 10] for left in lefts], np.float64).reshape(-1, 4)


def test_a_face_that_moves_a_little_keeps_its_track() -> None:
    tracker = Tracker(0.3, 5)
    assert [tracker.update(boxes(left)) for left in (0, 3, 6, 9, 12)] == [[0]] * 5


def test_a_face_that_jumps_begins_a_track() -> None:
    tracker = Tracker(0.3, 5)
    assert [tracker.update(boxes(left)) for left in (0, 6)] == [[0], [1]]  # IoU 4 / 16


def test_tracks_do_not_depend_on_the_order_of_the_boxes() -> None:
    tracker = Tracker(0.3, 5)
    assert tracker.update(boxes(0, 50)) == [0, 1]
    assert tracker.update(boxes(51, 1)) == [1, 0]


def test_the_largest_overlap_comes_first() -> None:
    tracker = Tracker(0.1, 5)
    tracker.update(boxes(0, 8))
    assert tracker.update(boxes(7)) == [1]


def test_a_track_waits_for_its_face_and_then_ends() -> None:
    waits, ends = Tracker(0.3, 2), Tracker(0.3, 2)
    for frame in (boxes(0), boxes(), boxes()):
        waits.update(frame)
        ends.update(frame)
    assert waits.update(boxes(0)) == [0]
    ends.update(boxes())
    assert ends.alive == frozenset()
    assert ends.update(boxes(0)) == [1]


@given(st.lists(st.lists(st.integers(0, 100), max_size=6), max_size=8))
def test_each_box_has_one_track_and_tracks_are_numbered_as_they_begin(frames: list[list[int]]) -> None:
    tracker, begun = Tracker(0.3, 2), 0
    for lefts in frames:
        tracks = tracker.update(boxes(*lefts))
        assert len(tracks) == len(set(tracks)) == len(lefts)
        new = sorted(track for track in tracks if track >= begun)
        assert new == list(range(begun, begun + len(new)))
        begun += len(new)
    assert tracker.begun == begun


def face(angry: float) -> Face:
    label = "angry" if angry >= 0.5 else "happy"
    probabilities = {"angry": angry, "happy": 1 - angry}
    return Face(Box(0, 0, 10, 10), 0.9, label, 0 if angry >= 0.5 else 1, probabilities[label], probabilities)


def test_without_smoothing_a_face_is_returned_as_it_is() -> None:
    smoother = Smoother(0.0)
    first, second = face(0.9), face(0.1)
    assert smoother.smoothed(first, 0) is first
    assert smoother.smoothed(second, 0) is second


def test_the_mean_is_exponential() -> None:
    smoother = Smoother(0.75)
    shown = [smoother.smoothed(face(angry), 3) for angry in (1.0, 0.0, 0.0, 0.0)]
    assert [one.probabilities["angry"] for one in shown] == [1.0, 0.75, 0.5625, 0.421875]
    assert [one.label for one in shown] == ["angry", "angry", "angry", "happy"]
    assert [one.label_index for one in shown] == [0, 0, 0, 1]
    assert shown[3].confidence == shown[3].probabilities["happy"] == 0.578125


def test_the_intensity_is_that_of_the_smoothed_probabilities() -> None:
    output = ClassOutput(("angry", "happy"), intensity_exponent=0.5)
    smoother = Smoother(0.5, output)
    shown = [smoother.smoothed(replace(face(angry), intensity=0.9), 0) for angry in (1.0, 0.28)]
    assert shown[0].intensity == 1.0
    assert shown[1].probabilities == {"angry": 0.64, "happy": 0.36}
    assert shown[1].intensity == round(0.8 / 1.4, 6)
    assert Smoother(0.5, ClassOutput(("angry", "happy"))).smoothed(face(0.2), 0).intensity is None


def test_tracks_are_smoothed_apart_and_forgotten() -> None:
    smoother = Smoother(0.75)
    smoother.smoothed(face(1.0), 0)
    assert smoother.smoothed(face(0.0), 1).probabilities["angry"] == 0.0
    smoother.forget_all_but({1})
    assert smoother.smoothed(face(0.0), 0).probabilities["angry"] == 0.0


def test_a_face_without_a_label_stays_so_and_its_track_keeps_its_past() -> None:
    smoother = Smoother(0.5)
    small = Face(Box(0, 0, 5, 5), 0.9, None, None, None, {})
    smoother.smoothed(face(1.0), 0)
    assert smoother.smoothed(small, 0) is small
    assert smoother.smoothed(face(0.0), 0).probabilities["angry"] == pytest.approx(0.5)
