"""The sample: photos out of packages that are installed, the same each time, one of them with several faces."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.detectors.registry import DetectorSpec
from pipeline import sample
from pipeline.errors import StoppedError
from transforms.formats.decode import decode
from transforms.formats.records import Limits

pytest.importorskip("skimage", reason="the extra 'sample' is not installed")
pytest.importorskip("matplotlib", reason="the extra 'sample' is not installed")


def test_photos_are_copied_once(tmp_path: Path) -> None:
    written = sample.write_sample(tmp_path / "deep" / "sample")
    assert [path.name for path in written] == [*sample.PHOTOS, sample.TOGETHER]
    assert sorted(path.name for path in written[0].parent.iterdir()) == sorted(path.name for path in written)
    assert all(decode(path.read_bytes(), channels=3, limits=Limits()).width > 200 for path in written)
    stamps = [path.stat().st_mtime_ns for path in written]
    assert sample.write_sample(tmp_path / "deep" / "sample") == written
    assert [path.stat().st_mtime_ns for path in written] == stamps


def test_a_half_copied_photo_is_copied_again(tmp_path: Path) -> None:
    [first, *_] = sample.write_sample(tmp_path)
    whole = first.read_bytes()
    first.write_bytes(whole[:100])
    sample.write_sample(tmp_path)
    assert first.read_bytes() == whole


def test_missing_photos_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "PHOTOS", {"gone.png": "skimage"})
    with pytest.raises(StoppedError, match=r"gone\.png is missing; install the scikit-image that"):
        sample.write_sample(tmp_path)
    monkeypatch.setattr(sample.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StoppedError, match=r"scikit-image, which is not installed; install the extra 'sample'"):
        sample.write_sample(tmp_path)


def test_one_photo_has_the_faces_of_three_portraits(tmp_path: Path) -> None:
    together = sample.write_sample(tmp_path)[-1]
    image = decode(together.read_bytes(), channels=3, limits=Limits())
    assert (image.width, image.height) == (320 + 273 + 320, 320)
    faces = DetectorSpec("bundled").load().detect_batch([image.image])[0]
    assert {int((x + width / 2) // 305) for x, _, width, _ in faces.boxes.tolist()} == {0, 1, 2}


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--help"]])
def test_one_folder_is_wanted(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main(arguments) == 2
    assert capsys.readouterr().err == "pipeline: error: usage: python -m pipeline.sample DIR\n"


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert sample.main([str(tmp_path / "file")]) == 3
    assert capsys.readouterr().err.count("\n") == 1
