"""Why a graph failed: read from an exception, handed over by worker processes as `failure.json`, put into one line.

If workers are processes, Beam passes on only the text of a traceback. So each worker writes the failure itself.
Not here: worker processes that died and could write nothing (`running.py`), and errors outside a graph that no command
caught (`uncaught.py`).
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum

from models.backbones.backbone import BackboneError
from models.heads.outputs import HeadError
from models.runtimes.device import AcceleratorMissing, DeviceOutOfMemory
from pipeline.errors import Interrupted, PipelineError, StoppedError, UsageError
from transforms.containing import ProgramFault
from transforms.finish_run import RunStopped
from transforms.formats.publish import StorageError, publish_bytes
from transforms.formats.records import FormatError
from transforms.formats.submission.rules import SubmissionError
from transforms.merge.account import AccountError
from transforms.storage.stopping import Stopped
from transforms.storage.store import InputFault

FAILURE_FILE = "failure.json"
LESS_MEMORY = "fewer read.threads, a smaller read.block_images or faces.max_faces need less memory"
WHERE = " [while running"  # Beam appends it, and the name of the stage, to a message


class FailureKind(StrEnum):
    """What a failure means to the user."""

    USAGE = "usage"  # a setting, a head or weights are wrong
    STOPPED = "stopped"  # a limit, an input, the storage or the device, reported by us; resumable
    MEMORY = "memory"
    STORAGE = "storage"  # an error of the operating system that is not one of ours
    INTERRUPTED = "interrupted"
    FAULT = "fault"  # a bug, in this program or a library


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure.

    Attributes:
        kind: what it means.
        text: the message of the exception.
        item: the file being processed, else the stage; "" if neither is known.
    """

    kind: FailureKind
    text: str
    item: str = ""


USAGE = (UsageError, BackboneError, HeadError, SubmissionError)
INTERRUPTIONS = (Stopped, Interrupted, KeyboardInterrupt)
STOPPED = (
    *(PipelineError, FormatError, RunStopped, AccountError),
    *(StorageError, InputFault, AcceleratorMissing, DeviceOutOfMemory, ProgramFault),
)
NAMED = (*INTERRUPTIONS, *USAGE, *STOPPED, MemoryError)


def failure_of(error: BaseException) -> Failure:
    """Classifies an exception from a graph: the outermost error of ours among its causes decides.

    An error of the operating system counts only if a stage ended with it. What is raised while such an error is
    handled is another error.
    """
    first = _first_named(error)
    if first is not None:
        return Failure(_kind_of(type(first)), _words(first), _item(first))
    error = _without_beams_copies(error)
    is_storage = isinstance(error, OSError) and not isinstance(error, io.UnsupportedOperation)  # that is a bug
    kind = FailureKind.STORAGE if is_storage else FailureKind.FAULT
    return Failure(kind, _words(error) or type(error).__name__, _item(error))


def _first_named(error: BaseException) -> BaseException | None:
    return next((cause for cause in _chain(error) if isinstance(cause, NAMED)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and its causes; a chain may be circular."""
    cause: BaseException | None = error
    met: set[int] = set()
    while cause is not None and id(cause) not in met:
        yield cause
        met.add(id(cause))
        cause = cause.__cause__ or cause.__context__


def _without_beams_copies(error: BaseException) -> BaseException:
    """Returns the exception that a stage raised: Beam replaces it with one whose message names the stage."""
    for cause in _chain(error):
        if not getattr(cause, "_tagged_with_step", False) or cause.__context__ is None:
            return cause
    return error


def _kind_of(error: type[BaseException]) -> FailureKind:
    for kind, classes in (
        (FailureKind.INTERRUPTED, INTERRUPTIONS),
        (FailureKind.USAGE, USAGE),
        (FailureKind.MEMORY, (MemoryError,)),
        (FailureKind.STOPPED, STOPPED),
    ):
        if issubclass(error, classes):
            return kind
    return FailureKind.STORAGE if issubclass(error, OSError) else FailureKind.FAULT


def failure_in_text(text: str) -> Failure | None:
    """Returns the outermost failure in a traceback, for remote jobs: their runners pass on only text.

    A traceback begins with the cause, so the outermost error is the last.
    """
    classes = {_dotted(kind): kind for kind in _with_subclasses((*NAMED, OSError))}
    for line in reversed(text.splitlines()):
        name, _, words = line.strip().removeprefix("RuntimeError: ").partition(": ")
        if name in classes:
            message, _, stage = words.partition(WHERE)
            return Failure(_kind_of(classes[name]), message, stage.strip(" ']"))
    return None


def _dotted(kind: type[BaseException]) -> str:
    """Returns the exception's name as in a traceback."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _with_subclasses(kinds: Iterable[type[BaseException]]) -> Iterator[type[BaseException]]:
    for kind in kinds:
        yield kind
        yield from _with_subclasses(kind.__subclasses__())


def _words(error: BaseException) -> str:
    return " ".join(str(error).partition(WHERE)[0].split())


def _item(error: BaseException) -> str:
    path = getattr(error, "filename", None) or getattr(error, "path", None)
    return str(path) if path else str(error).partition(WHERE)[2].strip(" ']")


def ended_by(failure: Failure, go_on: str) -> PipelineError | None:
    """Returns the error that ends the command; None for a bug, whose exception says more.

    Args:
        go_on: how to resume, for the end of the message.
    """
    text = failure.text
    if failure.kind is FailureKind.INTERRUPTED:
        return Interrupted(f"interrupted; {go_on}")
    if failure.kind is FailureKind.USAGE:
        return UsageError(text)
    if failure.kind is FailureKind.MEMORY:
        return StoppedError(f"{text or 'no memory'}; {LESS_MEMORY}; {go_on}")
    if failure.kind is FailureKind.STORAGE:
        return StoppedError(f"{text}; once that is fixed, {go_on}")
    return StoppedError(f"{text}; {go_on}") if failure.kind is FailureKind.STOPPED else None


def in_one_line(error: BaseException, go_on: str) -> BaseException:
    """Returns the error that ends a command which failed outside worker processes; a bug is returned unchanged."""
    return ended_by(failure_of(error), go_on) or error


def write_failure(folder: str, error: BaseException) -> None:
    """Writes why a worker process failed, unless another one did already: later failures may follow from the first."""
    path = os.path.join(folder, FAILURE_FILE)
    if os.path.exists(path):
        return
    with suppress(OSError):  # the run then uses the text of the traceback
        publish_bytes(path, json.dumps(asdict(failure_of(error)), indent=1).encode())


def read_failure(folder: str) -> Failure | None:
    """Returns why a worker process failed; None if none reported it."""
    try:
        with open(os.path.join(folder, FAILURE_FILE), encoding="utf-8") as file:
            found = json.load(file)
        return Failure(FailureKind(found["kind"]), found["text"], found["item"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
