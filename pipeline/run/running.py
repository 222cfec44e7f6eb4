"""Runs a graph on this machine or elsewhere: engine, bar, Ctrl-C, and errors in one line. Shared by the commands."""

from __future__ import annotations

import io
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

from models.backbones.backbone import BackboneError
from models.heads.outputs import HeadError
from models.runtimes.device import DeviceOutOfMemory
from pipeline.errors import Interrupted, PipelineError, StoppedError, UsageError
from pipeline.run.interrupt import interruptible
from pipeline.run.own_files import remove_own
from pipeline.run.progress import bar, totals_from
from pipeline.run.remote_job import WITHOUT_US, RemoteJob, lacks_this_program
from pipeline.run.runners import as_outside_a_notebook, empty_pipeline, is_direct, options_of, uses_processes
from pipeline.run.worker_folder import last_words, tell_to_stop
from transforms.containing import ProgramFault
from transforms.finish_run import RunStopped
from transforms.formats.publish import StorageError
from transforms.formats.records import FormatError
from transforms.formats.submission.rules import SubmissionError
from transforms.merge.account import AccountError
from transforms.storage import stopping
from transforms.storage.stopping import Stopped
from transforms.storage.store import InputFault
from transforms.tally import TALLY, Totals

Build = Callable[[beam.Pipeline], Any]


def heartbeat_folder(beam_options: Sequence[str], folder: str) -> str:
    """Returns where worker processes tell what they have done; "" where workers share this process."""
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
    job = RemoteJob(options)
    totals = job.totals if job.is_remote else totals_from(heartbeat)
    TALLY.reset()
    pipeline = empty_pipeline(options, folder=heartbeat, verbose=verbose)
    with as_outside_a_notebook():
        build(pipeline)
    with (
        interruptible(lambda: f"pipeline: interrupted; {job.words()}{go_on}", partial(_stop_workers, heartbeat, job)),
        bar(total, done=done, totals=totals, quiet=quiet),
        _deaths_of_workers(verbose) as deaths,
    ):
        try:
            result = job.begun(_started(pipeline, options))
            with job.watched():
                result.wait_until_finish()
        except BaseException as error:
            told = _told_by_the_job(job, error, go_on)
            if told is error and heartbeat:
                told = _told_by_its_death(error, deaths, heartbeat, go_on)
            if told is error:
                told = _told_of_storage(error, go_on)
            if told is error:
                raise
            raise told from error
    return totals()


def _started(pipeline: beam.Pipeline, options: PipelineOptions) -> Any:
    """Returns the job as Beam knows it; an engine elsewhere that cannot be had is told in one line."""
    try:
        return pipeline.run()
    except Exception as error:
        of_its_start = isinstance(error, RuntimeError | OSError) or type(error).__module__.startswith("grpc")
        if not of_its_start or is_direct(options) or in_one_line(error, "") is not error:
            raise
        name = options.view_as(StandardOptions).runner
        text = " ".join(str(error).split()) or type(error).__name__
        raise StoppedError(f"--runner={name}: Beam cannot start the job there: {text}") from error


def _stop_workers(folder: str, job: RemoteJob) -> None:
    job.cancel()
    if folder:
        tell_to_stop(folder)


def _told_by_the_job(job: RemoteJob, error: BaseException, go_on: str) -> BaseException:
    """Returns what to end with, where the job's state says more than the runner's error does."""
    if job.is_remote and stopping.asked():
        return Interrupted(f"interrupted; {job.words()}{go_on}")
    if job.fault or (job.is_remote and lacks_this_program(str(error))):
        return StoppedError(f"{job.fault or WITHOUT_US}; {go_on}")
    told = in_one_line(error, go_on)
    of_the_runner = isinstance(error, RuntimeError) or type(error).__module__.startswith("grpc")
    if told is error and job.is_remote and isinstance(error, Exception) and of_the_runner:
        return StoppedError(f"{job.failed(error)}; {go_on}")
    return told


ENGINE_THREADS = ("run_worker", "beam_control_read", "read_grpc_client_inputs")  # what they die of, the run dies of too
DEATH = re.compile(r"exited with return code (-?\d+)")
DEATH_S = 3.0  # within which a lost connection is explained by the end of a process


class _Deaths:
    """Exit statuses of worker processes that ended before their time; negative for a signal."""

    def __init__(self) -> None:
        self._statuses: queue.SimpleQueue[int] = queue.SimpleQueue()

    def note(self, text: str) -> None:
        """Takes what a thread that watched over a process died of."""
        if found := DEATH.search(text):
            self._statuses.put(int(found[1]))

    def first(self) -> int | None:
        """Returns the status of the first, waiting a little for it."""
        try:
            return self._statuses.get(timeout=DEATH_S)
        except queue.Empty:
            return None


