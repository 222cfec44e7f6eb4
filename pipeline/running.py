"""Runs a graph on this machine or elsewhere: engine, bar, Ctrl-C, and errors in one line. Shared by the commands."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam

from models.backbones import BackboneError
from models.device import DeviceOutOfMemory
from models.heads import HeadError
from pipeline.errors import Interrupted, PipelineError, StoppedError, UsageError
from pipeline.interrupt import interruptible
from pipeline.progress import bar, totals_from
from pipeline.runners import options_of, runner_of, uses_processes
from transforms.finish_run import RunStopped
from transforms.formats.publish import StorageError
from transforms.formats.records import FormatError
from transforms.formats.submission import SubmissionError
from transforms.merge_parts import AccountError
from transforms.stopping import Stopped
from transforms.storage import InputFault
from transforms.tally import TALLY, Totals

Build = Callable[[beam.Pipeline], Any]


def heartbeat_folder(beam_options: Sequence[str], folder: str) -> str:
    """Returns where worker processes tell what they have done; "" where workers share this process."""
    if not uses_processes(options_of(beam_options)):
        return ""
    path = os.path.join(folder, "heartbeats")
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def run_graph(
    build: Build,
    beam_options: Sequence[str],
    *,
    heartbeat: str,
    total: int | None,
    done: int,
    quiet: bool,
    verbose: bool,
    go_on: str,
) -> Totals:
    """Runs the graph to its end and returns the totals of its workers.

    Args:
        build: adds the stages to a pipeline.
        total, done: images, for the bar.
        go_on: how to continue after an interruption, for the last words.

    Raises:
        Interrupted: Ctrl-C. StoppedError: storage, input or device fault. All are resumable.
    """
    if not verbose:  # Beam logs every error with its traceback, where the user gets one line
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    options = options_of(beam_options)
    totals = totals_from(heartbeat)
    TALLY.reset()
    pipeline = beam.Pipeline(runner=runner_of(options), options=options)
    build(pipeline)
    with interruptible(lambda: f"pipeline: interrupted; {go_on}"), bar(total, done=done, totals=totals, quiet=quiet):
        try:
            pipeline.run().wait_until_finish()
        except BaseException as error:
            told = _in_one_line(error, go_on)
            if told is error:
                raise
            raise told from error
    return totals()


KNOWN = (
    PipelineError,
    FormatError,
    Stopped,
    RunStopped,
    AccountError,
    StorageError,
    InputFault,
    DeviceOutOfMemory,
    BackboneError,
    HeadError,
)
WHERE = " [while running"  # Beam's addition to a message
NAMED_ERROR = re.compile(r"^(?:RuntimeError: )?(?P<name>[\w.]+): (?P<text>.+)$", re.MULTILINE)


def _in_one_line(error: BaseException, go_on: str) -> BaseException:
    """Returns what the command should end with: the first error of ours under what the engine made of it."""
    kind, text = _first_of_ours(error) or _told_by_a_worker(str(error)) or (type(error), "")
    if issubclass(kind, Stopped | KeyboardInterrupt | Interrupted):
        return Interrupted(f"interrupted; {go_on}")
    if not issubclass(kind, KNOWN):
        return error
    if issubclass(kind, UsageError | BackboneError | HeadError | SubmissionError):
        return UsageError(text)
    return StoppedError(f"{text}; {go_on}")


def _first_of_ours(error: BaseException) -> tuple[type[BaseException], str] | None:
    """Returns kind and text of the outermost error of ours in the chain of causes."""
    cause: BaseException | None = error
    met: set[int] = set()  # a chain may be a ring
    while cause is not None and id(cause) not in met:
        if isinstance(cause, KNOWN):
            return type(cause), str(cause).split(WHERE)[0]
        met.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None


def _told_by_a_worker(text: str) -> tuple[type[BaseException], str] | None:
    """Returns kind and text of the first error of ours in a traceback: all that a worker process hands over."""
    kinds = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _with_subclasses(KNOWN)}
    for found in NAMED_ERROR.finditer(text):
        if found["name"] in kinds:
            return kinds[found["name"]], found["text"].split(WHERE)[0]
    return None


def _with_subclasses(kinds: Sequence[type[BaseException]]) -> Iterator[type[BaseException]]:
    for kind in kinds:
        yield kind
        yield from _with_subclasses(kind.__subclasses__())
