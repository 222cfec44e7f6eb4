"""Detectors: one contract for all of them, what each finds, and how boxes are cut out."""

from __future__ import annotations

import pickle
import subprocess
import sys
import timeit
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.boxes import iou
from models.detectors.cropping import crop_resized, reduced, resized
from models.detectors.detections import detections_in
from models.detectors.options import DetectorError, YuNetOptions
from models.detectors.registry import DETECTORS, DetectorSpec

SHARED = Path(__file__).parents[2] / "shared/data/detectors"
YUNET = SHARED / "face_detection_yunet_2023mar.onnx"
needs_yunet = pytest.mark.skipif(not YUNET.exists(), reason=f"{YUNET.name} is not there")
FACE = [175, 65, 95, 112]  # of the astronaut, in the 512x512 picture, by eye: brow to chin


@pytest.fixture(scope="module")
def portrait():
    """(512, 512, 3) uint8 RGB with one frontal face."""
    return pytest.importorskip("skimage.data").astronaut()


@pytest.fixture(scope="module")
def crowd(portrait):
    """Four times the same face: equal scores, so that only the order of boxes tells them apart."""
    small = cv2.resize(portrait, (320, 320), interpolation=cv2.INTER_AREA)
    return np.tile(small, (2, 2, 1))


def spec_of(name, max_faces=0, **more):
    if name == "yunet":
        more = {"model": str(YUNET), **more}
    return DetectorSpec(name, DETECTORS[name].options(**more), max_faces)


def detect(detector, image):
    """Returns what a detector finds in one (h, w, 3) image."""
    return detector.detect_batch([fed(detector, image)])[0]


def fed(detector, image):
    return image if detector.channels == 3 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


ALL = ["none", "one_shot", "cascade", "haar", pytest.param("yunet", marks=needs_yunet)]
SEARCHING = ["one_shot", "cascade", "haar", pytest.param("yunet", marks=needs_yunet)]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (2, 5000), (31, 33), (480, 640)])
def test_boxes_lie_inside_whatever_the_image(name, size):
    detector = spec_of(name, **({"score_threshold": 0.01} if name in ("yunet", "one_shot") else {})).load()
    noise = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = detect(detector, noise)
    assert found.boxes.dtype == np.int32
    assert found.scores.dtype == np.float32
    assert found.boxes.shape == (len(found), 4)
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] > 0).all()
    assert (found.boxes[:, :2] + found.boxes[:, 2:] <= [size[1], size[0]]).all()


@pytest.mark.parametrize("name", ALL)
def test_no_face_in_a_plain_picture_is_a_result(name):
    detector = spec_of(name).load()
    found = detect(detector, np.full((120, 160, 3), 90, dtype=np.uint8))
    assert found.boxes.tolist() == ([[0, 0, 160, 120]] if name == "none" else [])


@pytest.mark.parametrize("name", SEARCHING)
def test_the_face_is_found(name, portrait):
    detector = spec_of(name).load()
    found = detect(detector, portrait)
    assert iou(found.boxes[:1], np.array([FACE]))[0, 0] > 0.5


@pytest.mark.parametrize(
    ("name", "box", "score", "revision"),
    [
        ("haar", [177, 66, 95, 95], 0.9486, 2),
        pytest.param("yunet", [178, 63, 90, 113], 0.9323, 1, marks=needs_yunet),
    ],
)
def test_golden_boxes_hold_until_the_revision_is_raised(name, box, score, revision, portrait):
    detector = spec_of(name, max_faces=1).load()
    found = detect(detector, portrait)
    assert np.abs(found.boxes - [box]).max() <= 1  # another OpenCV may round elsewhere
    assert found.scores == pytest.approx([score], rel=0.02)
    assert spec_of(name).describe()["revision"] == revision


@pytest.mark.parametrize("name", SEARCHING)
def test_results_do_not_depend_on_threads_or_on_what_came_before(name, crowd, portrait):
    detector = spec_of(name, **({"min_face_fraction": 0.1} if name == "one_shot" else {"detect_size": 400})).load()
    images = [fed(detector, crowd), fed(detector, portrait), fed(detector, crowd[:500, :333])] * 2
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            results.append([_bytes(detector.detect_batch([image])[0]) for image in images])
            with ThreadPoolExecutor(3) as pool:
                results.append(
                    [_bytes(found) for found in pool.map(lambda image: detector.detect_batch([image])[0], images)]
                )
    finally:
        cv2.setNumThreads(before)
    assert all(result == results[0] for result in results)
    assert results[0][:3] == results[0][3:]


