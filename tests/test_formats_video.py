"""Videos: what is written is read again, whole or not at all; rows of tables come back as they were."""

from __future__ import annotations

import csv
from pathlib import Path

import moving_faces
import numpy as np
import pyarrow.parquet as pq
import pytest
from pictures import plain

from transforms.formats.publish import StorageError, is_temporary
from transforms.formats.row_table import ROWS_IN_MEMORY, Column, new_table
from transforms.formats.video import CODECS, VideoError, new_video, open_video

COLOURS = ((200, 30, 40), (20, 180, 60), (40, 50, 210))


@pytest.mark.parametrize("suffix", CODECS)
def test_frames_come_back_in_order_with_their_times_and_colours(tmp_path: Path, suffix: str) -> None:
    path = str(tmp_path / f"clip{suffix}")
    with new_video(path, (64, 96), 20.0) as video:
        for colour in COLOURS:
            video.write(plain(64, 96, colour))
    reader = open_video(path)
    assert reader.rate == pytest.approx(20, abs=0.01)
    for number, colour in enumerate(COLOURS):
        frame = reader.read()
        assert frame.shape == (64, 96, 3)
        assert np.abs(frame.reshape(-1, 3).mean(0) - colour).max() < 6  # what lossy codecs change
        assert reader.time_s(number) == pytest.approx(number / 20, abs=0.002)
    assert reader.read() is None
    reader.close()


def test_frames_can_be_passed_over(tmp_path: Path) -> None:
    path = moving_faces.write(tmp_path / "clip.avi", 3, size=(64, 96), side=32)
    whole, some = open_video(str(path)), open_video(str(path))
    frames = [whole.read() for _ in range(3)]
    assert some.skip() and np.array_equal(some.read(), frames[1])
    assert some.skip() and not some.skip()


def test_a_video_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    path.write_bytes(b"before")
    seen = []

    def write() -> None:
        with new_video(str(path), (64, 96), 20.0) as video:
            video.write(plain(64, 96))
            seen.extend(one.name for one in tmp_path.iterdir() if one != path)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert [is_temporary(name) for name in seen] == [True]
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(VideoError, match="30×20 and the video 96×64"),
        new_video(str(tmp_path / "clip.avi"), (64, 96), 20.0) as video,
    ):
        video.write(plain(20, 30))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"), new_video(str(tmp_path / "nowhere" / "a.avi"), (8, 8), 5.0):
        pass


@pytest.mark.parametrize("content", [None, b"", b"no video at all" * 100])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.avi"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError):
        open_video(str(path))
    assert capfd.readouterr().err == ""


COLUMNS = [
    Column("name", "string", nullable=False),
    Column("frame", "int64", nullable=False),
    Column("score", "float32"),
    Column("p", "float64"),
]
ROWS = [
    {"name": "=1+1.jpg", "frame": 0, "score": float(np.float32(0.1)), "p": 0.1 + 0.2},
    {"name": 'a "b", c', "frame": 2**40, "score": None},
]


def test_rows_of_parquet_come_back(tmp_path: Path) -> None:
    path = str(tmp_path / "rows.parquet")
    with new_table(path, COLUMNS) as table:
        for _ in range(ROWS_IN_MEMORY // 2 + 1):
            table.add(ROWS)
    found = pq.read_table(path)
    assert str(found.schema.field("score").type) == "float" and not found.schema.field("frame").nullable
    assert found.to_pylist() == [{"p": None, **row} for row in ROWS] * (ROWS_IN_MEMORY // 2 + 1)


def test_rows_of_csv_come_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with new_table(str(path), COLUMNS) as table:
        table.add(ROWS)
    head, *rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert head == [column.name for column in COLUMNS]
    assert rows[0][0] == "'=1+1.jpg"  # no spreadsheet runs it
    assert (float(rows[0][2]), float(rows[0][3])) == (ROWS[0]["score"], ROWS[0]["p"])
    assert rows[1] == ['a "b", c', str(2**40), "", ""]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_is_whole_or_not_there(tmp_path: Path, suffix: str) -> None:
    def write() -> None:
        with new_table(str(tmp_path / f"rows{suffix}"), COLUMNS) as table:
            table.add(ROWS)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert list(tmp_path.iterdir()) == []
