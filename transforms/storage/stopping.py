"""A flag that long work looks at between steps, so that Ctrl-C ends a run within seconds and loses little."""

from __future__ import annotations

import threading


class Stopped(RuntimeError):
    """The user asked to stop; everything finished so far is kept."""


_STOP = threading.Event()


def ask_to_stop() -> None:
    """Makes every later `check()` in this process raise."""
    _STOP.set()


def forget() -> None:
    """Takes the request back (a new run in the same process)."""
    _STOP.clear()


def check() -> None:
    """Raises `Stopped` if a stop was asked for; costs well under a microsecond."""
    if _STOP.is_set():
        raise Stopped("stopped on request")


def asked() -> bool:
    """True if a stop was asked for."""
    return _STOP.is_set()


def pause(seconds: float) -> None:
    """Waits so long, or until a stop is asked for, which raises `Stopped`."""
    _STOP.wait(seconds)
    check()
