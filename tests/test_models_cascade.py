"""The cascade as a detector: same boxes in any company, bounded work, what it says of itself, and the picture."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cascades import small_cascade

from models.boxes import iou
from models.detectors.cascade.detector import DIGITS, Cascade, describe, load
from models.detectors.cascade.panels import panels
from models.detectors.cascade.weights import WEIGHTS, CascadeWeights, read_weights, write_weights
from models.detectors.cascade.windows import Reductions
from models.detectors.options import CascadeOptions, DetectorError
from models.detectors.panels import TITLE_PX
from models.detectors.steps import Step

SIZES = ((90, 120), (40, 200), (160, 70), (13, 11), (1, 1), (64, 64))
OPEN = CascadeOptions(thresholds=(0.45, 0.4, 0.3), min_face_fraction=0.2, nms_threshold=0.5)


def photos(seed: int = 0) -> list[np.ndarray]:
    """Returns images of blobs: smooth enough for scores to differ from place to place."""
    draw = np.random.default_rng(seed)
    found = []
    for height, width in SIZES:
        coarse = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        found.append(coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].copy())
    return found


def reported(detections) -> list[tuple[list, list]]:
    return [(one.boxes.tolist(), one.scores.tolist()) for one in detections]


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return Cascade(OPEN, weights=small_cascade())


def test_boxes_lie_inside_their_image_best_first(cascade):
    images = photos()
    found = cascade.detect_batch(images)
    assert sum(map(len, found)) > 10  # of networks that learned nothing: enough to compare
    for image, one in zip(images, found, strict=True):
        assert one.boxes.dtype == np.int32 and one.scores.dtype == np.float32
        assert (one.boxes[:, :2] >= 0).all() and (one.boxes[:, 2:] > 0).all()
        assert (one.boxes[:, :2] + one.boxes[:, 2:] <= image.shape[1::-1]).all()
        assert ((one.scores >= 0) & (one.scores <= 1)).all()
        assert (np.diff(one.scores) <= 0).all()


def test_boxes_do_not_depend_on_the_company(cascade):
    images = photos()
    alone = reported(cascade.detect_batch([image])[0] for image in images)
    assert reported(cascade.detect_batch(images)) == alone
    assert reported(cascade.detect_batch(images[::-1])) == alone[::-1]
    assert reported(cascade.detect_batch([*photos(1), *images, *photos(2)]))[len(SIZES) : 2 * len(SIZES)] == alone
    assert cascade.detect_batch([]) == []


def test_boxes_do_not_depend_on_regrouping(cascade):
    images = photos()
    apart = Cascade(replace(OPEN, regroup=False), weights=small_cascade())
    assert reported(apart.detect_batch(images)) == reported(cascade.detect_batch(images))


def test_boxes_do_not_depend_on_the_thread(cascade):
    images = photos() * 3
    alone = reported(cascade.detect_batch(images))
    with ThreadPoolExecutor(4) as pool:
        assert reported(pool.map(lambda image: cascade.detect_batch([image])[0], images)) == alone


def test_no_more_windows_leave_a_level_than_the_bound():
    options = replace(OPEN, thresholds=(0.0, 0.0, 0.0), max_windows=(37, 11), overlaps=(1.0, 1.0, 1.0))
    steps = {one.name: len(one.boxes) for one in Cascade(options, weights=small_cascade()).trace(photos()[0])}
    assert steps["classify 1"] == steps["filter 1"] == 37
    assert steps["classify 2"] == steps["filter 3"] == 11


def test_the_windows_that_the_bound_keeps_are_the_best():
    image = photos()[0]
    options = replace(OPEN, thresholds=(0.0, 0.0, 0.0), max_windows=(100_000, 11))
    everything = Cascade(options, weights=small_cascade()).trace(image)[0]
    few = Cascade(replace(options, max_windows=(9, 11)), weights=small_cascade()).trace(image)[0]
    assert few.scores.tolist() == sorted(everything.scores.tolist(), reverse=True)[:9]


def test_steps_come_in_the_order_of_the_source():
    names = [one.name for one in Cascade(OPEN, weights=small_cascade()).trace(photos()[0])]
    assert names == [
        *(f"{kind} {level}" for level in (1, 2, 3) for kind in ("classify", "calibrate", "filter")),
        "global filter",
    ]


def test_what_is_not_calibrated_stays_where_it_was():
    options = replace(OPEN, calibrate=(False, True, False))
    steps = {one.name: one.boxes for one in Cascade(options, weights=small_cascade()).trace(photos()[0])}
    assert "calibrate 1" not in steps and "calibrate 3" not in steps
    sides = {float(side) for side in steps["filter 1"][:, 2]}
    assert len(sides) <= 8  # those of the pyramid's levels


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_fewer_windows_are_looked_at_with_a_larger_stride(stride):
    options = replace(OPEN, thresholds=(0.0, 0.0, 0.0), max_windows=(100_000, 10), stride=stride)
    (first, *_) = Cascade(options, weights=small_cascade()).trace(np.zeros((96, 96, 3), np.uint8))
    finest = first.boxes[first.boxes[:, 2] == first.boxes[:, 2].min()]
    corners = np.unique(finest[:, 0])
    assert np.diff(corners) == pytest.approx(stride * 0.2 * 96 / 12, rel=0.05)


def test_faces_are_limited_to_the_first(cascade):
    image = photos()[0]
    (few,), (all_,) = (one.detect_batch([image]) for one in (Cascade(OPEN, 2, weights=small_cascade()), cascade))
    assert few.boxes.tolist() == all_.boxes[:2].tolist()


# --- what it says of itself ---------------------------------------------------------------------------------------


def test_the_file_comes_back_as_it_was(tmp_path):
    weights = small_cascade((0.1, 0.2, 0.3))
    write_weights(tmp_path / "one.npz", weights)
    write_weights(tmp_path / "two.npz", weights)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert read_weights(tmp_path / "one.npz") == weights


def stored(folder, seed: int = 0, **options) -> CascadeOptions:
    """Returns options that name a file of drawn weights."""
    path = folder / f"{seed}.npz"
    write_weights(path, small_cascade(seed=seed))
    return replace(OPEN, model=str(path), **options)


def test_it_is_described_without_being_loaded(tmp_path):
    program = (
        "import sys\n"
        "from models.detectors.cascade.detector import describe\n"
        "from models.detectors.options import CascadeOptions\n"
        "print(describe(CascadeOptions(model=sys.argv[1]))['model'], {'onnxruntime', 'keras'} & set(sys.modules))"
    )
    path = stored(tmp_path).model
    ran = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [hashlib.sha256(Path(path).read_bytes()).hexdigest(), "set()"]


def test_the_description_tells_what_changes_boxes_and_nothing_else(tmp_path):
    reported = describe(stored(tmp_path))
    assert describe(stored(tmp_path, regroup=False)) == reported
    assert describe(stored(tmp_path, stride=8)) != reported
    assert describe(stored(tmp_path, seed=1)) != reported
    assert str(tmp_path) not in str(reported)


def test_it_is_loaded_from_its_file(tmp_path, cascade):
    images = photos()
    assert reported(load(stored(tmp_path), 0).detect_batch(images)) == reported(cascade.detect_batch(images))


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04 and then nothing"])
def test_a_file_that_holds_no_cascade_is_refused(tmp_path, content):
    (tmp_path / "one.npz").write_bytes(content)
    with pytest.raises(DetectorError, match=r"one\.npz is no file of a cascade's weights"):
        load(replace(OPEN, model=str(tmp_path / "one.npz")), 0)


def test_missing_files_and_networks_are_named(tmp_path):
    with pytest.raises(DetectorError, match="cannot read the model file"):
        load(replace(OPEN, model=str(tmp_path / "none.npz")), 0)
    with pytest.raises(DetectorError, match="the weights have no detect12_4"):
        Cascade(OPEN, weights=CascadeWeights({}, (0.5,)))
    networks = {**small_cascade().networks, "detect24": b"other bytes"}
    with pytest.raises(DetectorError, match="detect24 in the weights is no network in ONNX"):
        Cascade(OPEN, weights=CascadeWeights(networks, (0.5, 0.5, 0.5)))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("stride", 3),
        ("scale_step", 1.0),
        ("thresholds", (0.5, 2.0, 0.5)),
        ("averaging", "mean"),
        ("nms_threshold", 0.0),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(DetectorError, match=option):
        CascadeOptions(**{option: value})


def test_grey_images_are_refused(cascade):
    with pytest.raises(ValueError, match="RGB"):
        cascade.detect_batch([np.zeros((20, 20), np.uint8)])


# --- windows' pixels ----------------------------------------------------------------------------------------------


def test_a_window_has_the_pixels_of_its_place():
    image = np.zeros((64, 96, 3), np.uint8)
    image[16:40, 48:72] = (10, 200, 30)
    (inside, beside) = Reductions(image).windows(np.array([[48, 16, 24], [0, 0, 16]], np.float32), 12)
    assert (inside[1:-1, 1:-1] == (10, 200, 30)).all()
    assert not beside.any()


@pytest.mark.parametrize("side", [12, 24, 48])
def test_a_windows_pixels_do_not_depend_on_the_others(side):
    image = Reductions(photos()[0])
    draw = np.random.default_rng(0)
    squares = np.concatenate([draw.uniform(-30, 90, (50, 2)), draw.uniform(4, 90, (50, 1))], axis=1).astype(np.float32)
    together = image.windows(squares, side)
    assert together.shape == (50, side, side, 3)
    for number in (0, 7, 49):
        assert np.array_equal(image.windows(squares[number : number + 1], side)[0], together[number])


def test_the_last_step_leaves_what_is_found(cascade):
    image = photos()[0]
    last = cascade.trace(image)[-1]
    found = cascade.detect_batch([image])[0]
    assert len(last.boxes) == len(found) > 0
    assert sorted(last.scores.round(DIGITS).tolist()) == sorted(found.scores.tolist())
    assert cascade.explain(image, np.zeros((0, 4))).dtype == np.uint8


# --- the picture --------------------------------------------------------------------------------------------------


def test_the_picture_has_a_panel_a_step(cascade):
    image = np.full((60, 90, 3), 100, np.uint8)
    steps = [Step(one.name, np.array([[10, 10, 20, 20]]), np.ones(1), 0.0) for one in cascade.trace(image)]
    picture = panels(image, steps, np.array([[40, 20, 30, 30]]))
    height, width = 60 + TITLE_PX + 4, 90 + 4
    assert picture.shape == (2 * height, 5 * width, 3) and picture.dtype == np.uint8
    for row in range(2):
        for column in range(5):
            panel = picture[row * height :, column * width :][2 : height - 2, 2 : width - 2]
            photo = panel[TITLE_PX:]
            assert (photo[20, 45] == 255).all()  # the upper edge of the known face, in white
            line = photo[10, 15]  # of the window, in the step's colour
            assert len(set(line.tolist())) > 1
            assert (photo[5, 5] == 100 // 2 + 20).all()  # elsewhere the photo, dimmed
            assert panel[:TITLE_PX].max() > 200  # a title


# --- what ships ---------------------------------------------------------------------------------------------------


def test_the_cascade_that_ships_finds_the_astronaut_first():
    image = pytest.importorskip("skimage.data", reason="needs the sample extra").astronaut()
    (found,) = load(CascadeOptions(), 0).detect_batch([image])
    assert iou(found.boxes[:1], np.array([[175, 65, 95, 112]]))[0, 0] > 0.6  # brow to chin, by eye
    assert found.scores[0] > 0.9 and (found.scores[1:] < 0.9).all()


def test_what_ships_is_small_and_is_what_its_card_says():
    card = json.loads(WEIGHTS.with_suffix(".json").read_text(encoding="utf-8"))
    assert WEIGHTS.stat().st_size < 2_000_000
    assert describe(CascadeOptions())["model"] == card["sha256"]
    assert list(read_weights(WEIGHTS).thresholds) == card["thresholds"]
