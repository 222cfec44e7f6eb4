"""A worker process of a local run: Beam's own, with manners. `python -m pipeline.worker FOLDER [quiet|loud]`

Ctrl-C reaches every process of a terminal: here it asks the stages to stop between steps, as in the process that the
user started, and does not tear Beam's threads down in the midst of a sentence. What Beam, the engine and the image
libraries write to the descriptors goes to `FOLDER/worker-PID.log`: the run shows its end if the process dies.
Not here: what the stages do, and which engine runs them (`runners.py`).
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

from pipeline.interrupt import stop_signals
from transforms import stopping

QUIET, LOUD = "quiet", "loud"
WATCH_S = 0.5  # between looks at the process that started this one, and at what it asks for
STOP_FILE = "stop"
LOST = 1  # exit status of a worker whose run is gone
INTERRUPTED = 130
READ_BYTES = 2**20  # from the end of a log: image libraries may have complained a million times
WORDS_SHOWN = 200  # letters of them: an error is one line

_FATAL = "Fatal Python error"  # how Python begins when a library has crashed; what follows is where
_TELLS_NOTHING = ("INFO:", "WARNING:", "Extension modules:")  # as Beam logs at its start, and as Python ends


def log_file(folder: str, pid: int) -> Path:
    """Returns where a worker's last words are."""
    return Path(folder, f"worker-{pid}.log")


def last_words(folder: str) -> str:
    """Returns the line that tells most of why a worker died, "" where none wrote one.

    Those that live are not asked. A crash that Python has told of comes before anything else; then the newest file.
    """
    logs = sorted(Path(folder).glob("worker-*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    told = [lines for path in logs if not _is_alive(path) and (lines := _telling_lines(path))]
    fatal = [line for lines in told for line in reversed(lines) if line.startswith(_FATAL)]
    return (fatal or [lines[-1] for lines in told] or [""])[0][:WORDS_SHOWN]


def _is_alive(log: Path) -> bool:
    """True if the worker that writes this log is still there."""
    try:
        os.kill(int(log.stem.removeprefix("worker-")), 0)
    except (OSError, ValueError, OverflowError):  # one that is not ours to signal has got the number since
        return False
    return True


def _telling_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - READ_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return [line for line in lines if line and not line.startswith(_TELLS_NOTHING)]


def tell_to_stop(folder: str) -> None:
    """Asks the workers of a run to stop between steps, also where no signal reached them."""
    Path(folder, STOP_FILE).touch()


def main(arguments: Sequence[str]) -> None:
    """Works until the run has ended."""
    folder, manner = arguments
    if manner == QUIET:
        _speak_to_the_file(folder)
    faulthandler.enable()
    for number in stop_signals():
        signal.signal(number, _on_signal)
    threading.Thread(target=_watch, args=(folder, os.getppid()), name="watch", daemon=True).start()
    from pipeline.runners import work_for_beam

    work_for_beam()


def _speak_to_the_file(folder: str) -> None:
    """Sends both descriptors to this worker's file; our own warnings still reach the user."""
    told = open(os.dup(2), "w", encoding="utf-8", errors="replace", buffering=1)  # noqa: SIM115 - as long as the process
    handler = logging.StreamHandler(told)
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
        if os.getppid() != parent:  # nobody is left to hand results to
            os._exit(LOST)
        if asked.exists():
            stopping.ask_to_stop()


if __name__ == "__main__":
    main(sys.argv[1:])
