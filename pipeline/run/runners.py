"""Which Beam runner executes the graph, with which options. The only module that names one.

`--runner=DirectRunner` means Beam's FnApiRunner in this process. Left to itself, Beam tries another
runner first: it downloads a program, and falls back without a word where it cannot, so that the same
command would use one runner online and another offline (and the other is slower here and takes three
times the memory). Every other `--runner` goes to Beam unchanged.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineRunner

from pipeline.beam_flags import with_auto_workers
from pipeline.errors import StoppedError, UsageError
from pipeline.memory_limit import lack_of_memory
from pipeline.run.failures import write_failure
from pipeline.run.worker_folder import LOUD, QUIET
from transforms.storage.options import connect, storage_flags
from transforms.storage.store import is_local

if TYPE_CHECKING:
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo

DIRECT = "DirectRunner"
DOWNLOADED = {  # runners in lower case, as Beam takes them, whose program Beam downloads, and the flag that names it
    "flinkrunner": "flink_job_server_jar",
    "sparkrunner": "spark_job_server_jar",
    "prismrunner": "prism_location",
}
FAR_AWAY = {"dataflowrunner"}  # in lower case; others may share a file system with this machine


def options_of(beam_options: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options as typed on the command line; DirectRunner if none is named.

    Raises:
        UsageError: one of them is not as Beam wants it.
    """
    usage = io.StringIO()
    try:
        with redirect_stderr(usage):  # Beam leaves through its parser, with all of its flags as usage
            options = PipelineOptions(with_auto_workers(beam_options))
            options.get_all_options()
    except SystemExit as error:
        last = usage.getvalue().strip().rpartition("error: ")[2]
        raise UsageError(f"Beam refuses its options: {last}; see its documentation, or leave them out") from error
    standard = options.view_as(StandardOptions)
    if standard.runner == "":
        raise UsageError(f"--runner is empty; give {DIRECT}, or another runner of Beam")
    standard.runner = standard.runner or DIRECT
    workers = options.view_as(DirectOptions).direct_num_workers
    if workers < 0:
        raise UsageError(f"--direct_num_workers={workers} must be a number from 1, or 0 for one a core")
    _refuse_download(options)
    return options


def connect_storage(beam_options: Sequence[str]) -> None:
    """Makes Beam's storage flags (`--s3_endpoint_url` and others) known before the first path is looked at.

    Raises:
        UsageError: Beam refuses its options.
    """
    connect(options_of(beam_options))


def _refuse_download(options: PipelineOptions) -> None:
    """Raises UsageError where Beam would fetch the runner's own program from the internet."""
    given = options.get_all_options()
    runner = str(options.view_as(StandardOptions).runner)
    flag = DOWNLOADED.get(runner.rpartition(".")[2].lower())
    if flag is None or given.get("job_endpoint"):
        return
    path = given.get(flag)
    if not path:
        raise UsageError(
            f"--runner={runner}: Beam would download this runner's program, and nothing is downloaded at run time; "
            f"give it with --{flag}=PATH, or a job server that runs with --job_endpoint=HOST:PORT"
        )
    if not os.path.isfile(path):
        raise UsageError(f"--{flag}={path}: no such file on this machine, and nothing is downloaded at run time")


def far_away(options: PipelineOptions) -> bool:
    """True if the runner's workers can never see this machine's disk."""
    return str(options.view_as(StandardOptions).runner).rpartition(".")[2].lower() in FAR_AWAY


def refuse_out_of_reach(options: PipelineOptions, paths: Mapping[str, str | None]) -> None:
    """Raises UsageError if the runner's workers can never see this machine's disk, and a path lies there.

    Args:
        options: Beam's.
        paths: by the flag or setting that gave each; None and names such as `bundled` are no paths.
    """
    if not far_away(options):
        return
    runner = str(options.view_as(StandardOptions).runner)
    for flag, path in paths.items():
        if path is not None and is_local(path):
            raise UsageError(
                f"{flag} {path}: workers of {runner} cannot see this machine's disk; give a gs:// or s3:// path"
            )


