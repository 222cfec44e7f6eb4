"""A window that shows frames; q, Escape or its close button end it."""

from __future__ import annotations

import os
import socket
import sys

import numpy as np

from pipeline.errors import UsageError
from transforms.storage import stopping

TITLE = "facelabel live"
_END = (27, ord("q"))  # keys


class Window:
    """An output of the loop."""

    in_calling_thread = True  # as windows want it

    def write(self, picture: np.ndarray, number: int) -> None:
        """Shows a frame, and asks the loop to stop if the user wants it."""
        import cv2

        cv2.imshow(TITLE, picture[..., ::-1])
        if cv2.waitKey(1) & 0xFF in _END or cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            stopping.ask_to_stop()


def check_display() -> None:
    """Refuses to open a window where there is nowhere to show it: Qt would end the process.

    Raises:
        UsageError: there is no display, or this OpenCV draws no windows.
    """
    import cv2

    if not any(line.split(":")[-1].strip() not in ("", "NONE", "NO") for line in _about_windows(cv2)):
        raise UsageError("--show: this OpenCV was built without windows; give --output instead")
    if sys.platform.startswith("linux") and not (os.environ.get("WAYLAND_DISPLAY") or _has_x11()):
        raise UsageError("--show: there is no display here; give --output instead")


def _about_windows(cv2: object) -> list[str]:
    text: str = cv2.getBuildInformation()  # type: ignore[attr-defined]
    return [line for line in text.splitlines() if line.strip().startswith("GUI:")]


def _has_x11() -> bool:
    """True if an X server answers: a local one is asked, one elsewhere is believed."""
    display = os.environ.get("DISPLAY", "")
    host, _, screen = display.partition(":")
    if host not in ("", "unix"):
        return bool(screen)
    number = screen.partition(".")[0]
    for path in (f"/tmp/.X11-unix/X{number}", f"\0/tmp/.X11-unix/X{number}"):
        with socket.socket(socket.AF_UNIX) as asked:
            try:
                asked.connect(path)
            except OSError:
                continue
            return True
    return False
