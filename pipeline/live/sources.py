"""Where frames come from: a video file, a camera, a folder of pictures. All of them count what they drop."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pipeline.errors import StoppedError, UsageError
from transforms.formats.decode import decode
from transforms.formats.records import Limits, RejectedContent
from transforms.formats.shards.loose_files import is_image_name
from transforms.formats.video import USUAL_RATE, VideoError, open_camera, open_video

SILENT_S = 5.0  # a camera that sends nothing for so long is gone


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        number: from 0; frames that were dropped count too.
        time_s: seconds since the first frame.
        image_id: name of the source, `/`, and the number; of a picture its name.
        pixels: (h, w, 3) uint8 RGB, upright.
        data: the file of a picture, so that it is read as `label` reads it; None of a frame of a video.
        came: when it was there to be read, on the source's clock, `time.monotonic`: what follows is its latency.
    """

    number: int
    time_s: float
    image_id: str
    pixels: np.ndarray
    data: bytes | None = None
    came: float = field(default_factory=time.monotonic)


class Source(Protocol):
    """What gives frames.

    Attributes:
        name: for messages.
        rate: frames a second.
        dropped: frames that were left out, so far.
        endless: True if it ends only when the user says so.
        paced: True if frames come at a rate of their own, so that late ones are dropped.
    """

    name: str
    rate: float
    dropped: int
    endless: bool
    paced: bool

    def frames(self) -> Iterator[Frame]:
        """Yields the frames, in order."""
        ...

    def close(self) -> None:
        """Gives the file or the camera back."""


class Reader(Protocol):
    """What `transforms.formats.video.VideoReader` offers."""

    rate: float

    def read(self) -> np.ndarray | None:
        """Returns the next frame, None after the last."""

    def skip(self) -> bool:
        """Passes over a frame; False after the last."""

    def time_s(self, number: int) -> float:
        """Returns when the frame just read is shown."""

    def close(self) -> None:
        """Closes it."""


class Video:
    """Every frame of a video; with `realtime` those alone that are due, as a camera would give them."""

    endless = False

    def __init__(
        self,
        reader: Reader,
        name: str,
        *,
        realtime: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.name, self.rate, self.dropped = name, reader.rate, 0
        self.paced = realtime
        self._reader, self._clock, self._sleep = reader, clock, sleep

    def frames(self) -> Iterator[Frame]:
        """Yields the frames."""
        began, number = self._clock(), 0
        while True:
            if self.paced and not self._wait(began, number):
                return
            number += self._skipped
            came = self._clock()
            pixels = self._reader.read()
            if pixels is None:
                return
            yield Frame(number, self._reader.time_s(number), f"{self.name}/{number:06d}", pixels, came=came)
            number += 1

    _skipped = 0

    def _wait(self, began: float, number: int) -> bool:
        """Waits until a frame is due, and passes over those that are overdue; False if the video ended meanwhile."""
        late = (self._clock() - began) * self.rate - number
        if late < 0:
            self._sleep(-late / self.rate)
        self._skipped = max(0, int(late))
        for _ in range(self._skipped):
            if not self._reader.skip():
                return False
            self.dropped += 1
        return True

    def close(self) -> None:
        """Closes the file."""
        self._reader.close()


class Camera:
    """The newest frame of a camera each time; frames that came meanwhile are dropped."""

    endless = True
    paced = True

    def __init__(self, reader: Reader, name: str) -> None:
        self.name, self.rate, self.dropped = name, reader.rate, 0
        self._reader = reader
        self._news = threading.Condition()
        self._newest: tuple[int, float, np.ndarray] | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._watch, name="camera", daemon=True)

    def frames(self) -> Iterator[Frame]:
        """Yields the newest frame, as often as it is asked.

        Raises:
            StoppedError: the camera sends nothing any more.
        """
        self._thread.start()
        began, before = 0.0, -1
        while (newest := self._after(before)) is not None:
            number, seen, pixels = newest
            began = began or seen
            self.dropped += number - before - 1
            before = number
            yield Frame(number, seen - began, f"{self.name}/{number:06d}", pixels, came=seen)

    def _after(self, number: int) -> tuple[int, float, np.ndarray] | None:
        with self._news:
            came = self._news.wait_for(lambda: self._ended or (self._newest or (-1,))[0] > number, SILENT_S)
            if not came:
                raise StoppedError(f"{self.name} has sent no frame for {SILENT_S:.0f} s; is it still plugged in?")
            return None if self._newest is None or self._newest[0] <= number else self._newest

    def _watch(self) -> None:
        number = 0
        while not self._ended and (pixels := self._reader.read()) is not None:
            with self._news:
                self._newest = (number, time.monotonic(), pixels)
                self._news.notify()
            number += 1
        with self._news:
            self._ended = True
            self._news.notify()

    def close(self) -> None:
        """Gives the camera back."""
        with self._news:
            self._ended = True
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join(SILENT_S)
        self._reader.close()


class Pictures:
    """The pictures of a folder in the order of their names, which are compared by their UTF-8 bytes."""

    endless = False
    paced = False

    def __init__(self, folder: str, rate: float, limits: Limits) -> None:
        try:
            names = [entry.name for entry in os.scandir(folder) if entry.is_file() and is_image_name(entry.name)]
        except OSError as error:
            raise UsageError(f"--frames {folder}: {error.strerror}; give a folder of pictures") from error
        if not names:
            raise UsageError(f"--frames {folder} holds no picture; give a folder of pictures")
        self.name, self.rate, self.dropped = folder, rate, 0
        self.rejected: list[str] = []
        self._paths = [os.path.join(folder, name) for name in sorted(names, key=os.fsencode)]
        self._limits = limits

    def frames(self) -> Iterator[Frame]:
        """Yields the pictures that can be used; the names of the others are in `rejected`."""
        for number, path in enumerate(self._paths):
            came = time.monotonic()
            try:
                with open(path, "rb") as file:
                    data = file.read()
                pixels = decode(data, channels=3, limits=self._limits).image
            except RejectedContent as fault:
                self.rejected.append(f"{os.path.basename(path)} ({fault.reason})")
                continue
            yield Frame(number, number / self.rate, os.path.basename(path), pixels, data, came)

    def close(self) -> None:
        """Has nothing to give back."""


def source_of(
    *, video: str | None, camera: int | None, frames: str | None, realtime: bool, rate: float | None, limits: Limits
) -> Source:
    """Returns what gives frames; exactly one of the first three is given.

    Raises:
        UsageError: it is missing, or cannot be read.
    """
    if frames is not None:
        return Pictures(frames, rate or USUAL_RATE, limits)
    try:
        if video is not None:
            return Video(open_video(video), os.path.basename(video), realtime=realtime)
        return Camera(open_camera(camera or 0), f"camera {camera}")
    except VideoError as error:
        given = f"--video {video}" if video is not None else f"--camera {camera}"
        raise UsageError(f"{given}: {error}") from error
