"""`FaceLabeler`: the numbers of `label` without Beam, from paths, bytes and arrays, one at a time or many."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from pictures import gradient, jpeg, plain, png, portrait, quarters

from models.detectors.cropping import resized
from models.heads.number import NumberHead
from models.heads.registry import BUNDLED_HEADS, load_head
from models.training.fit_numbers import FittedNumber, number_files
from pipeline.api import Box, FaceLabeler, LabelledImage, RejectedImage, UsageError
from pipeline.api.face_labeler import IMAGES_AT_ONCE
from pipeline.run.identity import identity_of
from pipeline.settings.load import load_settings
from transforms.formats.canonical import fingerprint_of
from transforms.formats.decode import decode
from transforms.formats.records import Limits

SETTINGS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "small faces without a label, a reject score": {"faces.min_label_px": 60, "head.path": "bundled/ferplus"},
    "another detector, a margin": {"faces.detector": "haar", "faces.margin": 0.2, "faces.max_faces": 3},
    "the whole image": {"faces.detector": "none"},
    "limits": {"read.max_image_bytes": 200_000, "read.max_pixels": 300_000},
}


def several() -> np.ndarray:
    """Returns (640, 900, 3) uint8 RGB with the portrait's face three times, of different sizes, and one tiny one."""
    canvas = plain(640, 900, (120, 130, 140))
    face = portrait()[0:256, 100:356]
    for side, x, y in ((256, 20, 30), (180, 400, 40), (256, 560, 320), (40, 60, 500)):
        canvas[y : y + side, x : x + side] = resized(face, (side, side))
    return canvas


