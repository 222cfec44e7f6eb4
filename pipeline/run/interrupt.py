"""Ctrl-C: asks the stages to stop between steps, and exits after five seconds at the latest."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType

from transforms.storage import stopping

_MAY_LEAVE: ContextVar[bool] = ContextVar("may leave", default=True)
PATIENCE_S = 5.0  # about as long as a batch of a large network on a CPU


def stop_signals() -> list[signal.Signals]:
    """Returns the signals that stop a run; SIGHUP is one unless `nohup` ignores it."""
    known = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # not on Windows
    return known if hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN else [*known, hang_up]


@contextmanager
def never_leaving() -> Iterator[None]:
    """Inside, Ctrl-C ends only the run, never the process, which may be a notebook or a service.

    A second Ctrl-C raises KeyboardInterrupt. SIGTERM and SIGHUP stay as they are.
    """
    token = _MAY_LEAVE.set(False)
    try:
        yield
    finally:
        _MAY_LEAVE.reset(token)


@contextmanager
def interruptible(last_words: Callable[[], str], tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Inside, the first Ctrl-C, SIGTERM or SIGHUP stops work gracefully; a second one, or five seconds, exit at once.

    Exiting at once loses nothing: files with a final name are complete, all others have a temporary name.

    Args:
        last_words: what to print on the way out.
        tell: asks other processes of the run to stop too; a storage error in it does not keep this one running.
    """
    stopping.forget()
    may_leave = _MAY_LEAVE.get()
    stderr_copy = os.dup(2)  # while a runtime is loaded, descriptor 2 itself is redirected to nothing

    def leave() -> None:
        with suppress(OSError):  # the terminal is gone
            os.write(stderr_copy, ("\n" + last_words() + "\n").encode())
        os._exit(130)  # threads of the runtime may never end

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stopping.asked():
            if not may_leave:
                raise KeyboardInterrupt
            leave()
        stopping.ask_to_stop()
        with suppress(OSError):
            tell()
        with suppress(OSError):
            os.write(stderr_copy, b"\nstopping after the current step ...\n")
        if may_leave:
            timer = threading.Timer(PATIENCE_S, leave)
            timer.daemon = True
            timer.start()
            timers.append(timer)

    timers: list[threading.Timer] = []
    if threading.current_thread() is not threading.main_thread():
        os.close(stderr_copy)
        yield
        return
    before = {number: signal.signal(number, on_signal) for number in (stop_signals() if may_leave else [signal.SIGINT])}
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(stderr_copy)
        sys.stderr.flush()
