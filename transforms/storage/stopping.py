"""A flag that long work checks between steps, so that Ctrl-C ends a run within seconds and loses little."""

from __future__ import annotations

import threading


class Stopped(RuntimeError):
    """The user asked to stop; progress is saved."""


_STOP = threading.Event()


def ask_to_stop() -> None:
    """Makes every later `check()` in this process raise."""
    _STOP.set()


def forget() -> None:
    """Clears the request, for a new run in the same process."""
    _STOP.clear()


def check() -> None:
    """Raises `Stopped` if a stop was asked for; costs well under a microsecond."""
    if _STOP.is_set():
        raise Stopped("stopped on request")


def asked() -> bool:
    """True if a stop was asked for."""
    return _STOP.is_set()


def pause(seconds: float) -> None:
    """Waits for `seconds`; raises `Stopped` as soon as a stop is asked for."""
    _STOP.wait(seconds)
    check()