def _bytes(found):
    return found.boxes.tobytes() + found.scores.tobytes()


@pytest.mark.parametrize("name", [name for name, kind in DETECTORS.items() if kind.threaded])
def test_an_image_searched_by_several_threads_has_the_same_boxes(name, crowd, portrait):
    one, three = spec_of(name).load(), spec_of(name).load(threads=3)
    for image in (portrait, crowd, reduced(crowd, 200), portrait[:300, :470]):
        for found, other in zip(one.detect_batch([image]), three.detect_batch([image]), strict=True):
            assert np.array_equal(found.boxes, other.boxes) and np.array_equal(found.scores, other.scores)


@pytest.mark.parametrize("name", SEARCHING)
def test_faces_come_ordered_and_max_faces_keeps_the_first(name, crowd):
    every = spec_of(name).load()
    found = detect(every, crowd)
    assert len(found) >= 4
    assert (np.diff(found.scores) <= 0).all()
    two = spec_of(name, max_faces=2).load()
    assert np.array_equal(detect(two, crowd).boxes, found.boxes[:2])


@pytest.mark.parametrize("name", SEARCHING)
def test_boxes_are_in_pixels_of_the_image_given_not_of_the_reduced_one(name, portrait):
    large = cv2.resize(portrait, (1536, 1536), interpolation=cv2.INTER_LINEAR)
    detector = spec_of(name, **({} if name == "one_shot" else {"detect_size": 512})).load()
    found = detect(detector, large)
    assert iou(found.boxes[:1], 3 * np.array([FACE]))[0, 0] > 0.5


@pytest.mark.parametrize("name", ["haar", "one_shot"])
def test_the_smallest_face_is_heeded(name, portrait):
    small = np.zeros((800, 800, 3), np.uint8)
    small[300:556, 300:556] = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA)  # a face of 52 pixels
    assert len(detect(spec_of(name, min_face_fraction=0.02).load(), small)) >= 1
    assert len(detect(spec_of(name, min_face_fraction=0.5).load(), small)) == 0


def test_the_whole_image_is_one_face():
    found = detect(spec_of("none").load(), np.zeros((30, 40, 3), dtype=np.uint8))
    assert found.boxes.tolist() == [[0, 0, 40, 30]]
    assert found.scores.tolist() == [1.0]


@pytest.mark.parametrize("name", ALL)
def test_the_same_boxes_whatever_else_is_in_the_batch(name, portrait, crowd):
    detector = spec_of(name).load()
    images = [fed(detector, image) for image in (portrait, crowd[:400, :333], portrait[::2, ::2], crowd)]
    alone = [_bytes(detector.detect_batch([image])[0]) for image in images]
    assert [_bytes(found) for found in detector.detect_batch(images)] == alone
    assert [_bytes(found) for found in detector.detect_batch(images[::-1])] == alone[::-1]
    assert detector.detect_batch([]) == []


@pytest.mark.parametrize("name", ALL)
def test_scores_lie_from_0_to_1(name, portrait, crowd):
    detector = spec_of(name).load()
    scores = np.concatenate([detect(detector, image).scores for image in (portrait, crowd)])
    assert len(scores)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("name", ["one_shot", "cascade", pytest.param("yunet", marks=needs_yunet)])
def test_weaker_boxes_come_on_top_of_the_faces(name, crowd):
    spec = spec_of(name, max_faces=1)
    faces, more = (detect(one.load(), crowd) for one in (spec_of(name), spec.down_to(0.05)))
    strong = more.scores >= spec.threshold()
    assert len(faces) < len(more)
    assert sorted(map(tuple, more.boxes[strong])) == sorted(map(tuple, faces.boxes))
    assert spec.down_to(1.0).threshold() == spec.threshold()  # never fewer


def test_without_a_threshold_there_are_no_weaker_boxes():
    assert DetectorSpec("haar").threshold() is None
    with pytest.raises(DetectorError, match="detector haar has no threshold of scores"):
        DetectorSpec("haar").down_to(0.1)


def test_an_unknown_detector_lists_the_known_ones():
    with pytest.raises(DetectorError, match=r"'harr'; known: bundled, none, one_shot, cascade, haar, yunet"):
        DetectorSpec("harr")


