"""Patience with storage: what is tried again, how often, and what passes through at once."""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
import traceback
import types
from collections.abc import Callable

import pytest

from transforms.formats.publish import storage_error
from transforms.formats.records import FormatError
from transforms.storage import retrying, stopping
from transforms.storage.retrying import may_heal, with_retries
from transforms.storage.stopping import Stopped
from transforms.storage.store import FileChanged, InputFault

ATTEMPTS = 1 + len(retrying.PAUSES_S)
REAL_PAUSES_S = retrying.PAUSES_S


def fault(number: int | None) -> OSError:
    return OSError("no number") if number is None else OSError(number, os.strerror(number))


def failing(times: int, error: Callable[[], BaseException]) -> tuple[Callable[[], str], list[int]]:
    """Returns an attempt that fails so many times, and the list that its calls are noted in."""
    calls: list[int] = []

    def attempt() -> str:
        calls.append(len(calls))
        if len(calls) <= times:
            raise error()
        return "done"

    return attempt, calls


@pytest.mark.parametrize("times", range(ATTEMPTS))
def test_what_heals_in_time_is_no_fault(times: int, caplog: pytest.LogCaptureFixture) -> None:
    attempt, calls = failing(times, lambda: fault(errno.EIO))
    with caplog.at_level(logging.INFO, "pipeline.storage"):
        assert with_retries(attempt) == "done"
    assert len(calls) == times + 1
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["INFO"] * times + ["WARNING"] * (times > 0)
    assert not any("\n" in line for _, line in lines)


@pytest.mark.parametrize(
    "number",
    [
        *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ETIMEDOUT, errno.EACCES, errno.EPERM, errno.ESTALE),
        *(errno.EMFILE, errno.EAGAIN, errno.ECONNRESET, None),
    ],
)
def test_what_stays_is_raised_and_tells_how_often_it_was_tried(number: int | None) -> None:
    attempt, calls = failing(100, lambda: fault(number))
    with pytest.raises(OSError, match=r".") as met:
        with_retries(attempt)
    assert (met.value.errno, vars(met.value)["tried"]) == (number, ATTEMPTS)
    assert traceback.format_exception_only(met.value) == [f"{type(met.value).__name__}: {met.value}\n"]
    assert len(calls) == ATTEMPTS


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EROFS])
def test_what_never_heals_passes_through_at_once(number: int) -> None:
    attempt, calls = failing(100, lambda: fault(number))
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        with_retries(attempt)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", [FormatError, ValueError, EOFError, KeyboardInterrupt])
def test_faults_of_content_are_not_waited_for(kind: type[BaseException]) -> None:
    attempt, calls = failing(100, kind)
    with pytest.raises(kind):
        with_retries(attempt)
    assert len(calls) == 1


def test_our_own_kinds_are_told_by_their_numbers() -> None:
    assert may_heal(InputFault(errno.EIO, "a.jpg cannot be read"))
    assert not may_heal(InputFault(errno.ENOENT, "a.jpg cannot be opened"))
    assert not may_heal(FileChanged(None, "a.jpg was changed while it was read"))
    assert may_heal(storage_error("write", "x", fault(errno.ENOSPC)))
    assert may_heal(TimeoutError())


def test_an_attempt_within_an_attempt_has_had_its_time() -> None:
    attempt, calls = failing(100, lambda: fault(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        with_retries(lambda: with_retries(attempt))
    assert len(calls) == ATTEMPTS


def test_behind_a_fault_that_stayed_nothing_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other blocks are in hand: each would wait as long again."""
    for expected in (ATTEMPTS, 1, 1):
        attempt, calls = failing(100, lambda: fault(errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            with_retries(attempt)
        assert len(calls) == expected
    monkeypatch.setattr(retrying, "AFTERWARDS_S", 0.0)
    attempt, calls = failing(1, lambda: fault(errno.ENOSPC))
    assert with_retries(attempt) == "done"


@pytest.mark.parametrize("takes_s, tries", [(2.9, ATTEMPTS), (3.1, 1), (9.0, 1), (600.0, 1)])
def test_what_takes_long_to_fail_is_not_begun_again(
    monkeypatch: pytest.MonkeyPatch, takes_s: float, tries: int
) -> None:
    now = [1000.0]
    monkeypatch.setattr(retrying, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    def slow() -> OSError:
        now[0] += takes_s
        return fault(errno.ENOSPC)

    attempt, calls = failing(100, slow)
    with pytest.raises(OSError, match="No space left"):
        with_retries(attempt)
    assert len(calls) == tries
    assert now[0] - 1000.0 == pytest.approx(takes_s * tries)


def test_a_full_disk_stops_within_a_few_seconds() -> None:
    assert 1 < sum(REAL_PAUSES_S) < 5
    assert list(REAL_PAUSES_S) == sorted(REAL_PAUSES_S)


def test_a_stop_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "PAUSES_S", (60.0,))
    attempt, calls = failing(100, lambda: fault(errno.EIO))
    timer = threading.Timer(0.05, stopping.ask_to_stop)
    timer.start()
    began = time.monotonic()
    try:
        with pytest.raises(Stopped):
            with_retries(attempt)
    finally:
        stopping.forget()
    assert time.monotonic() - began < 30
    assert len(calls) == 1
