"""What of a run is worth a second look: odd shapes and sizes, flagged pictures, faces that look nearly the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import MadeImage, write_images, write_run

from models.evaluation.picture_quality import picture_quality
from pipeline.report.photo import Photo
from pipeline.report.run_quality import Sizes, picture_flags
from pipeline.report.run_report import RunReport
from pipeline.report.similar_faces import SimilarFaces
from transforms.formats.cache.contents import Contents
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.records import Limits, Status
from transforms.formats.result_batches import result_batches

CLASSES = ("happy", "sad")
WIDTH = 32


def sizes_of(folder: Path, images: list[MadeImage], *, batch: int = 8_192) -> dict[str, Any]:
    write_images(folder, images, CLASSES)
    sizes = Sizes()
    for some in result_batches(str(folder), batch=batch):
        sizes.add(some)
    return sizes.result()


@pytest.mark.parametrize("batch", [3, 8_192])
def test_odd_shapes_and_sizes_are_named(tmp_path: Path, batch: int) -> None:
    usual = [MadeImage(f"usual {at:02d}", size=(600 + 2 * at, 400)) for at in range(40)]
    odd = [MadeImage("wide", size=(1_400, 400)), MadeImage("huge", size=(6_000, 4_000)), MadeImage("tiny", size=(8, 8))]
    rejected = MadeImage("rejected", size=(0, 0), status="rejected", reason="truncated")
    found = sizes_of(tmp_path, [*usual, *odd, rejected], batch=batch)
    assert found["odd_aspect"] == {"images": 1, "names": ["wide"]}
    assert found["odd_size"]["images"] == 3 and set(found["odd_size"]["names"]) == {"huge", "tiny", "wide"}
    assert 400 < found["odd_size"]["below_px"] < 489 and 525 < found["odd_size"]["above_px"] < 748


def test_equal_sizes_are_not_odd(tmp_path: Path) -> None:
    found = sizes_of(tmp_path, [MadeImage(str(at)) for at in range(9)])
    assert found["odd_size"]["images"] == 0 and found["odd_size"]["names"] == []


def test_no_image_has_no_odd_size(tmp_path: Path) -> None:
    assert sizes_of(tmp_path, [MadeImage("a", status="rejected", reason="empty")])["odd_size"]["images"] == 0


def test_flagged_pictures_are_counted_and_some_named() -> None:
    dark = picture_quality(np.zeros((9, 9, 3), np.uint8))
    photos = {row: Photo(row, f"{row}.jpg", "", 9, 9, None, (), 0) for row in range(7)}
    found = picture_flags(dict.fromkeys(range(7), dark), photos)
    assert found["dark"]["images"] == 7 and len(found["dark"]["photos"]) == 5
    assert found["bright"] == {"images": 0, "photos": []}


# --- near-duplicates --------------------------------------------------------------------------------------------------


def digest_of(number: int) -> str:
    return f"{number + 1:016x}".ljust(64, "0")


def cached_run(folder: Path, counts: list[int]) -> tuple[dict[str, Any], FeatureCache]:
    """Writes a run of images with so many faces each, and a cache of their features; image i has the digest of i."""
    draw = np.random.default_rng(0)
    images = [
        MadeImage(f"{at:04d}.jpg", [((10 * n, 5, 9, 9), "happy", 0.5, 0.5) for n in range(count)], digest=digest_of(at))
        for at, count in enumerate(counts)
    ]
    record = write_images(folder, images, CLASSES)
    cache = FeatureCache.create(folder / "cache", {"made": "up"})
    digests = np.array([list(bytes.fromhex(digest_of(at))) for at in range(len(counts))], np.uint8)
    faces = sum(counts)
    features = draw.standard_normal((faces, WIDTH)) + 1
    contents = Contents(
        digests, np.full(len(counts), 640, np.int32), np.full(len(counts), 480, np.int32),
        np.array([Status.LABELLED if count else Status.NO_FACE for count in counts], object),
        np.full(len(counts), "", object), np.repeat(np.arange(len(counts)), counts).astype(np.int32),
        np.zeros((faces, 4), np.int32), np.zeros(faces, np.float32), features.astype(np.float16),
        tuple(image.id for image in images), (None,) * len(counts),
    )  # fmt: skip
    return {**record, "cache_key": cache.fingerprint, "cache_folder": str(folder / "cache")}, _added(cache, contents)


def _added(cache: FeatureCache, contents: Contents) -> FeatureCache:
    starts = np.searchsorted(contents.face_image, np.arange(len(contents) + 1))
    contents.features[starts[300]] = contents.features[starts[20]] + np.float16(0.01)  # planted: first faces
    contents.features[starts[301] + 1] = contents.features[starts[20]]
    contents.features[starts[7]] = contents.features[starts[400]]
    cache.add(contents.take(np.arange(0, len(contents), 2)))
    cache.add(contents.take(np.arange(1, len(contents), 2)))
    cache.refresh()
    return cache


COUNTS = [at % 3 + 2 for at in range(500)]


@pytest.mark.parametrize("batch", [64, 8_192])
def test_faces_that_look_alike_are_grouped_and_named(tmp_path: Path, batch: int) -> None:
    _, cache = cached_run(tmp_path, COUNTS)
    similar = SimilarFaces(cache.lookup)
    for some in result_batches(str(tmp_path), batch=batch):
        similar.add(some)
    found = similar.result(lambda: result_batches(str(tmp_path), batch=batch))
    assert found.numbers["faces_looked_at"] == sum(COUNTS) and found.numbers["complete"]
    assert (found.numbers["groups"], found.numbers["faces"], found.numbers["pairs"]) == (2, 5, 4)
    named = [[(photo.image_id, face.number) for photo, face in group] for group in found.groups]
    assert named == [[("0020.jpg", 0), ("0300.jpg", 0), ("0301.jpg", 1)], [("0007.jpg", 0), ("0400.jpg", 0)]]
    assert found.numbers["largest"][1]["least_cosine"] == pytest.approx(1.0)


def test_copies_count_once(tmp_path: Path) -> None:
    _, cache = cached_run(tmp_path, COUNTS)
    images = [MadeImage(f"copy {at}", [((0, 0, 9, 9), "sad", 0.5, 0.5)] * 2, digest=digest_of(3)) for at in range(60)]
    write_images(tmp_path / "copies", images, CLASSES)
    similar = SimilarFaces(cache.lookup)
    for some in result_batches(str(tmp_path / "copies")):
        similar.add(some)
    found = similar.result(lambda: result_batches(str(tmp_path / "copies")))
    assert (found.numbers["faces_looked_at"], found.numbers["pairs"], found.groups) == (2, 0, ())


def test_images_that_are_not_cached_or_have_other_faces_there_are_passed_over(tmp_path: Path) -> None:
    _, cache = cached_run(tmp_path, COUNTS)
    images = [MadeImage("new", [((0, 0, 9, 9), "sad", 0.5, 0.5)], digest="abcdef0123")]
    images += [MadeImage("other faces", [((0, 0, 9, 9), "sad", 0.5, 0.5)] * 9, digest=digest_of(3))]
    write_images(tmp_path / "other", images, CLASSES)
    similar = SimilarFaces(cache.lookup)
    for some in result_batches(str(tmp_path / "other")):
        similar.add(some)
    assert similar.result(lambda: iter(())).numbers["faces_looked_at"] == 0


def test_the_page_says_why_it_did_not_look(tmp_path: Path) -> None:
    record, _ = cached_run(tmp_path, COUNTS)
    RunReport(str(tmp_path), "", Limits(), similar_up_to=100)(record)
    reported = json.loads((tmp_path / "report.json").read_text())["similar_faces"]
    assert (
        reported["why_not"] == "the run has more than 100 faces; “python -m pipeline report RUN --similar” looks at all"
    )
    page = (tmp_path / "report.html").read_text()
    assert "more than 100 faces" in page
    assert "odd size" in page and "blurry" not in page  # no picture could be read, so none is called sharp
    RunReport(str(tmp_path), "", Limits(), similar_up_to=None)(record)
    assert json.loads((tmp_path / "report.json").read_text())["similar_faces"]["groups"] == 2
    RunReport(str(tmp_path), "", Limits())({**record, "cache_folder": str(tmp_path / "gone")})
    assert "has no feature cache" in json.loads((tmp_path / "report.json").read_text())["similar_faces"]["why_not"]


def test_a_run_of_an_earlier_version_has_a_page_without_them(tmp_path: Path) -> None:
    record = write_run(tmp_path, 50)
    RunReport(str(tmp_path), "", Limits())(record)
    assert "names no cache key" in json.loads((tmp_path / "report.json").read_text())["similar_faces"]["why_not"]


# --- photos -----------------------------------------------------------------------------------------------------------


def test_photos_that_share_half_of_their_faces_are_near_duplicates(tmp_path: Path) -> None:
    """300 shares one of its two faces with 20 and with 301; 20 and 301, as 7 and 400, share one of three."""
    _, cache = cached_run(tmp_path, COUNTS)
    assert [COUNTS[at] for at in (20, 300, 301, 7, 400)] == [4, 2, 3, 3, 3]
    similar = SimilarFaces(cache.lookup)
    for some in result_batches(str(tmp_path)):
        similar.add(some)
    photos = similar.result(lambda: result_batches(str(tmp_path))).numbers["photos"]
    assert (photos["pairs"], photos["groups"], photos["photos"]) == (2, 1, 3)
    (group,) = photos["largest"]
    assert [one["image_id"] for one in group["named"]] == ["0020.jpg", "0300.jpg", "0301.jpg"]
    assert group["least_share"] == 0.5


def test_faces_without_a_label_and_faces_of_one_photo_are_no_near_duplicates(tmp_path: Path) -> None:
    _, cache = cached_run(tmp_path, COUNTS)
    for alone, label in ((300, None), (20, "happy")):  # its near-duplicates are in photos of their own
        small = [MadeImage(f"{at:04d}.jpg", [((10 * n, 5, 9, 9), label, 0.5, 0.5) for n in range(COUNTS[at])],
                           digest=digest_of(at)) for at in {alone, 300, 301}]  # fmt: skip
        write_images(tmp_path / str(alone), small, CLASSES)
        similar = SimilarFaces(cache.lookup)
        for some in result_batches(str(tmp_path / str(alone))):
            similar.add(some)
        found = similar.result(lambda place=tmp_path / str(alone): result_batches(str(place)))
        assert found.numbers["faces_looked_at"] == (0 if label is None else sum(COUNTS[at] for at in (20, 300, 301)))
        assert bool(found.numbers["pairs"]) == (label is not None)


def test_two_alike_faces_of_one_photo_are_not_a_pair(tmp_path: Path) -> None:
    _, cache = cached_run(tmp_path, COUNTS)
    twin = Contents.take(cache.lookup(digests_of(20))[1], np.array([0]))
    twin.features[1] = twin.features[0]
    other = FeatureCache.create(tmp_path / "twins", {"made": "up"})
    other.add(twin)
    other.refresh()
    similar = SimilarFaces(other.lookup)
    for some in result_batches(str(tmp_path)):
        similar.add(some)
    found = similar.result(lambda: result_batches(str(tmp_path)))
    assert (found.numbers["faces_looked_at"], found.numbers["pairs"]) == (COUNTS[20], 0)


def digests_of(at: int) -> np.ndarray:
    return np.array([list(bytes.fromhex(digest_of(at)))], np.uint8)
