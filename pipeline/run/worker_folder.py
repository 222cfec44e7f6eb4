"""Messages between a run and its worker processes through a folder: requests to stop, and a worker's last output.

Each worker writes `FOLDER/worker-PID.log`: the run shows its end if the process dies.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from pathlib import Path

QUIET, LOUD = "quiet", "loud"
STOP_FILE = "stop"
READ_BYTES = 2**20  # from the end of a log: image libraries may have written a million warnings
WORDS_SHOWN = 200  # characters of it: an error is one line
_FATAL = "Fatal Python error"  # how Python starts its report when a library has crashed
_TELLS_NOTHING = ("INFO:", "WARNING:", "Extension modules:")  # as Beam logs at its start, and as Python ends


def log_file(folder: str, pid: int) -> Path:
    """Returns the path of a worker's log."""
    return Path(folder, f"worker-{pid}.log")


def last_words(folder: str) -> str:
    """Returns the line that best explains why a worker died, "" if there is none.

    Workers that still run are ignored. A crash that Python reported comes first, then the newest file.
    """
    logs = sorted(Path(folder).glob("worker-*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    messages = [lines for path in logs if not _is_alive(path) and (lines := _telling_lines(path))]
    fatal = [line for lines in messages for line in reversed(lines) if line.startswith(_FATAL)]
    return (fatal or [lines[-1] for lines in messages] or [""])[0][:WORDS_SHOWN]


def _is_alive(log: Path) -> bool:
    """True if the worker that writes this log is still running."""
    try:
        os.kill(int(log.stem.removeprefix("worker-")), 0)
    except (OSError, ValueError, OverflowError):  # the number now belongs to a process that we may not signal
        return False
    return True


def _telling_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - READ_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return [line for line in lines if line and not line.startswith(_TELLS_NOTHING)]


def claim_number(folder: str) -> int:
    """Returns the number of this worker among those of the run, from 0; no two get the same."""
    for number in itertools.count():
        with suppress(FileExistsError):
            Path(folder, f"place-{number}").touch(exist_ok=False)
            return number
    raise AssertionError("unreachable")


def tell_to_stop(folder: str) -> None:
    """Asks the workers of a run to stop between steps, even those that no signal reached."""
    Path(folder, STOP_FILE).touch()