def pictures() -> dict[str, bytes]:
    """Returns image files by name: with faces, without, and some that cannot be used."""
    whole = jpeg(portrait())
    return {
        "a_portrait.png": png(portrait()),
        "b_several.jpg": jpeg(several()),
        "c_turned.jpg": jpeg(np.rot90(portrait()), orientation=6),
        "d_grey.png": png(portrait().mean(axis=2).astype(np.uint8)),
        "e_nobody.png": png(gradient(200, 300)),
        "f_cut.jpg": whole[: len(whole) // 2],
        "g_words.jpg": b"no image at all",
        "h_small.png": png(plain(5, 5)),
        "i_empty.png": b"",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    for name, data in pictures().items():
        (made / name).write_bytes(data)
    return made


@pytest.fixture(scope="module")
def labeler() -> FaceLabeler:
    return FaceLabeler.bundled()


def as_rows(labelled: LabelledImage) -> Iterator[dict[str, Any]]:
    """Yields the rows of `predictions/` that an image stands for."""
    for number, face in enumerate(labelled.faces):
        chances = face.probabilities or dict.fromkeys(labelled.classes)
        yield {
            "image_id": Path(labelled.name).name,
            "face_index": number,
            **face.box._asdict(),
            "detection_score": face.detection_score,
            "label": face.label,
            "label_index": face.label_index,
            "confidence": face.confidence,
            "intensity": face.intensity,
            "no_label_score": face.no_label_score,
            **{f"p_{name}": value for name, value in chances.items()},
        }


# --- the same numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", SETTINGS.values(), ids=SETTINGS)
def test_the_numbers_are_those_of_label(folder: Path, tmp_path: Path, chosen: dict[str, Any]) -> None:
    settings = [f"{name}={value}" for name, value in chosen.items()] + ["write.no_face_label=neutral"]
    arguments = ["--runner=DirectRunner", "--input", str(folder), "--output", str(tmp_path / "out")]
    run = runs.run(*arguments, "--set", "write.report=false", *settings, output=tmp_path / "out").done()
    reported = list(FaceLabeler(settings=chosen).label_many(sorted(folder.iterdir())))

    found = [row for image in reported for row in as_rows(image)]
    assert [{"intensity": None, "no_label_score": None, **row} for row in runs.predictions(run.output)] == found
    assert found
    for row, image in zip(runs.images(run.output).values(), reported, strict=True):
        assert (row["width"], row["height"], row["status"], row["reason"], row["faces"]) == (
            image.width, image.height, image.status, image.reason, len(image),
        ), image  # fmt: skip


def test_several_heads_say_what_they_say_in_label(folder: Path, tmp_path: Path) -> None:
    """The first fills the fields of a face; the others are under the names of their columns."""
    space = identity_of(load_settings(()), None).feature_space
    width = load_head(BUNDLED_HEADS["bundled"]).mean.shape[0]
    glow = NumberHead("glow", *(np.full(shape, 0.5) for shape in ((1, width), (1,), (width,), (width,))))
    number = FittedNumber(replace(glow, coef=glow.coef.astype(np.float32)), 1.0, ())
    for name, content in number_files(number, fingerprint_of(space), space).items():
        (tmp_path / "glow").mkdir(exist_ok=True)
        (tmp_path / "glow" / name).write_bytes(content)
    heads = ["bundled", "votes=bundled/ferplus", str(tmp_path / "glow")]
    arguments = ["--runner=DirectRunner", "--input", str(folder), "--output", str(tmp_path / "out"), "--head", *heads]
    settings = ("write.report=false", "write.no_face_label=neutral", "faces.min_label_px=60")
    run = runs.run(*arguments, "--set", *settings, output=tmp_path / "out").done()

    labeler = FaceLabeler(heads, {"faces.min_label_px": 60})
    found = []
    for image in labeler.label_many(sorted(folder.iterdir())):
        rows = as_rows(image)
        found += [{**row, **face.more} for row, face in zip(rows, image.faces, strict=True)]
    expected = runs.predictions(run.output)
    for row, own in zip(expected, found, strict=True):
        for name in ("intensity", "no_label_score"):
            own.pop(name)  # the first head has none
        assert {name: own.get(name) for name in row} == row and own.keys() <= row.keys()
    assert any(row["glow_glow"] is not None and row["votes_label"] for row in expected)
    assert any(row["glow_glow"] is None for row in expected)
    assert labeler.classes == FaceLabeler.bundled().classes and not labeler.rejecting
    assert f"head {', '.join(heads)} (angry, " in repr(labeler)
    with pytest.raises(UsageError, match="the first head must choose among classes, but this one gives a number, glow"):
        FaceLabeler([str(tmp_path / "glow"), "bundled"])


def test_some_faces_are_large_enough_for_a_label_and_some_are_not(folder: Path) -> None:
    small = FaceLabeler(settings=SETTINGS["small faces without a label, a reject score"])
    faces = small.label(folder / "b_several.jpg").faces
    assert {face.label is None for face in faces} == {True, False}
    for face in faces:
        assert (face.label is None) == (max(face.box[2:]) < 60)
        assert (face.label is None) == (face.probabilities == {}) == (face.no_label_score is None)
        if face.label is not None:
            assert face.confidence == face.probabilities[face.label] == max(face.probabilities.values())
            assert list(face.probabilities)[face.label_index or 0] == face.label


def test_faces_are_ordered_by_score_then_from_top_to_bottom_then_from_left_to_right(
    labeler: FaceLabeler, folder: Path
) -> None:
    faces = labeler.label(folder / "b_several.jpg").faces
    assert len(faces) >= 3
    assert list(faces) == sorted(faces, key=lambda face: (-face.detection_score, face.box.y, face.box.x))


@pytest.mark.parametrize("picture", [portrait, several, lambda: several()[..., 1]], ids=["colour", "faces", "grey"])
def test_an_array_gives_what_a_file_of_its_pixels_gives(labeler: FaceLabeler, picture: Any) -> None:
    pixels = picture()
    from_file = labeler.label(png(pixels))
    assert labeler.label(pixels) == from_file
    assert labeler.label(np.asfortranarray(pixels)) == from_file
    assert labeler.label(np.repeat(pixels, 2, axis=0)[::2]) == from_file  # a view
    assert len(from_file.faces) >= 1


def test_a_path_bytes_and_a_pillow_image_are_taken_too(labeler: FaceLabeler, folder: Path) -> None:
    from PIL import Image

    path = folder / "a_portrait.png"
    by_path = labeler.label(path)
    assert by_path.name == str(path)
    for other in (str(path), path.read_bytes(), bytearray(path.read_bytes()), Image.open(path)):
        assert labeler.label(other).faces == by_path.faces


def test_other_images_and_the_size_of_a_batch_change_nothing(labeler: FaceLabeler, folder: Path) -> None:
    paths = sorted(folder.iterdir())
    alone = [next(labeler.label_many([path])) for path in paths]
    assert list(labeler.label_many(reversed(paths))) == alone[::-1]
    assert list(FaceLabeler(batch_size=13).label_many(paths)) == alone


def test_threads_share_a_labeler(labeler: FaceLabeler, folder: Path) -> None:
    paths = sorted(folder.iterdir())[:5] * 4
    expected = list(labeler.label_many(paths))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(labeler.label, paths)) == expected


# --- without Beam -----------------------------------------------------------------------------------------------------

FRESH = """
import sys
from pipeline.api import FaceLabeler
assert not {"apache_beam", "tensorflow", "keras"} & set(sys.modules), "the import alone is cheap"
labelled = FaceLabeler.bundled().label(sys.argv[1])
print(labelled.faces[0].label, "apache_beam" in sys.modules)
assert "<svg" in labelled._repr_html_()
print("apache_beam" in sys.modules)
"""


def test_beam_is_never_imported(folder: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FRESH, str(folder / "a_portrait.png")],
        cwd=runs.ROOT, capture_output=True, text=True, timeout=runs.PATIENCE_S, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["happy", "False", "False"]


# --- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("f_cut.jpg", "truncated"), ("g_words.jpg", "not_an_image"), ("h_small.png", "too_small"),
        ("i_empty.png", "empty"),
    ],
)  # fmt: skip
def test_one_image_that_cannot_be_used_raises_and_many_say_why(
    labeler: FaceLabeler, folder: Path, name: str, reason: str
) -> None:
    with pytest.raises(RejectedImage, match=f"{name} cannot be used: {reason}") as caught:
        labeler.label(folder / name)
    (row,) = labeler.label_many([folder / name])
    assert (row.status, row.reason, row.faces) == ("rejected", reason, ())
    assert (caught.value.reason, caught.value.width, caught.value.height) == (reason, row.width, row.height)


