"""Beam's worker with clean shutdown and logging, for local runs: `python -m pipeline.run.worker FOLDER [quiet|loud]`.

Ctrl-C reaches every process of a terminal: here it asks the stages to stop between steps, as in the process that the
user started, and does not kill Beam's threads while they work. Output of Beam, the runtime and the image libraries on
the descriptors goes to the worker's log (`worker_folder.py`).
Not here: what the stages do, and which runner runs them (`runners.py`).
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from models.runtimes.gpus import use_one_gpu
from pipeline.run.interrupt import stop_signals
from pipeline.run.worker_folder import QUIET, STOP_FILE, claim_number, log_file
from transforms.storage import stopping

WATCH_S = 0.5  # between checks of the parent process and its requests
LOST = 1  # exit status of a worker whose run no longer exists
INTERRUPTED = 130


def main(arguments: Sequence[str]) -> None:
    """Works until the run ends."""
    folder, manner = arguments
    if manner == QUIET:
        _speak_to_the_file(folder)
    faulthandler.enable()
    use_one_gpu(claim_number(folder))
    for number in stop_signals():
        signal.signal(number, _on_signal)
    threading.Thread(target=_watch, args=(folder, os.getppid()), name="watch", daemon=True).start()
    from pipeline.run.runners import work_for_beam

    work_for_beam(folder)


def _speak_to_the_file(folder: str) -> None:
    """Redirects both descriptors to this worker's log; our own warnings still reach the user."""
    own_stderr = open(os.dup(2), "w", encoding="utf-8", errors="replace", buffering=1)  # noqa: SIM115 - as long as the process
    handler = logging.StreamHandler(own_stderr)
    handler.setFormatter(logging.Formatter("pipeline: %(levelname)s: %(name)s: %(message)s"))
    ours = logging.getLogger("pipeline")
    ours.addHandler(handler)
    ours.setLevel(logging.WARNING)
    ours.propagate = False
    log = os.open(log_file(folder, os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if stopping.asked():
        os._exit(INTERRUPTED)
    stopping.ask_to_stop()


def _watch(folder: str, parent: int) -> None:
    asked = Path(folder, STOP_FILE)
    while True:
        threading.Event().wait(WATCH_S)
        if os.getppid() != parent:  # nobody is left to receive results
            os._exit(LOST)
        if asked.exists():
            stopping.ask_to_stop()


if __name__ == "__main__":
    main(sys.argv[1:])
