"""Frames out of videos and cameras, and videos out of frames, by OpenCV.

Not here: single pictures (`decode/`, `encode.py`), and which frames are wanted (`pipeline/live/sources.py`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from transforms.formats.publish import put_in_place, storage_error, working_file

if TYPE_CHECKING:
    import cv2

CODECS = {".avi": "MJPG", ".mkv": "MJPG", ".mov": "mp4v", ".mp4": "mp4v"}  # OpenCV brings encoders of both
USUAL_RATE = 25.0  # frames a second, of a source that states none


class VideoError(ValueError):
    """A video or a camera cannot be read or written; the message is one clause."""


class VideoReader:
    """A video file or a camera that is open.

    Attributes:
        rate: frames a second, as the source states it.
    """

    def __init__(self, capture: cv2.VideoCapture) -> None:
        import cv2

        self._capture = capture
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if math.isfinite(rate) and 0 < rate <= 1000 else USUAL_RATE

    def read(self) -> np.ndarray | None:
        """Returns the next frame as (h, w, 3) uint8 RGB, upright; None after the last one."""
        import cv2

        there, frame = self._capture.read()
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)) if there else None

    def skip(self) -> bool:
        """Passes over a frame without decoding it; False after the last one."""
        return bool(self._capture.grab())

    def time_s(self, number: int) -> float:
        """Returns when the frame just read is shown: as the file states it, else by the rate.

        Args:
            number: of that frame, from 0.
        """
        import cv2

        stated = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        return stated if number and math.isfinite(stated) and stated > 0 else number / self.rate

    def close(self) -> None:
        """Closes the file or the camera."""
        self._capture.release()


def open_video(path: str) -> VideoReader:
    """Returns a video file, open.

    Raises:
        VideoError: it is missing, or no video that OpenCV reads.
    """
    import cv2

    if not os.path.exists(path):
        raise VideoError("there is no such file")
    if not os.path.isfile(path):
        raise VideoError("is not a file")
    _quieten()
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)  # others would take frame1.png for a series of pictures
    if not capture.isOpened():
        raise VideoError("is not a video that OpenCV can read")
    return VideoReader(capture)


def open_camera(number: int) -> VideoReader:
    """Returns a camera, open.

    Raises:
        VideoError: no camera has this number, or another program is using it.
    """
    import cv2

    _quieten()
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise VideoError("no such camera, or another program is using it")
    return VideoReader(capture)


class VideoWriter:
    """A video under construction; every frame is shown as long as every other."""

    def __init__(self, writer: cv2.VideoWriter, size: tuple[int, int]) -> None:
        self._writer, self._size = writer, size

    def write(self, frame: np.ndarray) -> None:
        """Appends a (h, w, 3) uint8 RGB frame.

        Raises:
            VideoError: it has another size than the first one.
        """
        import cv2

        if frame.shape[:2] != self._size:
            (height, width), (tall, wide) = self._size, frame.shape[:2]
            raise VideoError(f"a frame is {wide}×{tall} and the video {width}×{height}; write pictures into a folder")
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))


@contextmanager
def new_video(path: str, size: tuple[int, int], rate: float) -> Iterator[VideoWriter]:
    """Yields a writer; if the block succeeds, its video appears as `path`, whole. If it raises, `path` stays as it was.

    Args:
        path: its suffix, one of `CODECS`, decides container and codec.
        size: (height, width) of all frames.
        rate: frames a second.

    Raises:
        VideoError: OpenCV has no encoder for it here.
        StorageError: it cannot be written there.
    """
    import cv2

    suffix = os.path.splitext(path)[1].lower()
    _quieten()
    with working_file(path, suffix) as temporary:
        try:
            with open(temporary, "wb"):  # OpenCV does not say why it cannot write
                pass
        except OSError as error:
            raise storage_error("write", path, error) from error
        codec = cv2.VideoWriter.fourcc(*CODECS[suffix])
        made_by = cv2.CAP_OPENCV_MJPEG if suffix == ".avi" else cv2.CAP_FFMPEG  # the first needs no codec of others
        writer = cv2.VideoWriter(temporary, made_by, codec, rate, (size[1], size[0]))
        try:
            if not writer.isOpened():
                raise VideoError(f"this OpenCV has no encoder {CODECS[suffix]} for {suffix}; try .avi")
            yield VideoWriter(writer, size)
        finally:
            writer.release()
        try:
            put_in_place(temporary, path)
        except OSError as error:
            raise storage_error("write", path, error) from error


def _quieten() -> None:
    """Keeps OpenCV's and FFmpeg's own lines off standard error: what is wrong is said in one line of ours."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's word for nothing
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
