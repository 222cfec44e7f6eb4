"""Runs a graph locally or remotely, with a progress bar, Ctrl-C and errors in one line. Shared by the commands.

Not here: what a failure means (`failures.py`).
"""

from __future__ import annotations

import logging
import os
import queue
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipeline.errors import Interrupted, PipelineError, StoppedError
from pipeline.run.failures import FailureKind, ended_by, failure_in_text, failure_of, read_failure
from pipeline.run.interrupt import interruptible
from pipeline.run.own_files import remove_own
from pipeline.run.progress import bar, totals_from
from pipeline.run.remote_job import WITHOUT_US, RemoteJob, lacks_this_program, reports_hidden
from pipeline.run.runners import as_outside_a_notebook, empty_pipeline, is_direct, options_of, uses_processes
from pipeline.run.worker_folder import last_words, tell_to_stop
from transforms.storage import stopping
from transforms.tally import TALLY, Totals

Build = Callable[[beam.Pipeline], Any]
UNNAMED = (FailureKind.STORAGE, FailureKind.FAULT)  # not one of our errors


def heartbeat_folder(beam_options: Sequence[str], folder: str) -> str:
    """Returns the folder in which worker processes report progress; "" if workers share this process."""
    if not uses_processes(options_of(beam_options)):
        return ""
    path = os.path.join(folder, "heartbeats")
    remove_own(folder, ("heartbeats",), ())
    os.makedirs(path, exist_ok=True)
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
    complaint: Callable[[], str] = lambda: "",
    finished: Callable[[], Totals] = Totals,
) -> Totals:
    """Runs the graph to its end and returns the totals of its workers.

    Args:
        build: adds the stages to a pipeline.
        total, done: images, for the bar.
        go_on: how to resume, for the end of the message.
        complaint: returns why a worker elsewhere could not start, as a traceback ends; "" if none did.
        finished: returns what workers elsewhere have finished, for runners that count only in the end.

    Raises:
        Interrupted: Ctrl-C. StoppedError: storage, input or device fault. All are resumable.
    """
    if not verbose:  # Beam logs every error with its traceback, but the user gets one line
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    options = options_of(beam_options)
    job = RemoteJob(options, complaint, finished)
    totals = job.totals if job.is_remote else totals_from(heartbeat)
    TALLY.reset()
    pipeline = empty_pipeline(options, folder=heartbeat, verbose=verbose)
    with as_outside_a_notebook():
        build(pipeline)
    with (
        interruptible(lambda: f"pipeline: interrupted; {job.words()}{go_on}", partial(_stop_workers, heartbeat, job)),
        bar(total, done=done, totals=totals, quiet=quiet),
        _deaths_of_workers(verbose) as deaths,
        reports_hidden(verbose),
    ):
        try:
            result = job.begun(_started(pipeline, options))
            with job.watched():
                result.wait_until_finish()
        except BaseException as error:
            ended = _ended(error, job, deaths, heartbeat, go_on)
            if ended is None:
                raise
            raise ended from error
    return totals()


def _ended(error: BaseException, job: RemoteJob, deaths: _Deaths, heartbeat: str, go_on: str) -> PipelineError | None:
    """Returns the error that ends the command; None for a bug, which is raised unchanged."""
    if job.is_remote and (ended := _ended_by_the_job(error, job, go_on)):
        return ended
    failure = failure_of(error)
    if heartbeat and failure.kind in UNNAMED:
        of_a_worker = read_failure(heartbeat)
        failure = of_a_worker or failure
        if of_a_worker is None or of_a_worker.kind is FailureKind.FAULT:
            # the lost connection to a dead worker looks like a bug or a storage error
            death = _death_of_a_worker(deaths, heartbeat, go_on)
            if death is not None:
                return death
    if failure.kind is FailureKind.FAULT and job.is_remote:
        return _ended_by_its_text(error, job, go_on)
    return ended_by(failure, go_on)


