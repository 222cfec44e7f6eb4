"""`cache info|verify|prune` in words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.actions.cache import size_in_words
from pipeline.cli import main
from transforms.formats.cache.contents import Contents
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.cache.folders import fingerprint_folders
from transforms.formats.records import Status

HAAR, YUNET = {"faces": {"detector": "haar"}}, {"faces": {"detector": "yunet"}}


def contents(first: int) -> Contents:
    """Two images of one and no face."""
    return Contents(
        digest=np.array([[first] * 32, [first + 1] * 32], np.uint8),
        width=np.array([4, 4], np.int32),
        height=np.array([3, 3], np.int32),
        status=np.array([Status.LABELLED, Status.NO_FACE], object),
        reason=np.array(["", ""], object),
        face_image=np.array([0], np.int32),
        box=np.array([[0, 0, 2, 2]], np.int32),
        score=np.array([1], np.float32),
        features=np.array([[1, 2, 3]], np.float16),
        names=("a.png", "b.png"),
        labels=(None, None),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    FeatureCache.create(tmp_path, HAAR).add(contents(1))
    FeatureCache.create(tmp_path, YUNET).add(contents(3))
    return tmp_path


def folders(root: Path) -> list[str]:
    return [str(root / name) for name in fingerprint_folders(root)]


def test_info_tells_every_fingerprint(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "info", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("/")] == folders(root)
    assert lines.count("  images      2") == 2
    assert lines.count("  faces       1") == 2
    assert sorted(line for line in lines if "detector" in line) == [
        "    faces.detector: haar",
        "    faces.detector: yunet",
    ]


def test_info_of_one_fingerprint(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "info", "--cache", folders(root)[0]]) == 0
    assert capsys.readouterr().out.count("images") == 1


def test_verify_of_a_whole_cache(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "verify", str(root)]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith("1 segments are intact, 2 rows (1 with faces, 1 without, 0 rejected), 1 faces")


def test_verify_finds_damage_and_prune_removes_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [segment] = list(Path(folders(root)[0]).glob("*.h5"))
    segment.write_bytes(segment.read_bytes()[:-20])
    assert main(["cache", "verify", str(root)]) == 3
    shown = capsys.readouterr()
    assert f"damaged: {segment.name}" in shown.out
    assert shown.err == (
        "pipeline: error: 1 damaged segments were moved aside; the next run computes their images again\n"
    )
    assert main(["cache", "prune", str(root)]) == 0
    assert f"removed {segment}.damaged" in capsys.readouterr().out
    assert len(folders(root)) == 2
    assert main(["cache", "verify", str(root)]) == 0


def test_verify_does_not_say_moved_of_what_stays(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    for folder in folders(root):
        [segment] = list(Path(folder).glob("*.h5"))
        FeatureCache.open(folder)  # its index knows the segment
        segment.write_bytes(segment.read_bytes()[:-20])
    monkeypatch.setattr(os, "replace", forbidden)
    assert main(["cache", "verify", str(root)]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == (
        "pipeline: error: 2 damaged segments, of which 2 could not be moved aside; "
        "the next run computes their images again"
    )


@pytest.mark.parametrize("damage", ["stale", "broken"])
def test_info_changes_nothing(root: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    segments = [path for folder in folders(root) for path in Path(folder).glob("*.h5")]
    if damage == "broken":
        segments[0].write_bytes(b"x")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert main(["cache", "info", str(root)]) == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("fault", ["damaged", "lost"])
@pytest.mark.parametrize("action", ["info", "verify", "prune"])
def test_a_folder_that_does_not_say_what_it_is_does_not_hide_the_others(
    root: Path, action: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, other = (Path(folder) for folder in folders(root))
    description = broken / "fingerprint.json"
    description.unlink() if fault == "lost" else description.write_bytes(b"")
    unwanted = other / ("0" * 32 + ".h5.damaged")
    if action == "prune":
        unwanted.write_bytes(b"x")
    assert main(["cache", action, str(root)]) == 3
    shown = capsys.readouterr()
    [line] = [line for line in shown.out.splitlines() if str(broken) in line]
    assert (
        line
        == {
            "damaged": f"{description} is damaged; a run with this cache rewrites it",
            "lost": f"{broken} has lost its fingerprint.json; a run with its settings rewrites it",
        }[fault]
    )
    assert str(other) in shown.out
    assert shown.err == "pipeline: error: 1 of 2 folders could not be opened\n"
    assert not unwanted.exists()
    assert len(list(broken.glob("*.h5"))) == 1
    assert main(["cache", "info", str(broken)]) == 3  # by its own name too
    assert main(["cache", "prune", str(root), "--keep", other.name]) == 0
    assert not broken.exists()
    assert other.exists()


def test_a_folder_that_does_not_say_what_it_is_is_kept_by_its_name(root: Path) -> None:
    before = folders(root)
    (Path(before[0]) / "fingerprint.json").unlink()
    assert main(["cache", "prune", str(root), "--keep", *map(os.path.basename, before)]) == 3
    assert all(len(list(Path(folder).glob("*.h5"))) == 1 for folder in before)


def test_prune_leaves_other_fingerprints_alone_unless_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = folders(root)
    assert main(["cache", "prune", str(root)]) == 0
    assert capsys.readouterr().out == "removed 0 files, 0 bytes\n"
    assert folders(root) == before
    assert main(["cache", "prune", str(root), "--keep", os.path.basename(before[0])[:12]]) == 0
    assert folders(root) == before[:1]
    assert not Path(before[1]).exists()


def test_prune_keeps_several(root: Path) -> None:
    before = folders(root)
    assert main(["cache", "prune", str(root), "--keep", *map(os.path.basename, before)]) == 0
    assert folders(root) == before


@pytest.mark.parametrize("keep", [["0000000000000000"], ["zz"]])
def test_a_slip_in_keep_removes_nothing(root: Path, keep: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = folders(root)
    assert main(["cache", "prune", str(root), "--keep", *keep]) == 2
    assert "matches 0 of the fingerprints there" in capsys.readouterr().err
    assert folders(root) == before


def test_keep_wants_the_whole_cache(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = folders(root)[0]
    assert main(["cache", "prune", one, "--keep", os.path.basename(one)]) == 2
    assert "the folder that contains them all" in capsys.readouterr().err
    assert len(folders(root)) == 2


def test_a_folder_without_a_cache_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "info", str(tmp_path)]) == 2
    assert "has no feature cache" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (12_345_678, "12.3 MB"), (10**19, "10000.0 PB")],
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert size_in_words(size) == words
