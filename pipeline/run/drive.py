"""One run in an output folder, for every command that starts Beam: plan, resume, job, graph, checks.

Not here: the stages (`graph.py`), how a graph is executed (`running.py`), and whose an output folder is
(`output_folder.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import apache_beam as beam

from pipeline import __version__
from pipeline.errors import StoppedError
from pipeline.run import graph
from pipeline.run.output_folder import OutputFolder, Progress
from pipeline.run.own_files import remove_own
from pipeline.run.parts_so_far import PartsSoFar
from pipeline.run.plan import Layout, Plan, make_plan
from pipeline.run.runners import is_direct, options_of
from pipeline.run.running import heartbeat_folder, run_graph
from pipeline.run.staging import Staging
from transforms.check_workers import CheckWorkers
from transforms.merge_request import MergeRequest
from transforms.tally import Totals

if TYPE_CHECKING:
    from models.heads.outputs import Head
    from pipeline.commands.command import Context
    from transforms.job import Job


@dataclass(frozen=True, slots=True)
class Execution:
    """How graphs are executed.

    Attributes:
        beam_options: flags for Beam as typed.
        quiet: True for no bar. verbose: True for log lines.
    """

    beam_options: tuple[str, ...] = ()
    quiet: bool = False
    verbose: bool = False


def execution_of(context: Context) -> Execution:
    """Returns how the user wants graphs to be executed."""
    return Execution(context.beam_options, quiet=context.quiet, verbose=context.verbose)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be run, and where.

    Attributes:
        folder: of the run; the caller holds its lock.
        identity: all that the results depend on, as `folder` keeps it.
        inputs: patterns. flag: that they came by, for errors.
        job: settings of the stages, without a folder of heartbeats.
        replaces: True to remove what another run left in `folder`; else it is refused.
        go_on: how to continue after an interruption, for the last words.
    """

    folder: OutputFolder
    identity: dict[str, Any]
    inputs: tuple[str, ...]
    job: Job
    flag: str = "--input"
    replaces: bool = False
    go_on: str = "run the same command to resume; progress is saved"


@dataclass(frozen=True, slots=True)
class Ready:
    """All that is known when the graph is built: the settings of the stages, the plan, and what of it is done.

    Attributes:
        staging: takes files to workers of a remote runner; None for a local run.
    """

    folder: OutputFolder
    job: Job
    plan: Plan
    progress: Progress
    staging: Staging | None = None

    def travelling(self, request: MergeRequest) -> MergeRequest:
        """Returns the request as workers can use it."""
        return request if self.staging is None else self.staging.request(request)


Stages = Callable[[beam.Pipeline, Ready], Any]  # adds them to a pipeline
ON_WORKERS = (graph.__name__, "pipeline.report.run_report")  # modules that import all that workers need


@dataclass(frozen=True, slots=True)
class Driven:
    """How a run ended.

    Attributes:
        plan: of its inputs.
        record: `run.json`; None for stages that write none.
        before: True if an earlier run had finished it all.
    """

    plan: Plan
    record: dict[str, Any] | None
    before: bool = False


def drive(
    task: Task, stages: Stages, execution: Execution, *, check: Callable[[Plan], None] = lambda plan: None
) -> Driven:
    """Runs the stages over all blocks that are not finished yet.

    Args:
        check: looks at the plan before the folder becomes this run's, and raises if it does not suit.

    Raises:
        UsageError: the folder is another run's, or there is no input.
        StoppedError, Interrupted: as `run_graph`; the same command continues.
    """
    folder, job = task.folder, task.job
    if task.replaces and folder.identity() not in (None, task.identity):
        folder.clear()  # of other features or of another head; the cache holds the expensive part
    record = folder.record()
    layout, own = Layout(job.reading.block_images, job.reading.block_bytes), (folder.place, job.cache.root)
    plan = make_plan(task.inputs, folder.plan, layout, job.reading.limits, flag=task.flag, own=own)
    if record is not None and record["inputs_digest"] == plan.inputs_digest and folder.is_whole(record):
        return Driven(plan, record, before=True)
    check(plan)
    folder.prepare(task.identity)  # from here on the folder is this run's; a refusal above claims nothing
    job = replace(job, heartbeat=heartbeat_folder(execution.beam_options, folder.path))
    staging = None if is_direct(options_of(execution.beam_options)) else Staging(folder.place)
    job = replace(job, hints=()) if staging is None else staging.job(job)  # one machine gives no stage another worker
    if staging is not None:
        staging.forget()
    ready = Ready(folder, job, plan, folder.progress(plan), staging)
    finished = Totals if staging is None else PartsSoFar(folder.place_of_parts).totals
    run_graph(
        partial(_build, stages, ready),
        execution.beam_options,
        heartbeat=job.heartbeat,
        total=None if plan.streamed else plan.images,
        done=ready.progress.images_done,
        quiet=execution.quiet,
        verbose=execution.verbose,
        go_on=task.go_on,
        complaint=(lambda: "") if staging is None else staging.complaint,
        finished=finished,
    )
    with suppress(OSError):  # results are complete, and the next run removes them too
        remove_own(folder.path, ("heartbeats",), ())
    return Driven(plan, folder.record())


def _build(stages: Stages, ready: Ready, root: beam.Pipeline) -> None:
    """Adds the stages, and first a question to workers elsewhere."""
    if ready.staging is not None:
        error = f"{StoppedError.__module__}.{StoppedError.__qualname__}"
        root | "CheckWorkers" >> CheckWorkers(ready.staging.place, ON_WORKERS, __version__, error)
    stages(root, ready)


def recorded(driven: Driven, folder: OutputFolder) -> dict[str, Any]:
    """Returns `run.json`, which the stages of a labelling write last.

    Raises:
        StoppedError: they did not.
    """
    if driven.record is None:
        raise StoppedError(
            f"the runner ended, but {folder.record_file} was not written; run the same command to resume"
        )
    return driven.record


def label_stages(request: Callable[[Ready], MergeRequest]) -> Stages:
    """Returns the stages that label.

    Args:
        request: returns what the last stage has to know.
    """

    def build(root: beam.Pipeline, ready: Ready) -> Any:
        return graph.label(root, ready.progress.missing, ready.job, ready.travelling(request(ready)))

    return build


def merge_request(ready: Ready, head: Head, *, started: float, rows_per_file: int, **wanted: Any) -> MergeRequest:
    """Returns what the last stage of a labelling has to know.

    Args:
        started: seconds since the epoch.
        wanted: further fields: submission, page, limit, and what of `run.json` is known beforehand.
    """
    return MergeRequest(
        output=ready.folder.place,
        parts=ready.job.writing.parts,
        spec=head.output,
        exif=ready.job.reading.exif,
        run_fingerprint=ready.job.writing.run_fingerprint,
        rows_per_file=rows_per_file,
        expected_images=ready.plan.images,
        streams=tuple(ready.plan.streams()),
        started=started,
        heartbeat=ready.job.heartbeat,
        **wanted,
    )