def test_options_of_another_detector_are_refused():
    with pytest.raises(DetectorError, match="detector haar takes HaarOptions, not YuNetOptions"):
        DetectorSpec("haar", YuNetOptions())


def test_bundled_is_another_word_for_the_one_that_ships():
    assert DetectorSpec() == DetectorSpec("bundled") == DetectorSpec("one_shot")
    assert DetectorSpec().describe()["name"] == "one_shot"


@pytest.mark.parametrize("name", ["haar", "yunet", "one_shot"])
@pytest.mark.parametrize(
    "content", [None, b"", b"no model at all", b'<?xml version="1.0"?><opencv_storage></opencv_storage>']
)
def test_a_missing_or_wrong_model_is_one_clear_error_at_once(name, content, tmp_path):
    path = tmp_path / "model.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DetectorError, match=r"detector \w+: .*model\.bin") as caught:
        spec_of(name, model=str(path)).load()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not (SHARED / "version-RFB-320.onnx").exists(), reason="no second network to mistake for YuNet")
@pytest.mark.parametrize("name, words", [("yunet", "no YuNet model"), ("one_shot", "not a one-shot detector")])
def test_another_network_is_refused_at_once(name, words):
    with pytest.raises(DetectorError, match=words):
        spec_of(name, model=str(SHARED / "version-RFB-320.onnx")).load()


def test_yunet_without_a_model_says_which_to_get():
    with pytest.raises(DetectorError, match=r"face_detection_yunet_2023mar\.onnx"):
        DetectorSpec("yunet").load()


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("haar", {"detect_size": 0}),
        ("haar", {"min_face_fraction": 1.5}),
        ("haar", {"scale_factor": 1.0}),
        ("haar", {"min_neighbors": 0}),
        ("yunet", {"detect_size": 15}),
        ("yunet", {"score_threshold": 0.0}),
        ("yunet", {"nms_threshold": 2.0}),
        ("one_shot", {"min_face_fraction": 0.0}),
        ("one_shot", {"score_threshold": 1.0}),
        ("one_shot", {"nms_threshold": 0.0}),
        ("haar", {"max_faces": -1}),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name, wrong):
    with pytest.raises(DetectorError, match=next(iter(wrong))):
        spec_of(name, **wrong)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("haar", np.zeros((9, 9, 3), np.uint8)),
        ("haar", np.zeros((9, 9), np.float32)),
        ("haar", np.zeros((0, 9), np.uint8)),
        ("one_shot", np.zeros((9, 9), np.uint8)),
        pytest.param("yunet", np.zeros((9, 9), np.uint8), marks=needs_yunet),
    ],
)
def test_an_image_of_the_wrong_kind_is_refused(name, image):
    with pytest.raises(ValueError, match=f"detector {name} wants uint8"):
        spec_of(name).load().detect_batch([image])


@pytest.mark.parametrize("name", ["none", "haar", "yunet", "one_shot"])
def test_specs_travel(name):
    spec = spec_of(name, max_faces=3)
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_a_description_holds_what_matters_and_nothing_else(tmp_path):
    described = spec_of("haar").describe()
    assert spec_of("haar", min_neighbors=3).describe() != described
    assert spec_of("haar", max_faces=3).describe() != described
    assert len(described["model"]) == 64
    copy = tmp_path / "elsewhere.xml"
    copy.write_bytes(Path(cv2.data.haarcascades, "haarcascade_frontalface_default.xml").read_bytes())
    assert spec_of("haar", model=str(copy)).describe() == described
    copy.write_bytes(copy.read_bytes() + b" ")
    assert spec_of("haar", model=str(copy)).describe() != described
    assert spec_of("none").describe() == {"name": "none", "revision": 1}


