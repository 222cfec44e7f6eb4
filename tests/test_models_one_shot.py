"""The one-shot detector: cells and boxes, passes over an image, the overlap filter, and the exported network."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.boxes import iou
from models.detectors.one_shot.cells import STRIDES, UNIT, answers_of, boxes_of, maps_of
from models.detectors.one_shot.detector import (
    COMPANY,
    LARGEST_PX,
    LEARNED_PX,
    MOST_PX,
    SHIPPED,
    SURE,
    Candidates,
    in_company,
    lowest,
    padded,
    scales_for,
)
from models.detectors.one_shot.export import shifted
from models.detectors.one_shot.shape import OneShotShape
from models.detectors.overlap import without_overlaps

SMALL = OneShotShape(stem=(0, 4), widths=(4, 8, 8), depths=(1, 1, 0), join=4)


# --- cells ------------------------------------------------------------------------------------------------------------


def test_a_cell_that_answers_nothing_means_a_face_of_its_unit_around_its_centre() -> None:
    for stride in STRIDES:
        side = UNIT * stride
        box = boxes_of(np.zeros((2, 3, 5), np.float32), stride)[1, 2]
        assert box.tolist() == [2.5 * stride - side / 2, 1.5 * stride - side / 2, side, side]


@given(st.floats(-50, 300), st.floats(-50, 300), st.floats(4, 400), st.floats(4, 400), st.sampled_from(STRIDES))
def test_answers_are_the_inverse_of_boxes(x: float, y: float, width: float, height: float, stride: int) -> None:
    box = np.asarray([x, y, width, height])
    centres = maps_of(64, 96)[STRIDES.index(stride)].centres()
    answers = np.zeros((*centres.shape[:2], 5), np.float32)
    answers[..., 1:] = answers_of(box, centres.reshape(-1, 2), stride).reshape(*centres.shape[:2], 4)
    assert np.allclose(boxes_of(answers, stride), box, atol=0.02)


def test_maps_cover_the_image() -> None:
    assert [(one.stride, one.rows, one.columns) for one in maps_of(64, 96)] == [(8, 8, 12), (16, 4, 6), (32, 2, 3)]
    assert maps_of(64, 96)[2].centres()[1, 2].tolist() == [80, 48]


# --- passes -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 8000), st.integers(1, 8000), st.floats(0.005, 1))
def test_passes_cover_every_size_from_the_smallest_wanted_to_the_largest_that_fits(
    height: int, width: int, fraction: float
) -> None:
    scales = scales_for(height, width, fraction)
    shorter = min(height, width)
    assert scales[0] <= 1
    assert scales[0] * fraction * shorter <= LEARNED_PX + 1e-6  # nothing larger than needed is computed
    assert scales[-1] * shorter <= LARGEST_PX
    assert height * width * scales[0] ** 2 <= MOST_PX * (1 + 1e-9)
    for larger, smaller in pairwise(scales):
        # a face that one pass is too large for is learned size in the next
        assert LARGEST_PX / larger * smaller >= LEARNED_PX


@given(st.lists(st.floats(0.001, 0.999), max_size=30), st.floats(0.05, 0.95))
def test_company_raises_scores_and_keeps_their_order(scores: list[float], threshold: float) -> None:
    given = np.asarray(sorted(scores, reverse=True), np.float32)
    raised = in_company(Candidates(np.zeros((len(given), 4), np.float32), given)).scores
    assert (raised >= given - 1e-6).all()
    assert (np.diff(raised) <= 1e-6).all()
    if not (given >= SURE).any():
        assert np.allclose(raised, given, atol=1e-6)
    assert (raised[given < lowest(threshold)] < threshold + 1e-6).all()  # so no candidate is lost that would count


def test_a_weak_box_beside_sure_faces_is_surer_than_the_same_box_alone() -> None:
    beside, alone = (
        in_company(Candidates(np.zeros((len(scores), 4)), np.asarray(scores, np.float32))).scores[-1]
        for scores in ((0.9, 0.9, 0.9, 0.55), (0.55,))
    )
    assert alone == pytest.approx(0.55)
    assert beside == pytest.approx(1 / (1 + np.exp(-(np.log(0.55 / 0.45) + COMPANY * 2))), abs=1e-6)


def test_padding_is_black_below_and_to_the_right() -> None:
    image = np.full((33, 64, 3), 7, np.uint8)
    out = padded(image)
    assert (out.shape, out.dtype) == ((1, 3, 64, 64), np.float32)
    assert (out[0, :, :33] == 7).all()
    assert (out[0, :, 33:] == 0).all()


# --- overlaps ---------------------------------------------------------------------------------------------------------


boxes_of_a_few = st.lists(
    st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 20)] * 2, st.integers(1, 5)), max_size=12
)


@given(boxes_of_a_few, st.floats(0.05, 0.95), st.randoms())
def test_what_stays_overlaps_nothing_and_what_goes_overlaps_something_better(
    drawn: list[tuple[int, ...]], threshold: float, random: object
) -> None:
    rows = np.asarray(drawn, np.float64).reshape(-1, 5)
    boxes, scores = rows[:, :4], rows[:, 4] / 5
    kept = without_overlaps(boxes, scores, threshold=threshold)
    overlap = iou(boxes, boxes)
    for place, row in enumerate(kept):
        assert (overlap[row, kept[:place]] <= threshold + 1e-9).all()
    for row in set(range(len(rows))) - set(kept.tolist()):
        better = [other for other in kept if scores[other] >= scores[row]]
        assert overlap[row, better].max() > threshold - 1e-9
    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = np.asarray(shuffled, int)[without_overlaps(boxes[shuffled], scores[shuffled], threshold=threshold)]
    assert np.array_equal(rows[again], rows[kept])


def test_a_box_inside_a_surer_one_goes_however_small() -> None:
    boxes, scores = np.asarray([[0, 0, 20, 20], [8, 12, 6, 4], [18, 18, 6, 6]]), np.asarray([0.9, 0.8, 0.7])
    assert without_overlaps(boxes, scores, threshold=0.3).tolist() == [0, 1, 2]
    assert without_overlaps(boxes, scores, threshold=0.3, nested=0.7).tolist() == [0, 2]
    assert without_overlaps(boxes, scores[::-1].copy(), threshold=0.3, nested=0.7).tolist() == [2, 1]  # the surer stays


def test_only_the_best_are_looked_at() -> None:
    boxes = np.asarray([[10 * number, 0, 5, 5] for number in range(8)])
    assert without_overlaps(boxes, np.arange(8), threshold=0.5, most=3).tolist() == [7, 6, 5]
    assert without_overlaps(np.zeros((0, 4)), np.zeros(0), threshold=0.5).tolist() == []


# --- what ships -------------------------------------------------------------------------------------------------------


def test_the_card_names_the_file_that_ships() -> None:
    card = (SHIPPED.parent / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(SHIPPED.read_bytes()).hexdigest() in card
    assert SHIPPED.stat().st_size <= 2_000_000


# --- the network ------------------------------------------------------------------------------------------------------


def test_shifted_scores_are_what_is_meant_and_keep_their_order() -> None:
    pytest.importorskip("keras")
    from models.training.detection.network import build, weights_of

    network = build(SMALL)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3)).astype(np.float32)
    before = np.asarray(network(image))[..., 0]
    sigmoid = lambda logits: 1 / (1 + np.exp(-logits))  # noqa: E731
    moved = shifted(weights_of(network), float(sigmoid(before.max())), 0.6)
    for variable in network.weights:
        variable.assign(moved[variable.path])
    after = np.asarray(network(image))
    assert sigmoid(after[..., 0].max()) == pytest.approx(0.6, abs=1e-3)
    assert np.allclose(after[..., 0] - before, (after[..., 0] - before).mean(), atol=1e-4)


def test_a_deeper_network_begins_with_the_answers_of_the_one_that_it_starts_from(tmp_path) -> None:
    pytest.importorskip("keras")
    from models.training.detection.network import build, start_from, weights_of

    first, deeper = build(SMALL), build(replace(SMALL, depths=(2, 1, 2)))
    np.savez(tmp_path / "w.npz", **weights_of(first))
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3)).astype(np.float32)
    assert not np.allclose(first(image), deeper(image))
    start_from(deeper, tmp_path / "w.npz")
    assert np.allclose(first(image), deeper(image))
    np.savez(tmp_path / "d.npz", **weights_of(deeper))
    with pytest.raises(ValueError, match="of another network"):  # never a shallower one
        start_from(first, tmp_path / "d.npz")


@pytest.mark.parametrize("stem", [(0, 4), (4, 4)])
def test_the_exported_network_answers_as_the_trained_one(stem: tuple[int, int]) -> None:
    pytest.importorskip("onnx")
    import keras
    import onnxruntime

    from models.detectors.one_shot.export import INPUT, OUTPUTS, to_onnx
    from models.training.detection.network import build

    keras.utils.set_random_seed(3)
    shape = OneShotShape(stem=stem, widths=(4, 8, 8), depths=(1, 1, 0), join=4)
    network = build(shape)
    draw = np.random.default_rng(0)
    for variable in network.weights:  # statistics that are not 0 and 1, kernels that survive 16 bits
        value = (
            draw.uniform(0.5, 1.5, variable.shape) if "norm" in variable.path else draw.normal(0, 0.2, variable.shape)
        )
        variable.assign(value.astype(np.float16).astype(np.float32))
    images = draw.integers(0, 256, (2, 64, 96, 3)).astype(np.float32)
    expected = np.asarray(network(images))
    model = to_onnx({variable.path: np.asarray(variable) for variable in network.weights}, shape)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    maps = session.run(list(OUTPUTS), {INPUT: images.transpose(0, 3, 1, 2)})
    found = np.concatenate([one.transpose(0, 2, 3, 1).reshape(2, -1, 5) for one in maps], axis=1)
    assert expected.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 5)
    assert np.abs(found - expected).max() <= 5e-3 * np.abs(expected).max()  # kernels are stored in 16 bits


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 16, 32]))
def test_boxes_of_some_cells_have_the_bits_of_those_of_all(seed: int, stride: int) -> None:
    draw = np.random.default_rng(seed)
    cells = draw.normal(0, 2, (5, *draw.integers(1, 20, 2))).astype(np.float32).transpose(1, 2, 0)
    kept = cells[..., 0] >= 1
    assert np.array_equal(boxes_of(cells, stride, kept), boxes_of(cells, stride)[kept])