@contextmanager
def _deaths_of_workers(verbose: bool) -> Iterator[_Deaths]:
    """Notes ends of worker processes, and keeps the tracebacks of the engine's own threads from the user."""
    deaths = _Deaths()
    before = threading.excepthook

    def on_end(told: threading.ExceptHookArgs) -> None:
        name = told.thread.name if told.thread is not None else ""
        deaths.note(str(told.exc_value) if name == ENGINE_THREADS[0] else "")
        if verbose or not name.startswith(ENGINE_THREADS):
            before(told)

    threading.excepthook = on_end
    try:
        yield deaths
    finally:
        threading.excepthook = before


def _told_by_its_death(error: BaseException, deaths: _Deaths, folder: str, go_on: str) -> BaseException:
    """Returns what to end with where a worker process died (of a bug in a library, or for want of memory)."""
    status = deaths.first()
    if stopping.asked():
        return Interrupted(f"interrupted; {go_on}")
    if status is None:
        return error
    words = last_words(folder)
    said = f"; its last words: {words} (all of them in {folder})" if words else ""
    cure = "; often for want of memory: give fewer workers" if status == -signal.SIGKILL else ""
    return StoppedError(f"a worker process ended before its time ({_named(status)}){cure}{said}; {go_on}")


def _named(status: int) -> str:
    """Returns an exit status in words; signals for real-time uses have numbers only."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


KNOWN = (
    PipelineError,
    FormatError,
    Stopped,
    RunStopped,
    AccountError,
    StorageError,
    InputFault,
    DeviceOutOfMemory,
    ProgramFault,
    BackboneError,
    HeadError,
    MemoryError,
)
LESS_MEMORY = "fewer read.threads, a smaller read.block_images or faces.max_faces take less"
WHERE = " [while running"  # Beam's addition to a message
NAMED_ERROR = re.compile(r"^(?:RuntimeError: )?(?P<name>[\w.]+): (?P<text>.+)$", re.MULTILINE)


def in_one_line(error: BaseException, go_on: str) -> BaseException:
    """Returns what the command should end with: the first error of ours under what the engine made of it."""
    kind, text = _first_of_ours(error) or _told_by_a_worker(str(error)) or (type(error), "")
    if issubclass(kind, Stopped | KeyboardInterrupt | Interrupted):
        return Interrupted(f"interrupted; {go_on}")
    if not issubclass(kind, KNOWN):
        return error
    if issubclass(kind, UsageError | BackboneError | HeadError | SubmissionError):
        return UsageError(text)
    if issubclass(kind, MemoryError):
        return StoppedError(f"{text or 'no memory'}; {LESS_MEMORY}; {go_on}")
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
    """Returns kind and text of the outermost error of ours in a traceback: all that a worker process hands over.

    Tracebacks begin with the cause, so the outermost error is the last.
    """
    kinds = _by_name(KNOWN)
    ours = [found for found in NAMED_ERROR.finditer(text) if found["name"] in kinds]
    return (kinds[ours[-1]["name"]], ours[-1]["text"].split(WHERE)[0]) if ours else None


def _told_of_storage(error: BaseException, go_on: str) -> BaseException:
    """Returns what to end with where a stage ended of an error of the system that none of ours has named.

    The last resort, behind the ends of workers: a lost connection to one is such an error too. What is raised while
    such an error is handled is another one, and stays what it is.
    """
    if isinstance(error, OSError):
        found: tuple[type[BaseException], str] | None = (type(error), str(error) or type(error).__name__)
    else:
        kinds = _by_name((OSError,))
        named = list(NAMED_ERROR.finditer(str(error)))  # the outermost error is the last
        found = (kinds[named[-1]["name"]], named[-1]["text"]) if named and named[-1]["name"] in kinds else None
    if found is None or issubclass(found[0], io.UnsupportedOperation):  # that is a bug of the caller
        return error
    return StoppedError(f"{' '.join(found[1].split(WHERE)[0].split())}; once that is cured, {go_on}")


def _by_name(kinds: Sequence[type[BaseException]]) -> dict[str, type[BaseException]]:
    """Returns the kinds and all below them by the names that tracebacks show."""
    found = set(_with_subclasses(kinds))
    return {
        kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}": kind
        for kind in found
    }


def _with_subclasses(kinds: Sequence[type[BaseException]]) -> Iterator[type[BaseException]]:
    for kind in kinds:
        yield kind
        yield from _with_subclasses(kind.__subclasses__())
