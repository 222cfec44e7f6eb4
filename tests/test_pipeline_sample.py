"""The sample: photos out of the scikit-image wheel, the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import sample
from pipeline.errors import StoppedError

pytest.importorskip("skimage", reason="the extra 'sample' is not installed")


def test_photos_are_copied_once(tmp_path: Path) -> None:
    written = sample.write_sample(tmp_path / "deep" / "sample")
    assert [path.name for path in written] == list(sample.PHOTOS)
    assert sorted(path.name for path in written[0].parent.iterdir()) == sorted(sample.PHOTOS)
    assert all(path.read_bytes()[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1") for path in written)
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
    monkeypatch.setattr(sample, "PHOTOS", ("gone.png",))
    with pytest.raises(StoppedError, match=r"lacks gone\.png"):
        sample.write_sample(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--help"]])
def test_one_folder_is_wanted(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main(arguments) == 2
    assert capsys.readouterr().err == "pipeline: error: usage: python -m pipeline.sample DIR\n"


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert sample.main([str(tmp_path / "file")]) == 3
    assert capsys.readouterr().err.count("\n") == 1