@pytest.mark.parametrize("of", ["path", "bytes", "array"])
def test_too_many_bytes_are_not_decoded(tmp_path: Path, of: str) -> None:
    small = FaceLabeler(settings={"read.max_image_bytes": 1000})
    pixels = quarters(40, 50)
    (tmp_path / "large.bin").write_bytes(bytes(1001))
    given = {"path": tmp_path / "large.bin", "bytes": bytes(1001), "array": pixels}[of]
    with pytest.raises(RejectedImage, match="too_many_bytes"):
        small.label(given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((20, 20, 3), np.float32), r"float32 of shape \(20, 20, 3\)"),
        (np.zeros((20, 20, 4), np.uint8), r"uint8 of shape \(20, 20, 4\)"),
        (np.zeros(20, np.uint8), r"uint8 of shape \(20,\)"),
        (None, "not NoneType"),
        ({"a": 1}, "not dict"),
        ("nowhere/x.jpg", "nowhere/x.jpg cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(labeler: FaceLabeler, given: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        labeler.label(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"head": "bundled/nobody"}, "is not a bundled head"),
        ({"head": "nowhere"}, "nowhere"),
        ({"settings": {"faces.detector": "hare"}}, r"faces.detector is 'hare' \(an argument\)"),
        ({"settings": {"features.pooling": "avg"}}, "pooling: head multi, here avg"),
        ({"batch_size": 7}, "batch_size=7 is too small"),
    ],
)
def test_a_labeler_that_cannot_work_is_refused_in_one_line(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        FaceLabeler(**arguments)


def test_an_endless_source_is_taken_a_few_at_a_time(labeler: FaceLabeler) -> None:
    taken = []

    def frames() -> Iterator[np.ndarray]:
        for number in itertools.count():
            taken.append(number)
            yield gradient(40, 40)

    labelled = labeler.label_many(frames())
    assert taken == []
    assert [next(labelled).status for _ in range(3)] == ["no_face"] * 3
    assert len(taken) == IMAGES_AT_ONCE


# --- what people see --------------------------------------------------------------------------------------------------


def test_an_image_is_its_faces(labeler: FaceLabeler, folder: Path) -> None:
    image = labeler.label(folder / "b_several.jpg")
    assert list(image) == [image[number] for number in range(len(image))] == list(image.faces)
    nobody = labeler.label(folder / "e_nobody.png")
    assert (len(nobody), bool(nobody), nobody.status, nobody.reason) == (0, True, "no_face", None)
    x, y, width, height = image[0].box
    assert image[0].box == Box(x, y, width, height)


def test_a_line_says_what_was_found(labeler: FaceLabeler, folder: Path) -> None:
    assert re.fullmatch(
        r"<LabelledImage '.*a_portrait.png' 512×512: happy \d\d% at \(\d+, \d+\), \d+×\d+ px>",
        repr(labeler.label(folder / "a_portrait.png")),
    )
    assert re.fullmatch(r"<LabelledImage 300×200: no face>", repr(labeler.label(png(gradient(200, 300)))))
    (row,) = labeler.label_many([b"words"])
    assert repr(row) == "<LabelledImage 0×0: rejected, not_an_image>"
    assert "detector one_shot" in repr(labeler)
    assert "angry, disgust" in repr(labeler)


def test_a_notebook_shows_the_photo_with_its_faces(labeler: FaceLabeler, folder: Path) -> None:
    image = labeler.label(folder / "b_several.jpg")
    html = image._repr_html_()
    assert html.count("<svg") == html.count("<image ") == 1
    assert html.count("<rect ") == 2 * len(image)  # a dark line below a coloured one
    assert html.count("<tr>") == 1 + len(image)
    assert f"900×640: {len(image)} faces" in html
    assert len(html) < 200_000
    assert not re.search(r"https?://(?!www\.w3\.org)|<script|<style", html)


def test_a_hostile_name_is_inert(labeler: FaceLabeler, tmp_path: Path) -> None:
    path = tmp_path / "<img src=x onerror=alert(1)>\u202e.png"
    path.write_bytes(png(portrait()))
    html = labeler.label(path)._repr_html_()
    assert "&lt;img src=x" in html and "<img" not in html and "\u202e" not in html


def test_a_picture_that_is_gone_costs_only_the_picture(labeler: FaceLabeler, tmp_path: Path) -> None:
    (tmp_path / "gone.png").write_bytes(png(portrait()))
    image = labeler.label(tmp_path / "gone.png")
    (tmp_path / "gone.png").unlink()
    assert "The picture cannot be read." in image._repr_html_()
    assert "happy" in image._repr_html_()


def test_a_frame_that_is_reused_is_shown_as_it_was(labeler: FaceLabeler) -> None:
    frame = portrait()
    image = labeler.label(frame)
    frame[:] = 0
    assert isinstance(image.picture, bytes)
    assert np.array_equal(decode(image.picture, channels=3, limits=Limits()).image, portrait())
