"""A lock for one run at a time, as a small file that its holder renews. It works where nothing can be locked.

A holder that dies stops renewing, and after a while another run takes over. Whoever waits measures the time, so clocks
of different machines need not agree.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from transforms.formats.publish import process_has_ended, process_name
from transforms.storage.objects import Version
from transforms.storage.stopping import ask_to_stop, pause
from transforms.storage.stores import Store

logger = logging.getLogger("pipeline.storage")

RENEWED_S = 15.0
EXPIRES_S = 60.0  # four renewals may fail; a run that was killed blocks its folder for so long on other machines


class Held(RuntimeError):
    """Another run holds the lease; the text says which."""


@contextmanager
def lease(store: Store, name: str, *, waiting: Callable[[str], None] = lambda words: None) -> Iterator[None]:
    """Holds the lease `name` while inside, renewing it in a thread; asks the run to stop if it is lost.

    Args:
        waiting: called with words for the user before a wait for a holder that may be dead.

    Raises:
        Held: another run holds it, and lives.
        StorageError, InputFault: the store cannot be reached.
    """
    token = secrets.token_hex(8)
    version = _taken(store, name, token, waiting)
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(store, name, token, version, ended), name="lease", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join(EXPIRES_S)
        with suppress(OSError):  # else it expires
            found = store.get(name)
            if found is not None and _token(found[0]) == token:
                store.delete([name])


def _content(token: str) -> bytes:
    about = {"token": token, "host": socket.gethostname(), "pid": os.getpid(), "process": process_name()}
    return json.dumps({**about, "renewed": time.time()}).encode()  # `renewed` is for people, and makes versions differ


def _taken(store: Store, name: str, token: str, waiting: Callable[[str], None]) -> Version:
    """Returns the version of the lease, taken."""
    while True:
        content = _content(token)
        version = store.put_if_absent(name, content)
        if version is not None:
            return version
        found = store.get(name)
        if found is None:  # given back just now
            continue
        if _token(found[0]) == token:  # ours: the answer was lost, and the request was sent again
            return found[1]
        if not process_has_ended(str(_fields(found[0]).get("process", ""))):
            _wait(store, name, found, waiting)
        version = store.put_if_same(name, content, found[1])
        if version is not None:
            return version


def _wait(store: Store, name: str, found: tuple[bytes, Version], waiting: Callable[[str], None]) -> None:
    """Returns when the holder has not renewed its lease for long enough; raises Held as soon as it has."""
    fields = _fields(found[0])
    holder = f"process {fields.get('pid', '?')} on {fields.get('host', '?')}"
    waiting(f"{store.path(name)} is held by {holder}; waiting up to {EXPIRES_S:.0f} s to see whether it lives")
    until = time.monotonic() + EXPIRES_S
    while time.monotonic() < until:
        pause(min(1.0, EXPIRES_S / 4))
        now = store.get(name)
        if now is None:
            return
        if now[1] != found[1]:
            raise Held(holder)


def _renew(store: Store, name: str, token: str, version: Version, ended: threading.Event) -> None:
    while not ended.wait(RENEWED_S):
        try:
            renewed = store.put_if_same(name, _content(token), version)
            if renewed is None:
                found = store.get(name)
                if found is None or _token(found[0]) != token:
                    logger.warning("%s was taken over by another run; this one stops", store.path(name))
                    ask_to_stop()
                    return
                renewed = found[1]  # the answer was lost, and the request was sent again
            version = renewed
        except OSError as error:
            logger.info("the lease is not renewed now: %s", error)


def _fields(content: bytes) -> dict[str, object]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _token(content: bytes) -> str:
    return str(_fields(content).get("token", ""))
