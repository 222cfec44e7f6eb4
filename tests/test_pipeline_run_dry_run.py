"""--dry-run: what would be read and done, and that nothing is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from blocks import job, raw
from pictures import gradient, jpeg, png, write_folder, write_tar

from pipeline.errors import UsageError
from pipeline.run import dry_run
from pipeline.run.output_folder import OutputFolder
from pipeline.settings.load import load_settings
from transforms.block import with_features
from transforms.crop_faces import detect_rows, with_rows
from transforms.extract_features import contents_to_keep
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.job import Job


class FakeDevice:
    """Four numbers a face; counts the crops of each call."""

    width = 4

    def __init__(self) -> None:
        self.calls: list[int] = []

    def features(self, crops: np.ndarray) -> np.ndarray:
        self.calls.append(len(crops))
        return np.zeros((len(crops), self.width), np.float16)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    fake = FakeDevice()
    monkeypatch.setattr(dry_run, "get_device", lambda _: fake)
    return fake


def images(count: int) -> dict[str, bytes]:
    return {f"{number:03d}.png": png(gradient(16, 16 + number)) for number in range(count)}


def fill_cache(chosen: Job, contents: list[bytes], features: np.ndarray | None) -> None:
    block, detector = raw(contents), chosen.detecting.detector.load()
    detected = with_rows(block, [detect_rows(block, range(len(contents)), chosen.detecting, detector)])
    kept = contents_to_keep(with_features(detected, features))
    assert kept is not None
    FeatureCache.create(chosen.cache.root, chosen.cache.key_json).add(kept)


def shown(
    tmp_path: Path, capsys: Any, *patterns: Path, settings: tuple[str, ...] = (), chosen: Job | None = None
) -> str:
    output = OutputFolder(str(tmp_path / "out"))
    given = load_settings((), ("read.block_images=4", *settings))
    chosen = chosen or job(tmp_path / "elsewhere")
    assert dry_run.show([str(pattern) for pattern in patterns], output, given, chosen) == 0
    return str(capsys.readouterr().out)


def test_what_would_be_read(tmp_path: Path, capsys: Any, device: FakeDevice) -> None:
    write_folder(tmp_path / "in", {**images(3), "notes.txt": b"words"})
    write_tar(tmp_path / "in" / "a.tar", images(10))
    lines = shown(tmp_path, capsys, tmp_path / "in").splitlines()
    assert re.fullmatch(r"would read 13 images \(0\.\d MB\) in \d blocks of shards: 1 loose, 1 tar", lines[0])
    assert lines[1] == "would skip 1 files that are not images: notes.txt"
    assert "0% are already in the cache" in lines[2]
    assert "1.0 faces per image, about " in lines[3]
    assert lines[-1].startswith(f"output: {tmp_path}/out; ")
    assert lines[-1].endswith("nothing was written")


def test_nothing_is_written(tmp_path: Path, capsys: Any, device: FakeDevice) -> None:
    write_folder(tmp_path / "in", images(3))
    chosen = job(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    shown(tmp_path, capsys, tmp_path / "in", chosen=chosen)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_that_cannot_be_made_is_refused_all_the_same(tmp_path: Path, capsys: Any, device: FakeDevice) -> None:
    with pytest.raises(UsageError, match="nothing is there"):
        shown(tmp_path, capsys, tmp_path / "nowhere")


def test_a_few_blocks_are_sampled_and_a_few_images_of_each(tmp_path: Path, capsys: Any, device: FakeDevice) -> None:
    write_tar(tmp_path / "a.tar", {f"{number:03d}.png": png(gradient(16, 16 + number)) for number in range(200)})
    text = shown(
        tmp_path, capsys, tmp_path / "a.tar", settings=("read.block_images=30",), chosen=job(tmp_path, block_images=30)
    )
    assert "would read 200 images" in text
    # of 7 blocks the first, the last and two between: 30, 30, 30 and 20 images, of which 24, 24, 24 and 20 are computed
    assert "estimate from 110 sampled images" in text
    assert "estimate from 92 computed images" in text
    assert sum(device.calls) == 92
    assert max(device.calls) <= 8


def test_what_the_cache_knows_is_not_computed(tmp_path: Path, capsys: Any, device: FakeDevice) -> None:
    write_tar(tmp_path / "a.tar", images(4))
    chosen = job(tmp_path)
    fill_cache(chosen, list(images(3).values()), np.zeros((3, 4), np.float16))
    text = shown(tmp_path, capsys, tmp_path / "a.tar", chosen=chosen)
    assert "75% are already in the cache" in text
    assert "estimate from 1 computed images" in text
    assert device.calls == [1]


def test_a_cache_that_is_whole_needs_no_device(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "get_device", lambda _: pytest.fail("nothing to compute"))
    write_folder(tmp_path / "in", {"a.png": b"no image"})
    chosen = job(tmp_path)
    fill_cache(chosen, [b"no image"], None)
    text = shown(tmp_path, capsys, tmp_path / "in", chosen=chosen)
    assert "100% are already in the cache" in text
    assert "computed images" not in text


def test_the_number_of_images_in_a_stream_is_a_least(tmp_path: Path, capsys: Any, device: FakeDevice) -> None:
    write_tar(tmp_path / "a.tar.gz", images(10))
    text = shown(tmp_path, capsys, tmp_path / "a.tar.gz")
    assert "would read at least 0 images" in text
    assert "1 archives can only be streamed; their images are counted when they are read" in text
    assert "faces per image, at least about" in text


def test_bad_images_cost_the_estimate_nothing(tmp_path: Path, capsys: Any, device: FakeDevice) -> None:
    cut = jpeg(gradient(20, 20))[:-9]
    write_folder(tmp_path / "in", {"a.png": b"words", "b.jpg": cut, "c.png": b"", **images(1)})
    text = shown(tmp_path, capsys, tmp_path / "in", settings=("read.block_images=256",))
    assert "0.2 faces per image" in text  # one of four, rounded


class Usage(NamedTuple):
    free: int


@pytest.mark.parametrize("free, warned", [(10**12, False), (100, True)])
def test_too_little_space_is_told(
    tmp_path: Path, capsys: Any, device: FakeDevice, monkeypatch: pytest.MonkeyPatch, free: int, warned: bool
) -> None:
    asked: list[str] = []

    def usage(place: str) -> Usage:
        asked.append(place)
        return Usage(free)

    monkeypatch.setattr("shutil.disk_usage", usage)
    write_folder(tmp_path / "in", images(3))
    assert ("NOT ENOUGH" in shown(tmp_path, capsys, tmp_path / "in")) == warned
    assert asked == [str(tmp_path)]  # where the output will be, though it is not there yet


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0.1, "about 1 s"),
        (59, "about 59 s"),
        (61, "about 1 min 1 s"),
        (3600, "about 1 h 0 min"),
        (9000, "about 2 h 30 min"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert dry_run._duration(seconds) == words
