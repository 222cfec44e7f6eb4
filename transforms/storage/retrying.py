"""Retries transient storage errors (timeouts, full disks, permissions), a few times within seconds.

It handles `OSError` only, so damaged content passes through. Permanent errors (a missing file, a folder in place of a
file) pass through at once.
"""

from __future__ import annotations

import errno
import logging
import math
import time
from collections.abc import Callable
from typing import TypeVar

from transforms.storage.stopping import pause

logger = logging.getLogger("pipeline.storage")

PAUSES_S = (0.2, 0.6, 1.6)  # before each retry, so a full disk stops a run within three seconds
AFTERWARDS_S = 5.0  # no retries for this long after giving up, else threads that work ahead add up their waits
LONG_ATTEMPT_S = 3.0  # an attempt that took longer is not retried, else a failed merge of minutes would run again

MAY_HEAL = frozenset(
    {
        *(errno.EIO, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETXTBSY, errno.ESTALE, errno.EREMOTEIO),
        *(errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE, errno.ENOTCONN),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.ESHUTDOWN),
        *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOLCK),
        *(errno.EACCES, errno.EPERM),  # a ticket under renewal, a mount that comes back
    }
)

_gave_up_at = -math.inf  # by the clock of `time.monotonic`; all threads of the process share it

T = TypeVar("T")


def may_heal(error: OSError) -> bool:
    """True if a retry may help, judged by the error's number; errors without a number (object stores) may.

    An error with an attribute `heals` that is False is permanent.
    """
    if not getattr(error, "heals", True):
        return False
    return error.errno is None or error.errno in MAY_HEAL


def with_retries(attempt: Callable[[], T]) -> T:
    """Returns what `attempt` returns, retried after transient storage errors.

    Args:
        attempt: must be repeatable from its start, whatever it did before it failed.

    Raises:
        OSError: the last error; its attribute `tried` is the number of attempts.
        Stopped: the user asked to stop meanwhile.
    """
    fault = ""
    for number, seconds in enumerate((*PAUSES_S, None), 1):
        began = time.monotonic()
        try:
            result = attempt()
        except OSError as error:
            fault = str(error)
            if not may_heal(error):
                raise
            if seconds is None or time.monotonic() - began > LONG_ATTEMPT_S or _gave_up_lately():
                _give_up(error, number)
                raise
            logger.info("%s; attempt %d of %d starts in %.1f s", fault, number + 1, len(PAUSES_S) + 1, seconds)
            pause(seconds)
        else:
            if number > 1:
                logger.warning("%s; succeeded at attempt %d of %d", fault, number, len(PAUSES_S) + 1)
            return result
    raise AssertionError("the last attempt returns or raises")


def _gave_up_lately() -> bool:
    return time.monotonic() - _gave_up_at < AFTERWARDS_S


def _give_up(error: OSError, attempts: int) -> None:
    global _gave_up_at
    vars(error).update(tried=attempts, heals=False)  # not add_note: Beam would show it as part of the message
    if not _gave_up_lately():
        _gave_up_at = time.monotonic()
