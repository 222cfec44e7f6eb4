"""Runs a graph on this machine or elsewhere: engine, bar, Ctrl-C, and errors in one line. Shared by the commands."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam

from models.backbones import BackboneError
from models.device import DeviceOutOfMemory
from models.heads import HeadError
from pipeline.errors import Interrupted, PipelineError, StoppedError, UsageError
from pipeline.interrupt import interruptible
from pipeline.progress import bar, totals_from
from pipeline.runners import is_direct, options_of, runner_of, uses_processes
from transforms.finish_run import RunStopped
from transforms.formats.publish import StorageError
from transforms.formats.records import FormatError
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
            raise _in_one_line(error, go_on) from error
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


def _in_one_line(error: BaseException, go_on: str) -> BaseException:
    """Returns what the command should end with: the first error of ours under what the engine made of it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KNOWN):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return Interrupted(f"interrupted; {go_on}") if isinstance(error, KeyboardInterrupt) else error
    text = str(cause.args[0] if cause.args else cause).split(" [while running")[0]
    if isinstance(cause, Stopped):
        return Interrupted(f"interrupted; {go_on}")
    if isinstance(cause, UsageError | BackboneError | HeadError):
        return UsageError(text)
    return StoppedError(f"{text}; {go_on}")