def empty_pipeline(options: PipelineOptions, *, folder: str = "", verbose: bool = False) -> beam.Pipeline:
    """Returns a pipeline without stages for this runner.

    Args:
        folder, verbose: as for `runner_of`.

    Raises:
        UsageError: Beam does not know the runner, lacks its packages, or wants other options for it.
    """
    try:
        return beam.Pipeline(runner=runner_of(options, folder=folder, verbose=verbose), options=options)
    except (ValueError, ImportError, AttributeError) as error:
        if lack := lack_of_memory(error):
            raise StoppedError(lack) from error
        raise UsageError(f"Beam refuses --runner or its options: {error}") from error


@contextmanager
def as_outside_a_notebook() -> Iterator[None]:
    """While inside, Beam builds graphs as it does outside a notebook.

    In one it would rename stages after the cell, and for that load its interactive part, which fails without pandas
    and with pandas 3.
    """
    renames = beam.pipeline.alter_label_if_ipython
    beam.pipeline.alter_label_if_ipython = lambda transform, pvalueish: None
    try:
        yield
    finally:
        beam.pipeline.alter_label_if_ipython = renames


def is_direct(options: PipelineOptions) -> bool:
    """True if the graph runs on this machine."""
    return str(options.view_as(StandardOptions).runner) in (DIRECT, "FnApiRunner")


def uses_processes(options: PipelineOptions) -> bool:
    """True if local workers are processes of their own."""
    return is_direct(options) and options.view_as(DirectOptions).direct_running_mode == "multi_processing"


def runner_of(options: PipelineOptions, *, folder: str = "", verbose: bool = False) -> PipelineRunner | str:
    """Returns what `beam.Pipeline(runner=...)` takes.

    Args:
        folder: of the worker processes' notes and last words, where workers are processes.
        verbose: what Beam writes in them reaches the user.
    """
    if not is_direct(options):
        return str(options.view_as(StandardOptions).runner)
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    if uses_processes(options):
        _let_workers_import()
        return _with_our_workers(options, folder, verbose)
    return FnApiRunner()


def _with_our_workers(options: PipelineOptions, folder: str, verbose: bool) -> PipelineRunner:
    """Returns the runner with worker processes that run `pipeline.run.worker`."""
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    words = [
        sys.executable,
        "-P",
        "-m",
        "pipeline.run.worker",
        folder or tempfile.gettempdir(),
        LOUD if verbose else QUIET,
    ]
    ours = SubprocessSDKEnvironment.from_command_string(command_string=f"exec {shlex.join(words)}")

    class WithOurWorkers(FnApiRunner):
        """Keeps its environment: Beam names its own command where workers are processes."""

        _default_environment = property(lambda _: ours, lambda *_: None)

    return WithOurWorkers(provision_info=_for_workers(options, verbose))


def work_for_beam(folder: str) -> None:
    """Is a worker process of a local run; what it shall do comes from Beam, through the environment.

    Args:
        folder: where it writes why it failed, if it does: Beam hands over no more than the text of a traceback.
    """
    from apache_beam.runners.worker import sdk_worker, sdk_worker_main

    class ThatSaysWhy(sdk_worker.SdkWorker):
        """Beam's own; every stage of this process runs below."""

        def do_instruction(self, request: Any) -> Any:
            try:
                return super().do_instruction(request)
            except BaseException as error:
                write_failure(folder, error)
                raise

    sdk_worker.SdkWorker = ThatSaysWhy
    sdk_worker_main.main([])


def _for_workers(options: PipelineOptions, verbose: bool) -> ExtendedProvisionInfo:
    """Returns the options that worker processes start with: how to reach object stores, and to log errors only."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
    from google.protobuf import struct_pb2

    given = {name: value for name, value in storage_flags(options).items() if value}
    if not verbose:  # Beam would log its comings and goings
        given["default_sdk_harness_log_level"] = "CRITICAL"
    options_proto = struct_pb2.Struct()
    options_proto.update({f"beam:option:{name}:v1": value for name, value in given.items()})
    return ExtendedProvisionInfo(
        beam_provision_api_pb2.ProvisionInfo(retrieval_token="unused", pipeline_options=options_proto)
    )


def _let_workers_import() -> None:
    """Worker processes must find the same three packages, also when this program runs from a checkout."""
    here = str(Path(__file__).parents[2])
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in known and here not in sys.path[1:]:
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, known)])
    elif here not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, known), here])
