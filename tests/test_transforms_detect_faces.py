"""Decoding, rejection, detection and crops: each image for itself, in order, whatever the pool does."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks import CROPPING, detects, job, raw, through
from pictures import BLUE, RED, gradient, jpeg, nasty_files, plain, png, portrait, quarters

from models.boxes import square_with_margin
from models.detectors.cropping import crop_resized, resized
from models.detectors.detections import Detections
from models.detectors.options import HaarOptions
from models.detectors.registry import Detector, DetectorSpec
from transforms import crop_faces as cropping
from transforms import detect_faces as stage_module
from transforms.block import Block, Faces, Reason, Status
from transforms.containing import IN_A_ROW, ProgramFault
from transforms.crop_faces import (
    Outcome,
    detect_images,
    detect_rows,
    grey_of,
    in_columns,
    rows_to_detect,
    whole_images,
    with_rows,
)
from transforms.formats.decode import decode
from transforms.formats.publish import StorageError
from transforms.formats.records import Limits
from transforms.job import Detecting
from transforms.storage import stopping
from transforms.storage.store import InputFault

HAAR = DetectorSpec("haar")


class Finds:
    """A detector that finds these boxes on every image; notes the shapes it was given."""

    def __init__(self, channels: int, boxes: list[list[int]]) -> None:
        self.channels = channels
        self._boxes = np.asarray(boxes, np.int32).reshape(-1, 4)
        self.shapes: list[tuple[int, ...]] = []

    def detect_batch(self, images: Sequence[np.ndarray]) -> list[Detections]:
        return [self.detect(image) for image in images]

    def detect(self, image: np.ndarray) -> Detections:
        self.shapes.append(image.shape)
        return Detections(self._boxes, np.linspace(1, 0.5, len(self._boxes), dtype=np.float32))


def look(data: bytes, given: Detecting, detector: Detector) -> Outcome:
    """Returns what comes of one image."""
    rows = detect_rows(raw([data]), [0], given, detector)
    return Outcome(rows.width[0], rows.height[0], rows.reason[0], rows.faces, rows.fault[0])


def sized(height: int, width: int, detector: DetectorSpec | None = None, **other: Any) -> Detecting:
    """Returns how faces are found, with crops of this size; `other` are fields of `Cropping`."""
    return Detecting(
        detector or DetectorSpec("none"), replace(CROPPING, height=height, width=width, **other), threads=2
    )


# --- one image --------------------------------------------------------------------------------------------------------


def test_without_a_detector_the_whole_image_is_the_face(tmp_path: Path) -> None:
    given = sized(20, 30)
    seen = look(png(gradient(40, 50)), given, given.detector.load())
    assert (seen.width, seen.height, seen.reason) == (50, 40, None)
    assert (seen.faces.box.tolist(), seen.faces.score.tolist()) == ([[0, 0, 50, 40]], [1.0])
    assert (seen.faces.crops.shape, seen.faces.crops.dtype) == ((1, 20, 30, 1), np.uint8)
    assert np.array_equal(seen.faces.crops[0, :, :, 0], resized(gradient(40, 50), (20, 30)))


def test_an_image_of_the_right_size_is_its_own_crop(tmp_path: Path) -> None:
    given = sized(48, 32, channels=3)
    seen = look(png(quarters(48, 32)), given, given.detector.load())
    assert np.array_equal(seen.faces.crops[0], quarters(48, 32))


def test_a_box_is_in_pixels_of_the_whole_upright_image_though_less_is_decoded(tmp_path: Path) -> None:
    given = sized(16, 16)
    seen = look(jpeg(gradient(160, 320), orientation=6), given, given.detector.load())
    assert (seen.width, seen.height, seen.faces.box.tolist()) == (160, 320, [[0, 0, 160, 320]])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("detector_channels", [1, 3])
@pytest.mark.parametrize("picture", ["grey", "colour"])
def test_detector_and_network_each_get_the_channels_they_want(
    tmp_path: Path, channels: int, detector_channels: int, picture: str
) -> None:
    image = gradient(40, 60) if picture == "grey" else quarters(40, 60)
    detector = Finds(detector_channels, [[10, 10, 20, 20]])
    seen = look(png(image), sized(8, 8, channels=channels, detector=HAAR), detector)
    assert detector.shapes == [(40, 60) if detector_channels == 1 else (40, 60, 3)]
    assert seen.faces.crops.shape == (1, 8, 8, channels)
    rgb = np.repeat(image[..., None], 3, 2) if picture == "grey" else image
    wanted = rgb if channels == 3 else (image if picture == "grey" else grey_of(image))
    expected = crop_resized(wanted, (10, 10, 20, 20), (8, 8)).reshape(8, 8, channels)
    assert np.abs(seen.faces.crops[0].astype(int) - expected.astype(int)).max() <= 1  # grey by the decoder or by us


def test_grey_crops_of_a_colour_image_are_its_luma(tmp_path: Path) -> None:
    for colour, luma in ((RED, 76), (BLUE, 29)):
        detector = Finds(3, [[0, 0, 20, 20]])
        seen = look(png(plain(20, 20, colour)), sized(4, 4, detector=HAAR), detector)
        assert (seen.faces.crops == luma).all()


def test_crops_are_squares_with_a_margin_and_boxes_stay_as_found(tmp_path: Path) -> None:
    image = gradient(60, 60)
    boxes = [[10, 12, 20, 30], [0, 0, 10, 10], [50, 50, 10, 10]]
    seen = look(png(image), sized(8, 8, margin=0.25, detector=HAAR), Finds(1, boxes))
    assert (seen.faces.box.tolist(), seen.faces.score.tolist()) == (boxes, [1.0, 0.75, 0.5])
    squares = square_with_margin(np.asarray(boxes), 0.25)
    for crop, square in zip(seen.faces.crops, squares, strict=True):
        assert np.array_equal(crop[..., 0], crop_resized(image, square, (8, 8)))


def test_an_image_without_a_face_has_none(tmp_path: Path) -> None:
    seen = look(png(plain(40, 60, 9)), sized(8, 8, detector=HAAR), Finds(1, []))
    assert (seen.width, seen.height, seen.reason) == (60, 40, None)
    assert (len(seen.faces), seen.faces.box.shape, seen.faces.crops) == (0, (0, 4), None)


@pytest.mark.parametrize("channels", [1, 3])
def test_haar_finds_the_face_of_a_portrait(tmp_path: Path, channels: int) -> None:
    given = sized(48, 48, detector=HAAR, channels=channels)
    seen = look(jpeg(portrait()), given, HAAR.load())
    assert (seen.width, seen.height, seen.faces.crops.shape[1:]) == (512, 512, (48, 48, channels))
    x, y, width, height = seen.faces.box[seen.faces.score.argmax()]
    assert x < 225 < x + width
    assert y < 120 < y + height


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("detector", [DetectorSpec("none"), HAAR], ids=["none", "haar"])
def test_whatever_is_wrong_with_a_file_is_an_outcome(tmp_path: Path, channels: int, detector: DetectorSpec) -> None:
    given = sized(8, 8, channels=channels, detector=detector)
    finder = detector.load()
    for name, (data, reason) in nasty_files().items():
        seen = look(data, given, finder)
        assert seen.reason is reason, name
        if reason is not None or len(seen.faces) == 0:
            assert len(seen.faces) == 0, name
            continue
        assert seen.faces.crops.shape[1:] == (8, 8, channels), name
        assert len(seen.faces.crops) == len(seen.faces.box) == len(seen.faces.score), name


@pytest.mark.parametrize(
    "other, reason",
    [
        ({"smallest_side": 9}, Reason.TOO_SMALL),
        ({"smallest_side": 8}, None),
        ({"limits": Limits(max_pixels=79)}, Reason.TOO_MANY_PIXELS),
        ({"limits": Limits(max_pixels=80)}, None),
    ],
)
def test_limits_of_the_run_hold(tmp_path: Path, other: dict[str, Any], reason: Reason | None) -> None:
    given = sized(8, 8, **other)
    seen = look(png(gradient(8, 10)), given, given.detector.load())
    assert (seen.reason, seen.width, seen.height) == (reason, 10, 8)


# --- a block ----------------------------------------------------------------------------------------------------------


def outcome(faces: int, *, reason: Reason | None = None, value: int = 0) -> Outcome:
    found = Faces(
        np.zeros(faces, np.int32),
        np.full((faces, 4), value, np.int32),
        np.ones(faces, np.float32),
        np.full((faces, 2, 2, 1), value, np.uint8),
    )
    return Outcome(7, 5, reason, None if reason else found)


def test_rows_that_need_no_look_are_passed_over() -> None:
    block = raw([b"a", None, b"a", b"c", b"d"])
    cached = replace(
        block, data=(b"a", None, b"a", None, b"d"), status=(None, Status.REJECTED, None, Status.LABELLED, None)
    )
    assert rows_to_detect(cached) == [0, 4]


def test_outcomes_become_status_and_faces_and_the_bytes_go() -> None:
    block = raw([b"a", b"b", b"c", None, b"e"])
    outcomes = [outcome(2, value=1), outcome(0), outcome(0, reason=Reason.TRUNCATED), outcome(1, value=2)]
    cropped = with_rows(block, [in_columns([0, 1, 2, 4], outcomes)])
    assert cropped.status == (Status.LABELLED, Status.NO_FACE, Status.REJECTED, Status.REJECTED, Status.LABELLED)
    assert cropped.reason == (None, None, Reason.TRUNCATED, Reason.DAMAGED_MEMBER, None)
    assert (cropped.width.tolist(), cropped.height.tolist()) == ([7, 7, 7, 0, 7], [5, 5, 5, 0, 5])
    assert cropped.data == (None,) * 5
    assert cropped.fresh.image.tolist() == [0, 0, 4]
    assert cropped.fresh.crops is not None
    assert cropped.fresh.crops[:, 0, 0, 0].tolist() == [1, 1, 2]
    assert (len(cropped.faces), block.status[0]) == (0, None)


def test_a_block_without_faces_has_no_crops() -> None:
    assert len(with_rows(raw([b"a"]), [in_columns([0], [outcome(0)])]).fresh) == 0
    assert len(with_rows(raw([None]), [in_columns([], [])]).fresh) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_many_whole_images_give_what_each_would_alone(tmp_path: Path, channels: int) -> None:
    contents = [png(gradient(40, 50)), *(data for data, _ in nasty_files().values()), jpeg(quarters(48, 48)), b""]
    block, given = raw(contents), sized(20, 30, channels=channels)
    rows = rows_to_detect(block)
    detector = given.detector.load()
    alone = with_rows(block, [detect_rows(block, [row], given, detector) for row in rows])
    halves = [whole_images(block, some, given.cropping) for some in (rows[:7], rows[7:])]
    assert signature(with_rows(block, halves)) == signature(alone)
    assert {Status.LABELLED, Status.REJECTED} <= set(alone.status)
    assert with_rows(block, halves).fresh.crops.shape[1:] == (20, 30, channels)


def test_a_task_takes_more_images_where_they_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = detects(job(tmp_path))
    stage.setup()
    block = raw([b"%04d" % n for n in range(100)])
    monkeypatch.setattr(stage_module, "BYTES_A_TASK", 1)
    assert [len(task.args[1]) for task in stage._tasks(block)] == [32, 32, 32, 4]
    monkeypatch.setattr(stage_module, "BYTES_A_TASK", 200)
    assert [len(task.args[1]) for task in stage._tasks(block)] == [50, 50]
    assert stage._tasks(raw([None])) == []
    stage.teardown()


# --- the stage --------------------------------------------------------------------------------------------------------


def blocks_of_all_kinds() -> list[Block]:
    good = [png(np.roll(gradient(24, 24), n, axis=1)) for n in range(40)]
    bad = [data for data, _ in nasty_files().values()]
    return [raw([*good[n * 10 : n * 10 + 10], None, *bad, good[n * 10]], key=f"b{n}") for n in range(4)]


def signature(block: Block) -> tuple[Any, ...]:
    crops = block.fresh.crops
    columns = (block.width, block.height, block.fresh.image, block.fresh.box, block.fresh.score)
    arrays = tuple(column.tobytes() for column in columns)
    return (block.key, block.status, block.reason, block.data, arrays, None if crops is None else crops.tobytes())


@pytest.mark.parametrize("threads, task", [(1, 1), (1, 1000), (3, 1), (4, 7)])
def test_what_comes_out_depends_neither_on_threads_nor_on_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, task: int
) -> None:
    blocks = blocks_of_all_kinds()
    expected = [signature(block) for block in through(detects(job(tmp_path, threads=2)), blocks)]
    monkeypatch.setattr(stage_module, "IMAGES_A_TASK", task)
    monkeypatch.setattr(stage_module, "BYTES_A_TASK", 1)
    found = [signature(block) for block in through(detects(job(tmp_path, threads=threads)), blocks)]
    assert found == expected
    assert [block[0] for block in found] == ["b0", "b1", "b2", "b3"]


def test_a_batch_holds_as_many_images_as_fit_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Notes(Finds):
        def detect_batch(self, images: Sequence[np.ndarray]) -> list[Detections]:
            sizes.append(len(images))
            return super().detect_batch(images)

    sizes: list[int] = []
    contents = [png(gradient(40, 50 + number)) for number in range(7)]
    given, detector = sized(8, 8), Notes(1, [[3, 4, 20, 20]])
    together = detect_images(["x"] * 7, contents, given.cropping, detector)
    monkeypatch.setattr(cropping, "BATCH_BYTES", 4000)
    few = detect_images(["x"] * 7, contents, given.cropping, detector)
    assert sizes == [7, 2, 2, 2, 1]
    for one, other in zip(together, few, strict=True):
        assert np.array_equal(one.faces.crops, other.faces.crops)
        assert one.width == other.width


@pytest.mark.parametrize("threads, task", [(1, 1), (4, 3)])
def test_detection_depends_neither_on_threads_nor_on_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, task: int
) -> None:
    image = portrait()[:300, 100:400]
    blocks = [raw([jpeg(np.roll(image, 10 * n, axis=1)) for n in range(6)], key=f"b{m}") for m in range(2)]
    given = job(tmp_path, detector=DetectorSpec("haar", HaarOptions(detect_size=200), max_faces=3), threads=2)
    expected = [signature(block) for block in through(detects(given), blocks)]
    assert any(Status.LABELLED in block[1] for block in expected)
    monkeypatch.setattr(stage_module, "IMAGES_A_TASK", task)
    monkeypatch.setattr(stage_module, "BYTES_A_TASK", 1)
    again = replace(given, detecting=replace(given.detecting, threads=threads))
    assert [signature(block) for block in through(detects(again), blocks)] == expected


class Raises(Finds):
    """A detector that fails at images of which a rule says so."""

    def __init__(self, fails: Callable[[np.ndarray], bool], error: Callable[[], BaseException]) -> None:
        super().__init__(1, [[1, 1, 9, 9]])
        self._fails, self._error = fails, error

    def detect(self, image: np.ndarray) -> Detections:
        if self._fails(image):
            raise self._error()
        return super().detect(image)


def overflow() -> BaseException:
    """What numpy raises where a number does not fit its type."""
    try:
        np.zeros(1, np.int32)[0] = 2**31
    except OverflowError as error:
        return error
    raise AssertionError


def is_dark(image: np.ndarray) -> bool:
    return bool(image.max() < 50)


@pytest.mark.parametrize(
    "error",
    [overflow, lambda: MemoryError("no memory"), lambda: KeyError("x"), lambda: OSError("broken data stream")],
    ids=["numpy", "memory", "key", "oserror"],
)
def test_what_nobody_foresaw_costs_one_image_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Callable[[], Any]
) -> None:
    detector = Raises(is_dark, error)
    monkeypatch.setattr(DetectorSpec, "load", lambda _: detector)
    pictures = [png(plain(20, 20, grey)) for grey in (99, 9, 120)]
    with caplog.at_level("WARNING", "pipeline"):
        block = through(detects(job(tmp_path, detector=HAAR)), [raw([*pictures, b"junk"])])[0]
    assert block.status == (Status.LABELLED, Status.REJECTED, Status.LABELLED, Status.REJECTED)
    assert block.reason == (None, Reason.INTERNAL_ERROR, None, Reason.NOT_AN_IMAGE)
    assert block.fresh.image.tolist() == [0, 2]
    reported = [record.getMessage() for record in caplog.records]
    assert len(reported) == 1
    assert "'1.png'" in reported[0]
    assert f"{type(error()).__name__}: " in reported[0]


def test_so_it_is_where_the_whole_image_is_the_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(data: bytes, **other: Any) -> Any:
        if data == dark:
            raise overflow()
        return decode(data, **other)

    dark = png(plain(20, 20, 9))
    monkeypatch.setattr(cropping, "decode", fails)
    block = through(detects(job(tmp_path)), [raw([png(plain(20, 20, 99)), dark, png(plain(20, 20, 120))])])[0]
    assert block.reason == (None, Reason.INTERNAL_ERROR, None)
    assert block.fresh.image.tolist() == [0, 2]
    assert (block.fresh.crops[1] == 120).all()


def test_a_lack_of_memory_is_tried_again_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most, tried = 0, 0, []
    lock = threading.Lock()

    def hungry(data: bytes, **other: Any) -> Any:
        nonlocal inside, most
        with lock:
            inside += 1
            alone, again = inside == 1, data in tried
            tried.append(data)
            most = max(most, inside)
        try:
            time.sleep(0.002)
            if not again:
                raise MemoryError
            assert alone  # an AssertionError would be a row, and fail the test
            return decode(data, **other)
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(cropping, "decode", hungry)
    monkeypatch.setattr(stage_module, "IMAGES_A_TASK", 1)
    monkeypatch.setattr(stage_module, "BYTES_A_TASK", 1)
    contents = [png(plain(20, 20, grey)) for grey in range(40)]
    block = through(detects(job(tmp_path, threads=4)), [raw(contents)])[0]
    assert set(block.status) == {Status.LABELLED}
    assert len(tried) == 80
    assert most > 1  # else nothing was shown


@pytest.mark.parametrize(
    "error",
    [
        lambda: stopping.Stopped("stopped"),
        lambda: StorageError(errno.ENOSPC, "full"),
        lambda: InputFault(errno.EIO, "gone"),
        lambda: OSError(errno.EMFILE, "too many open files"),
        KeyboardInterrupt,
    ],
    ids=["stopped", "storage", "input", "system", "interrupt"],
)
def test_a_stop_and_a_fault_of_the_storage_are_no_fault_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]
) -> None:
    detector = Raises(is_dark, error)
    monkeypatch.setattr(DetectorSpec, "load", lambda _: detector)
    with pytest.raises(type(error())):
        through(detects(job(tmp_path, detector=HAAR)), [raw([png(plain(20, 20, 9))])])


def in_rows(kinds: str) -> list[bytes]:
    """Returns pictures that fail (x, y: in two ways), pass (.) and are rejected for their content (j)."""
    greys = {"x": 9, "y": 30, ".": 99}
    return [
        b"junk%d" % row if kind == "j" else png(np.asarray(plain(20, 20, greys[kind]) + row % 8, np.uint8))
        for row, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize(
    "kinds, stops",
    [
        ("x" * 20, True),
        ("x" * 19 + "." + "x" * 19, False),
        ("x" * 10 + "y" + "x" * 10, False),
        ("x" * 10 + "jjj" + "x" * 10, True),
        ("." * 30 + "y" * 20, True),
    ],
)
@pytest.mark.parametrize("threads, a_block", [(1, 50), (3, 7)])
def test_the_same_fault_at_many_images_in_a_row_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: str, stops: bool, threads: int, a_block: int
) -> None:
    assert IN_A_ROW == 20

    def fails(data: bytes, **other: Any) -> Any:
        image = decode(data, **other)
        if image.image.max() < 20:
            raise ValueError("x")
        if image.image.max() < 50:
            raise KeyError("y")
        return image

    monkeypatch.setattr(cropping, "decode", fails)
    monkeypatch.setattr(stage_module, "IMAGES_A_TASK", 4)
    contents = in_rows(kinds)
    blocks = [
        raw(part, key=f"b{at}", prefix=f"{at}/", same_as=np.arange(len(part), dtype=np.int32))
        for at in range(0, len(contents), a_block)
        if (part := contents[at : at + a_block])
    ]
    if not stops:
        assert len(through(detects(job(tmp_path, threads=threads)), blocks)) == len(blocks)
        return
    with pytest.raises(ProgramFault, match=r"20 images in a row, up to .*, failed with an unforeseen (ValueError|Key)"):
        through(detects(job(tmp_path, threads=threads)), blocks)


def test_the_stage_stops_when_asked(tmp_path: Path) -> None:
    stopping.ask_to_stop()
    try:
        with pytest.raises(stopping.Stopped):
            through(detects(job(tmp_path)), [raw([b"a"])])
    finally:
        stopping.forget()