@pytest.mark.parametrize("name", ["one_shot", "haar"])
def test_a_detector_is_described_without_being_loaded(name):
    code = (
        "import sys; from models.detectors.registry import DetectorSpec; "
        f"print(DetectorSpec({name!r}).describe()['name']); "
        "print([m for m in ('keras', 'tensorflow', 'onnxruntime', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [name, "[]"]


def test_the_table_is_cheap_to_import():
    code = "import sys, models.detectors.registry; print('cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert list(DETECTORS) == ["none", "one_shot", "cascade", "haar", "yunet"]


def test_what_networks_say_off_the_image_is_clipped_or_dropped():
    raw = np.array([[-5, 2, 10, 6], [np.inf, 0, 5, 5], [40, 0, 5, 5], [0, 0, 5, 5], [1, 1, 5, 5]])
    scores = np.array([0.5, 0.9, 0.9, np.nan, 0.7])
    found = detections_in(raw, scores, found_in=(10, 20), image=(20, 40), max_faces=0)
    assert found.boxes.tolist() == [[2, 2, 10, 10], [0, 4, 10, 12]]
    assert found.scores.tolist() == pytest.approx([0.7, 0.5])


# cutting


@pytest.fixture(scope="module")
def numbered():
    """(6, 8) uint8 whose pixels say where they are: 10 * y + x."""
    return (10 * np.arange(6)[:, None] + np.arange(8)).astype(np.uint8)


@given(st.integers(-30, 30), st.integers(-30, 30), st.integers(1, 20), st.integers(1, 20), st.sampled_from([(), (3,)]))
def test_a_cut_repeats_the_border_wherever_the_box_lies(x, y, width, height, channels):
    image = np.random.default_rng(0).integers(0, 256, (6, 8, *channels), dtype=np.uint8)
    rows = np.clip(np.arange(y, y + height), 0, 5)
    columns = np.clip(np.arange(x, x + width), 0, 7)
    cut = crop_resized(image, (x, y, width, height), (height, width))
    assert np.array_equal(cut, image[rows][:, columns])


def test_shrinking_averages_the_area():
    noise = np.random.default_rng(0).integers(0, 256, (40, 80), dtype=np.uint8)
    means = noise.reshape(5, 8, 10, 8).mean(axis=(1, 3))
    assert np.abs(crop_resized(noise, (0, 0, 80, 40), (5, 10)) - means).max() <= 0.5


def test_one_side_may_shrink_while_the_other_grows():
    stripes = np.tile(np.array([0, 200], dtype=np.uint8), (4, 20))
    assert (crop_resized(stripes, (0, 0, 40, 4), (8, 10)) == 100).all()


def test_enlarging_adds_no_values_beyond_those_there():
    edge = np.repeat(np.array([[50, 200]], dtype=np.uint8), 4, axis=1).repeat(8, axis=0)
    grown = crop_resized(edge, (0, 0, 8, 8), (48, 48))
    assert (grown.min(), grown.max()) == (50, 200)
    assert (np.diff(grown[0].astype(int)) >= 0).all()


def test_a_crop_of_a_plain_patch_compares_exactly():
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    image[20:60, 30:70] = (10, 200, 90)
    assert (crop_resized(image, np.array([30, 20, 40, 40], dtype=np.int32), (48, 48)) == (10, 200, 90)).all()


def test_a_whole_image_of_the_right_size_is_handed_on_untouched():
    image = np.zeros((48, 40), dtype=np.uint8)
    assert crop_resized(image, (0, 0, 40, 48), (48, 40)) is image
    assert resized(image, (48, 40)) is image
    box = np.array([0, 0, 40, 48], dtype=np.int32)
    best = min(timeit.repeat(lambda: crop_resized(image, box, (48, 40)), number=2000, repeat=5)) / 2000
    assert best < 10e-6  # about 1 µs on an idle core


def test_a_whole_image_is_squeezed_into_a_size_of_another_shape(numbered):
    assert crop_resized(numbered, (0, 0, 8, 6), (3, 8)).shape == (3, 8)
    assert crop_resized(numbered[..., None].repeat(3, axis=2), (0, 0, 8, 6), (12, 4)).shape == (12, 4, 3)


def test_a_huge_square_around_a_strip_needs_little_memory():
    strip = np.full((2, 40_000), 77, dtype=np.uint8)  # padded at full size: 1.6 GB
    assert (crop_resized(strip, (0, -19_999, 40_000, 40_000), (96, 96)) == 77).all()


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, 0), (1, 1, -1, 4)])
def test_a_box_without_pixels_is_refused(box, numbered):
    with pytest.raises(ValueError, match="nothing to cut"):
        crop_resized(numbered, box, (4, 4))


@pytest.mark.parametrize(
    ("shape", "longer", "expected"),
    [((480, 640), 320, (240, 320)), ((10, 5), 640, (10, 5)), ((1, 5000), 640, (1, 640)), ((333, 1000), 100, (33, 100))],
)
def test_reducing_keeps_the_aspect_and_never_enlarges(shape, longer, expected):
    assert reduced(np.zeros(shape, dtype=np.uint8), longer).shape == expected
