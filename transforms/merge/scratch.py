"""Scratch files of a merge, on the output's disk, under names that another attempt at the same merge cannot have."""

from __future__ import annotations

import contextlib
import os
import re
from types import TracebackType

from transforms.formats.publish import remove_leftovers, working_file

FOLDER = ".merging"
_OLD_NAME = re.compile(r"[0-9]{6}\.parquet", re.ASCII)  # left by earlier versions


class Scratch:
    """Gives names for scratch files below an output folder; leaving removes them, and the folder if it is empty."""

    def __init__(self, output: str) -> None:
        self._folder = os.path.join(output, FOLDER)
        self._files: dict[str, contextlib.ExitStack] = {}

    def __enter__(self) -> Scratch:
        os.makedirs(self._folder, exist_ok=True)
        remove_leftovers(self._folder)
        for name in os.listdir(self._folder):
            if _OLD_NAME.fullmatch(name):
                _unlink(os.path.join(self._folder, name))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in list(self._files):
            self.remove(path)
        with contextlib.suppress(OSError):  # another attempt works there, or has removed it
            os.rmdir(self._folder)

    def new(self) -> str:
        """Returns the path of a new, empty file."""
        held = contextlib.ExitStack()
        path = held.enter_context(working_file(os.path.join(self._folder, f"{len(self._files):06d}")))
        self._files[path] = held
        for _ in range(3):  # another attempt that ends may remove the folder just before the file is there
            os.makedirs(self._folder, exist_ok=True)
            with contextlib.suppress(FileNotFoundError), open(path, "xb"):
                break
        return path

    def remove(self, path: str) -> None:
        """Removes one of its files; does nothing for any other path."""
        held = self._files.pop(path, None)
        if held is not None:
            held.close()


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # another attempt was quicker
        os.unlink(path)