def _ended_by_the_job(error: BaseException, job: RemoteJob, go_on: str) -> PipelineError | None:
    """Returns the error that ends the command if the job's state says more than the runner's error."""
    if stopping.asked():
        return Interrupted(f"interrupted; {job.words()}{go_on}")
    if job.complaint and (of_a_worker := failure_in_text(job.complaint)) is not None:
        return ended_by(of_a_worker, go_on) or StoppedError(f"{job.complaint}; {go_on}")
    if job.fault or lacks_this_program(str(error)):
        return StoppedError(f"{job.fault or WITHOUT_US}; {go_on}")
    return None


def _ended_by_its_text(error: BaseException, job: RemoteJob, go_on: str) -> PipelineError | None:
    """Returns the error that ends the command if the runner passes on only text; None for an error of this process."""
    if (of_the_job := failure_in_text(str(error))) is not None:
        return ended_by(of_the_job, go_on)
    if isinstance(error, RuntimeError) or type(error).__module__.startswith("grpc"):
        return StoppedError(f"{job.failed(error)}; {go_on}")
    return None


def _started(pipeline: beam.Pipeline, options: PipelineOptions) -> Any:
    """Returns the job as Beam knows it; a remote runner that cannot start is reported in one line."""
    try:
        return pipeline.run()
    except Exception as error:
        of_its_start = isinstance(error, RuntimeError | OSError) or type(error).__module__.startswith("grpc")
        if not of_its_start or is_direct(options) or failure_of(error).kind not in UNNAMED:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise StoppedError(f"--runner={_name_of(options)}: Beam cannot start the job there: {text}") from error


def _name_of(options: PipelineOptions) -> str:
    return str(options.view_as(StandardOptions).runner)


def _stop_workers(folder: str, job: RemoteJob) -> None:
    job.cancel()
    if folder:
        tell_to_stop(folder)


ENGINE_THREADS = ("run_worker", "beam_control_read", "read_grpc_client_inputs")  # their errors also end the run
DEATH = re.compile(r"exited with return code (-?\d+)")
DEATH_S = 3.0  # within which the end of a process explains a lost connection


class _Deaths:
    """Exit statuses of worker processes that ended early; negative for a signal."""

    def __init__(self) -> None:
        self._statuses: queue.SimpleQueue[int] = queue.SimpleQueue()

    def note(self, text: str) -> None:
        """Records the error of a thread that watched a process."""
        if found := DEATH.search(text):
            self._statuses.put(int(found[1]))

    def first(self) -> int | None:
        """Returns the status of the first process, after a short wait for it."""
        try:
            return self._statuses.get(timeout=DEATH_S)
        except queue.Empty:
            return None


@contextmanager
def _deaths_of_workers(verbose: bool) -> Iterator[_Deaths]:
    """Records ends of worker processes, and hides tracebacks of the runner's threads from the user."""
    deaths = _Deaths()
    before = threading.excepthook

    def on_end(crash: threading.ExceptHookArgs) -> None:
        name = crash.thread.name if crash.thread is not None else ""
        deaths.note(str(crash.exc_value) if name == ENGINE_THREADS[0] else "")
        if verbose or not name.startswith(ENGINE_THREADS):
            before(crash)

    threading.excepthook = on_end
    try:
        yield deaths
    finally:
        threading.excepthook = before


def _death_of_a_worker(deaths: _Deaths, folder: str, go_on: str) -> PipelineError | None:
    """Returns the error for a worker process that died (of a bug in a library, or lack of memory)."""
    status = deaths.first()
    if stopping.asked():
        return Interrupted(f"interrupted; {go_on}")
    if status is None:
        return None
    words = last_words(folder)
    tail = f"; its last output: {words} (full log in {folder})" if words else ""
    cure = "; often caused by lack of memory: use fewer workers" if status == -signal.SIGKILL else ""
    return StoppedError(f"a worker process ended unexpectedly ({_named(status)}){cure}{tail}; {go_on}")


def _named(status: int) -> str:
    """Returns an exit status in words; real-time signals have only numbers."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
