"""Recognises errors caused by a memory limit (`ulimit -v`, a container's), even if libraries report something else.

A library that cannot be mapped raises ImportError; a half-imported one raises AttributeError elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_NO_ROOM = re.compile("failed to map segment|cannot allocate memory|cannot enable executable stack", re.IGNORECASE)
_FOLLOWS = (ImportError, AttributeError, MemoryError, OSError, RuntimeError)  # what libraries raise at a limit


def lack_of_memory(error: BaseException) -> str | None:
    """Returns one clause with the fix if an error is caused by lack of memory, else None."""
    limit = _limit_bytes()
    texts = [f"{type(cause).__name__}: {cause}" for cause in _chain(error)]
    if any(_NO_ROOM.search(text) for text in texts):
        message = next(text for text in texts if _NO_ROOM.search(text))
    elif limit is not None and isinstance(error, _FOLLOWS):
        message = texts[0]
    else:
        return None
    first = (message.splitlines() or [""])[0]
    if limit is None:
        return f"too little memory to load the libraries ({first}); give this process more"
    return (
        f"too little memory to load the libraries: this process is limited to {limit / 2**20:,.0f} MB of address "
        f"space ({first}); raise the limit (ulimit -v unlimited)"
    )


def _limit_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # not POSIX
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    met: set[int] = set()  # a chain may be circular
    while cause is not None and id(cause) not in met:
        yield cause
        met.add(id(cause))
        cause = cause.__cause__ or cause.__context__
