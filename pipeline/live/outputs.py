"""Where drawn frames go: a video, a folder of pictures, a window."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

import numpy as np

from pipeline.errors import StoppedError, UsageError
from transforms.formats.encode import MARK_WITHIN, as_jpeg, is_marked
from transforms.formats.publish import is_temporary, publish_bytes
from transforms.formats.row_table import SUFFIXES as TABLES
from transforms.formats.row_table import usual_suffix
from transforms.formats.video import CODECS, VideoError, VideoWriter, new_video

QUALITY = 92  # of JPEG: letters keep clean edges
PICTURE = re.compile(r"frame-\d{6,}\.jpg", re.ASCII)
FACES = "faces"  # the table's name in a folder of pictures, without its suffix


class Output(Protocol):
    """What takes drawn frames.

    Attributes:
        in_calling_thread: True if it must be called in the thread that made it; else in one thread at a time.
    """

    in_calling_thread: bool

    def write(self, picture: np.ndarray, number: int) -> None:
        """Takes a drawn frame, (h, w, 3) uint8 RGB, and its number in the source."""


class VideoFile:
    """A video that keeps time: a frame that was dropped shows the one before it."""

    in_calling_thread = False

    def __init__(self, path: str, rate: float) -> None:
        self._path, self._rate = path, rate
        self._open = ExitStack()
        self._writer: VideoWriter | None = None
        self._written = 0

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *fault: object) -> None:
        self._open.__exit__(*fault)  # type: ignore[arg-type]  # publishes the video, or removes it after a fault

    def write(self, picture: np.ndarray, number: int) -> None:
        """Appends a frame, as often as it takes to reach its number.

        Raises:
            UsageError: OpenCV has no encoder.
            StoppedError: the frame has another size than the first one.
        """
        try:
            if self._writer is None:
                self._writer = self._open.enter_context(new_video(self._path, picture.shape[:2], self._rate))
        except VideoError as error:
            raise UsageError(f"--output {self._path}: {error}") from error
        try:
            for _ in range(max(1, number + 1 - self._written)):
                self._writer.write(picture)
                self._written += 1
        except VideoError as error:
            raise StoppedError(f"--output {self._path}: {error}") from error


class PictureFolder:
    """A JPEG a frame, named by its number."""

    in_calling_thread = False

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def write(self, picture: np.ndarray, number: int) -> None:
        """Writes a picture."""
        publish_bytes(os.path.join(self._folder, f"frame-{number:06d}.jpg"), as_jpeg(picture, QUALITY))


@contextmanager
def _picture_folder(folder: str) -> Iterator[PictureFolder]:
    os.makedirs(folder, exist_ok=True)
    for name in _own_names(folder):
        os.unlink(os.path.join(folder, name))
    yield PictureFolder(folder)


def output_of(path: str, rate: float) -> AbstractContextManager[Output]:
    """Returns what writes to a path that `check_output` has accepted, to be entered."""
    return VideoFile(path, rate) if is_video(path) else _picture_folder(path)


def is_video(path: str) -> bool:
    """True if a path is that of a video, by its suffix; else it is that of a folder."""
    return os.path.splitext(path)[1].lower() in CODECS


def table_beside(path: str) -> str:
    """Returns where the table of faces goes unless the user says otherwise."""
    stem = f"{os.path.splitext(path)[0]}.{FACES}" if is_video(path) else os.path.join(path, FACES)
    return stem + usual_suffix()


def check_output(path: str, *, overwrite: bool) -> None:
    """Refuses a path that already holds something, before any work.

    Raises:
        UsageError: it has an unknown suffix, already exists, or the folder holds what this command did not write.
    """
    suffix = os.path.splitext(path)[1].lower()
    if is_video(path):
        check_file("--output", path, overwrite=overwrite)
    elif suffix and not os.path.isdir(path):
        raise UsageError(f"--output {path}: videos end in {', '.join(CODECS)}; a name without a suffix is a folder")
    elif _own_names(path) and not overwrite:
        raise UsageError(f"--output {path} already holds frames; give another folder, or --overwrite")


def check_file(flag: str, path: str, *, overwrite: bool) -> None:
    """Refuses a file that already exists, or whose folder does not.

    Raises:
        UsageError: says which.
    """
    if os.path.isdir(path):
        raise UsageError(f"{flag} {path} is a folder; give the name of a file")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{flag} {path} already exists; give another name, or --overwrite")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise UsageError(f"{flag} {path}: there is no folder {folder}; create it first")


def check_table(path: str, *, overwrite: bool, flag: str = "--faces") -> None:
    """Refuses a table that cannot be written.

    Raises:
        UsageError: it already exists, or is of another kind.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in TABLES:
        raise UsageError(f"{flag} {path}: tables end in {' or '.join(TABLES)}")
    if suffix == ".parquet" != usual_suffix():
        raise UsageError(f"{flag} {path}: Parquet needs pyarrow, which is not installed; use a name that ends in .csv")
    check_file(flag, path, overwrite=overwrite)


def _own_names(folder: str) -> list[str]:
    """Returns the names in a folder of frames, which are all ours.

    Raises:
        UsageError: it holds something else.
    """
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"--output {folder}: {error.strerror}; give a folder that can be read and written") from error
    tables = {FACES + suffix for suffix in TABLES}
    for name in names:
        if name not in tables and not is_temporary(name) and not _is_ours(os.path.join(folder, name)):
            raise UsageError(f"--output {folder} holds {name}, which live did not write; give an empty folder")
    return names


def _is_ours(path: str) -> bool:
    if not PICTURE.fullmatch(os.path.basename(path)) or not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return is_marked(file.read(MARK_WITHIN))
