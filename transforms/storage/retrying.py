"""Patience with storage: what failed for want of time, room or permission is tried again, a few times, for seconds.

Faults of input and output only. Faults of content are none of this module's: they are no `OSError`. What never heals by
waiting (a file that is gone, a folder in place of a file) passes through at once.
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

PAUSES_S = (0.2, 0.6, 1.6)  # before each further attempt: a full disk stops a run within three seconds
AFTERWARDS_S = 5.0  # behind a fault that stayed nothing is waited for: what works ahead would add wait to wait
LONG_ATTEMPT_S = 3.0  # what took longer to fail is not begun again: a merge of minutes would cost as many once more

MAY_HEAL = frozenset(
    {
        *(errno.EIO, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETXTBSY, errno.ESTALE, errno.EREMOTEIO),
        *(errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE, errno.ENOTCONN),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.ESHUTDOWN),
        *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOLCK),
        *(errno.EACCES, errno.EPERM),  # a ticket that is being renewed, a mount that comes back
    }
)

_gave_up_at = -math.inf  # by the clock of `time.monotonic`; all threads of the process share it

T = TypeVar("T")


def may_heal(error: OSError) -> bool:
    """True if waiting may help: by the error's number; without one (object stores, time-outs) it may.

    An error says itself that it does not heal by an attribute `heals` that is False.
    """
    if not getattr(error, "heals", True):
        return False
    return error.errno is None or error.errno in MAY_HEAL


def patiently(attempt: Callable[[], T]) -> T:
    """Returns what `attempt` returns, tried again after faults of storage that may heal.

    Args:
        attempt: can be done again from its start, whatever it did before it failed.

    Raises:
        OSError: the last fault; its attribute `tried` tells how often. Stopped: the user asked to stop meanwhile.
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
            logger.info("%s; attempt %d of %d in %.1f s", fault, number + 1, len(PAUSES_S) + 1, seconds)
            pause(seconds)
        else:
            if number > 1:
                logger.warning("%s; went well at attempt %d of %d", fault, number, len(PAUSES_S) + 1)
            return result
    raise AssertionError("the last attempt returns or raises")


def _gave_up_lately() -> bool:
    return time.monotonic() - _gave_up_at < AFTERWARDS_S


def _give_up(error: OSError, attempts: int) -> None:
    global _gave_up_at
    vars(error).update(tried=attempts, heals=False)  # no note: the engine would take it for the error's own words
    if not _gave_up_lately():
        _gave_up_at = time.monotonic()
