"""Where frames come from: every frame of a file, the due ones in real time, the newest of a camera; times of stages."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pictures
import pytest

from pipeline.errors import StoppedError, UsageError
from pipeline.live import sources
from pipeline.live.sources import Camera, Pictures, Reader, Video
from pipeline.live.stages import INTERVAL, LATENCY, Stages
from transforms.formats.records import Limits


class Made(Reader):
    """A reader of `count` frames of 2 x 2 pixels; each shows its number."""

    rate = 10.0

    def __init__(self, count: int) -> None:
        self.count, self.at, self.closed = count, 0, False

    def read(self) -> np.ndarray | None:
        if self.at == self.count:
            return None
        self.at += 1
        return np.full((2, 2, 3), self.at - 1, np.uint8)

    def skip(self) -> bool:
        return self.read() is not None

    def time_s(self, number: int) -> float:
        return number / self.rate

    def close(self) -> None:
        self.closed = True


class Clock:
    """A clock that moves when somebody sleeps or works."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_file_gives_every_frame_with_its_time() -> None:
    video = Video(Made(4), "clip.avi")
    assert [(frame.number, frame.time_s, frame.image_id) for frame in video.frames()] == [
        (0, 0.0, "clip.avi/000000"), (1, 0.1, "clip.avi/000001"),
        (2, 0.2, "clip.avi/000002"), (3, 0.3, "clip.avi/000003"),
    ]  # fmt: skip
    assert video.dropped == 0


@pytest.mark.parametrize(
    ("work_s", "numbers"), [(0.01, [0, 1, 2, 3, 4, 5, 6]), (0.1, [0, 1, 2, 3, 4, 5, 6]), (0.25, [0, 2, 5])]
)
def test_in_real_time_overdue_frames_are_dropped_and_counted(work_s: float, numbers: list[int]) -> None:
    clock = Clock()
    video = Video(Made(7), "clip.avi", realtime=True, clock=clock, sleep=clock.sleep)
    seen = []
    for frame in video.frames():
        assert frame.pixels[0, 0, 0] == frame.number
        assert clock.now >= frame.number / 10 - 1e-9  # never early
        seen.append(frame.number)
        clock.now += work_s
    assert seen == numbers
    assert video.dropped == 7 - len(numbers)


class Paced(Made):
    """A camera that sends as many frames as it is allowed to."""

    def __init__(self) -> None:
        super().__init__(1_000)
        self.due = threading.Semaphore(0)

    def read(self) -> np.ndarray | None:
        self.due.acquire()
        return super().read()

    def close(self) -> None:
        self.closed = True


def test_a_camera_gives_the_newest_frame_and_counts_what_it_dropped() -> None:
    reader = Paced()
    camera = Camera(reader, "camera 0")
    frames = camera.frames()
    reader.due.release(1)
    assert next(frames).number == 0
    reader.due.release(5)
    while camera._newest[0] < 5:  # until the thread has taken them all
        time.sleep(0.001)
    frame = next(frames)
    assert (frame.number, int(frame.pixels[0, 0, 0])) == (5, 5)
    assert camera.dropped == 4
    assert frame.time_s > 0
    reader.due.release(1)
    assert next(frames).number == 6
    assert camera.dropped == 4
    threading.Timer(0.05, reader.due.release).start()
    camera.close()
    assert reader.closed


def test_a_camera_that_ends_ends_the_frames() -> None:
    assert [frame.number for frame in Camera(Made(1), "camera 0").frames()] == [0]


def test_a_camera_that_falls_silent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SILENT_S", 0.05)
    reader = Paced()
    with pytest.raises(StoppedError, match="camera 3 has sent no frame"):
        next(Camera(reader, "camera 3").frames())
    reader.count = 0
    reader.due.release()


def test_pictures_come_in_the_order_of_their_names_and_bad_ones_are_named(tmp_path: Path) -> None:
    pictures.write_folder(
        tmp_path,
        {
            "b.png": pictures.png(pictures.plain(20, 30)),
            "a.png": pictures.png(pictures.plain(20, 30, (9, 8, 7))),
            "c.png": b"words",
            "notes.txt": b"no picture",
        },
    )
    folder = Pictures(str(tmp_path), 5.0, Limits())
    found = list(folder.frames())
    assert [(frame.number, frame.time_s, frame.image_id) for frame in found] == [(0, 0.0, "a.png"), (1, 0.2, "b.png")]
    assert tuple(found[0].pixels[0, 0]) == (9, 8, 7)
    assert found[0].data == (tmp_path / "a.png").read_bytes()
    assert folder.rejected == ["c.png (not_an_image)"]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no picture"):
        Pictures(str(tmp_path), 5.0, Limits())


def test_percentiles_are_those_of_the_times() -> None:
    clock = Clock()
    stages = Stages(clock)
    for spent in range(1, 101):
        came = clock.now
        clock.now += (spent - 0.05) / 1000
        stages.end_frame(came)
    assert stages.frames == 100
    assert stages.percentile_ms(LATENCY, 0.5) == pytest.approx(50)
    assert stages.percentile_ms(LATENCY, 0.95) == pytest.approx(95)
    assert stages.within(LATENCY, 33) == 33
    assert stages.within(LATENCY, 1e6) == 100


def test_latency_has_the_waits_and_an_interval_is_from_end_to_end() -> None:
    clock = Clock()
    stages = Stages(clock)
    with stages.timed("detect"):
        clock.now += 0.004
    clock.now += 0.010  # waits
    stages.since(clock.now - 0.002, "label")
    stages.end_frame(0.0)
    clock.now += 0.006  # the second frame came with the first
    stages.end_frame(0.0)
    assert stages.names() == ["detect", "label", LATENCY, INTERVAL]
    assert stages.counted(LATENCY) == 2 and stages.counted(INTERVAL) == 1
    found = [stages.percentile_ms(name, 1.0) for name in stages.names()]
    assert found == pytest.approx([4.0, 2.0, 20.0, 6.0], abs=0.11)


def test_a_frame_came_when_it_was_due_and_not_when_it_was_asked_for() -> None:
    clock = Clock()
    video = Video(Made(3), "clip.avi", realtime=True, clock=clock, sleep=clock.sleep)
    assert [frame.came for frame in video.frames()] == pytest.approx([0.0, 0.1, 0.2])
    camera = Camera(Made(1), "camera 0")
    before = time.monotonic()
    assert before <= next(camera.frames()).came <= time.monotonic()
