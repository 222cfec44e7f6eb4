"""Runner, bar, Ctrl-C, and errors in one line."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner

from models.backbones.backbone import BackboneError
from models.heads.outputs import HeadMismatch
from models.runtimes.device import DeviceOutOfMemory
from pipeline.errors import Interrupted, PipelineError, StoppedError, UsageError
from pipeline.run import interrupt, runners, running
from pipeline.run.failures import Failure, FailureKind, failure_of, read_failure, write_failure
from pipeline.run.progress import bar, totals_from
from pipeline.run.remote_job import RemoteJob
from pipeline.run.runners import is_direct, options_of, runner_of, uses_processes
from pipeline.run.running import heartbeat_folder, run_graph
from pipeline.run.worker_folder import tell_to_stop
from transforms.finish_run import RunStopped
from transforms.formats.parts import DamagedPart
from transforms.formats.publish import StorageError
from transforms.formats.submission.write import UnlabelledImages
from transforms.storage import stopping
from transforms.storage.retrying import with_retries
from transforms.storage.stopping import Stopped
from transforms.storage.store import InputFault
from transforms.tally import TALLY, Totals

PROCESSES = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
DEAD = 2**22 + 1  # no process has such a number


@pytest.fixture(autouse=True)
def _no_stop_is_left() -> Iterator[None]:
    yield
    stopping.forget()


# --- engines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed", [[], ["--runner=DirectRunner"], ["--runner", "DirectRunner"], ["--runner=FnApiRunner"]]
)
def test_a_local_run_is_always_the_same_engine(typed: list[str]) -> None:
    options = options_of(typed)
    assert is_direct(options)
    assert not uses_processes(options)
    assert type(runner_of(options)) is FnApiRunner


@pytest.mark.parametrize("typed, words", [("--direct_num_workers=abc", "invalid int value: 'abc'")])
def test_options_that_beam_refuses_are_one_line(typed: str, words: str, capsys: Any) -> None:
    with pytest.raises(UsageError, match=rf"Beam refuses its options: .*{words}"):
        options_of([typed])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "typed, words",
    [
        (["--runner="], "--runner is empty; give DirectRunner"),
        (["--runner", ""], "--runner is empty"),
        (["--direct_num_workers=-3"], "--direct_num_workers=-3 must be a number from 1, or 0 for one a core"),
    ],
)
def test_options_that_beam_would_take_and_fall_over_are_one_line(typed: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        options_of(typed)


@pytest.mark.parametrize(
    "runner, flag",
    [
        ("FlinkRunner", "flink_job_server_jar"),
        ("flinkrunner", "flink_job_server_jar"),
        ("apache_beam.runners.portability.flink_runner.FlinkRunner", "flink_job_server_jar"),
        ("SparkRunner", "spark_job_server_jar"),
        ("PrismRunner", "prism_location"),
    ],
)
def test_a_runner_whose_program_beam_would_download_is_refused(runner: str, flag: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"nothing is downloaded at run time; give it with --{flag}=PATH"):
        options_of([f"--runner={runner}"])
    for place in ("https://repo.invalid/a.jar", str(tmp_path / "gone.jar")):
        with pytest.raises(UsageError, match=rf"--{flag}={place}: no such file on this machine"):
            options_of([f"--runner={runner}", f"--{flag}={place}"])
    (tmp_path / "server.jar").touch()
    assert options_of([f"--runner={runner}", f"--{flag}={tmp_path / 'server.jar'}"])
    assert options_of([f"--runner={runner}", "--job_endpoint=localhost:8099"])


@pytest.mark.parametrize(
    "name, words",
    [
        ("Foo", "Unexpected pipeline runner: Foo"),
        ("no.such.Runner", "No module named 'no'"),
        ("json.Runner", "Runner"),
        ("DataflowRunner", "project"),
    ],
)
def test_an_engine_that_beam_cannot_make_is_one_line(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"(?s)Beam refuses --runner or its options: .*{words}"):
        run_graph(
            lambda root: None, [f"--runner={name}"], heartbeat="", total=0, done=0, quiet=True, verbose=False, go_on=""
        )


class NoJobServer(PipelineRunner):
    """A runner whose job server cannot be had."""

    def run_pipeline(self, pipeline: Any, options: Any) -> Any:
        raise RuntimeError("Unable to fetch remote job server jar\nat some address")


def test_an_engine_elsewhere_that_cannot_be_had_is_one_line() -> None:
    name = f"{__name__}.NoJobServer"
    words = (
        r"NoJobServer: Beam cannot start the job there: Unable to fetch remote job server jar at some address; again"
    )
    runner = [f"--runner={name}"]
    with pytest.raises(StoppedError, match=words):
        run_graph(lambda root: None, runner, heartbeat="", total=0, done=0, quiet=True, verbose=False, go_on="again")


@pytest.mark.parametrize("name", ["DataflowRunner", "FlinkRunner", "PortableRunner", "SparkRunner"])
def test_any_other_engine_goes_to_beam_as_it_was_typed(name: str) -> None:
    options = options_of([f"--runner={name}", "--direct_running_mode=multi_processing", "--job_endpoint=localhost:1"])
    assert runner_of(options) == options.view_as(StandardOptions).runner == name
    assert not uses_processes(options)


def test_worker_processes_find_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    options = options_of(PROCESSES)
    assert uses_processes(options)
    assert options.view_as(DirectOptions).direct_num_workers == 2
    assert isinstance(runner_of(options), FnApiRunner)
    assert set(os.environ["PYTHONPATH"].split(os.pathsep)) == {str(Path(__file__).parents[1]), "elsewhere"}
    runner_of(options)
    assert len(os.environ["PYTHONPATH"].split(os.pathsep)) == 2


def test_worker_processes_tell_of_themselves_through_a_folder(tmp_path: Path) -> None:
    assert heartbeat_folder([], str(tmp_path)) == ""
    (tmp_path / "heartbeats").mkdir()
    (tmp_path / "heartbeats" / "worker-1.json").write_text(json.dumps({"images": 5}))
    tell_to_stop(str(tmp_path / "heartbeats"))  # an interrupted run must not stop the one that goes on
    folder = heartbeat_folder(PROCESSES, str(tmp_path))
    assert (folder, os.listdir(folder)) == (str(tmp_path / "heartbeats"), [])


@pytest.mark.parametrize("verbose, manner", [(False, "quiet"), (True, "loud")])
def test_worker_processes_run_our_own_command(tmp_path: Path, verbose: bool, manner: str) -> None:
    folder = str(tmp_path / "with spaces; and 'quotes'")
    runner = runner_of(options_of(PROCESSES), folder=folder, verbose=verbose)
    runner._default_environment = "what Beam would set"
    command = runner._default_environment.command_string
    assert shlex.split(command) == ["exec", sys.executable, "-P", "-m", "pipeline.run.worker", folder, manner]


@pytest.mark.parametrize("verbose", [False, True])
def test_worker_processes_are_told_how_to_reach_the_store(verbose: bool) -> None:
    options = options_of([*PROCESSES, "--s3_endpoint_url=http://here:1", "--s3_secret_access_key=y"])
    reported = dict(runners._for_workers(options, verbose).provision_info.pipeline_options)
    assert reported.pop("beam:option:s3_endpoint_url:v1") == "http://here:1"
    assert reported.pop("beam:option:s3_secret_access_key:v1") == "y"
    assert reported == ({} if verbose else {"beam:option:default_sdk_harness_log_level:v1": "CRITICAL"})


# --- a run ------------------------------------------------------------------------------------------------------------


class Count(beam.DoFn):
    def process(self, images: int) -> Iterator[int]:
        TALLY.add_block(images=images, faces=2, rejected=1, cached=0)
        yield images


class Fail(beam.DoFn):
    def __init__(self, *given: Any) -> None:
        self._given = given

    def process(self, _: int) -> Iterator[int]:
        kind, *arguments = self._given
        raise kind(*arguments)
        yield 0


class FailBehindAnother(beam.DoFn):
    """Raises one of ours on the way out of an error of somebody else's, whose chain of causes is a ring."""

    def process(self, _: int) -> Iterator[int]:
        ring = ValueError("a library's own")
        ring.__cause__ = ring
        raise ring
        yield 0


def run(stage: beam.DoFn, *, quiet: bool = True) -> Totals:
    return run_graph(
        lambda root: root | beam.Create([3]) | beam.ParDo(stage),
        [],
        heartbeat="",
        total=None,
        done=0,
        quiet=quiet,
        verbose=False,
        go_on="the same command goes on",
    )


def test_a_run_gives_its_own_totals() -> None:
    TALLY.add_block(images=100, faces=100, rejected=0, cached=0)
    totals = run(Count())
    assert (totals.images, totals.faces, totals.rejected, totals.blocks) == (3, 2, 1, 1)


@pytest.mark.parametrize(
    "given, kind, words",
    [
        ((InputFault, "a.jpg cannot be opened"), StoppedError, "a.jpg cannot be opened; the same command goes on"),
        (
            (StorageError, errno.ENOSPC, "cannot write x: No space left on device; free space there"),
            StoppedError,
            "cannot write x: No space left on device; free space there; the same command goes on",
        ),
        ((DamagedPart, "part x is damaged"), StoppedError, "part x is damaged; the same command goes on"),
        ((RunStopped, "too many rejected"), StoppedError, "too many rejected; the same command goes on"),
        (
            (MemoryError, "no memory to decode"),
            StoppedError,
            "no memory to decode; fewer read.threads, a smaller read.block_images or faces.max_faces need less memory; "
            "the same command goes on",
        ),
        ((DeviceOutOfMemory, "no memory"), StoppedError, "no memory; the same command goes on"),
        ((Stopped, "stopped on request"), Interrupted, "interrupted; the same command goes on"),
        ((BackboneError, "no such weights"), UsageError, "no such weights"),
        ((HeadMismatch, "made for others"), UsageError, "made for others"),
    ],
)
def test_a_fault_in_a_stage_becomes_one_line(given: tuple[Any, ...], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as ended:
        run(Fail(*given))
    assert type(ended.value) is kind
    assert str(ended.value) == words


def test_an_error_that_is_not_ours_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run(Fail(ZeroDivisionError, "a bug"))


def test_a_ring_of_causes_does_not_hang() -> None:
    with pytest.raises(ValueError, match="a library's own"):
        run(FailBehindAnother())


class Refused(beam.DoFn):
    """Meets storage that stays faulty and says nothing of its own."""

    def __init__(self, *given: Any) -> None:
        self._given = given

    def process(self, _: int) -> Iterator[int]:
        yield with_retries(self._fail)

    def _fail(self) -> int:
        raise OSError(*self._given)


@pytest.mark.parametrize(
    "given, words",
    [
        ((errno.EACCES, "Permission denied", "parts/x"), "[Errno 13] Permission denied: 'parts/x'"),
        ((errno.EIO, "Input/output error"), "[Errno 5] Input/output error"),
        (("a server's\nwords",), "a server's words"),
    ],
)
def test_storage_that_nobody_named_ends_in_one_line_too(given: tuple[Any, ...], words: str) -> None:
    with pytest.raises(StoppedError) as ended:
        run(Refused(*given))
    assert str(ended.value) == f"{words}; once that is fixed, the same command goes on"
    assert ended.value.exit_status == 3


def test_so_it_does_in_a_worker_process(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    with pytest.raises(StoppedError) as ended:
        run_graph(
            lambda root: root | beam.Create([gone]) | beam.Map(os.listdir),
            ["--direct_running_mode=multi_processing", "--direct_num_workers=1"],
            heartbeat=str(tmp_path),
            total=None,
            done=0,
            quiet=True,
            verbose=False,
            go_on="the same command goes on",
        )
    assert str(ended.value) == (
        f"[Errno 2] No such file or directory: '{gone}'; once that is fixed, the same command goes on"
    )


class FailInHandling(Refused):
    def process(self, element: int) -> Iterator[int]:
        try:
            yield from super().process(element)
        except OSError:
            raise ZeroDivisionError("a bug")  # noqa: B904 - the chain is the point


def test_a_bug_behind_a_fault_of_storage_stays_a_bug() -> None:
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run(FailInHandling(errno.EACCES, "Permission denied"))
    with pytest.raises(io.UnsupportedOperation):
        run(Fail(io.UnsupportedOperation, "not writable"))


def behind(cause: BaseException, error: BaseException) -> BaseException:
    """Returns an error as if it was raised while `cause` was handled."""
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    "error, kind, words",
    [
        (InputFault("a.jpg is gone [while running 'ReadBlocks']"), StoppedError, "a.jpg is gone; "),
        (behind(StorageError(28, "disk full"), RuntimeError("as Beam says it")), StoppedError, "disk full; "),
        (DamagedPart("part x [while running 'FinishRun']"), StoppedError, "part x; "),
        (Stopped("stopped on request [while running 'CropFaces']"), Interrupted, "interrupted; "),
        (BackboneError("no weights [while running 'ExtractFeatures']"), UsageError, "no weights"),
        (
            behind(
                UnlabelledImages("no label"), RunStopped("no label; tables are written [while running 'FinishRun']")
            ),
            StoppedError,
            "no label; tables are written; ",
        ),
        (ZeroDivisionError("a bug [while running 'CropFaces']"), RuntimeError, "Traceback"),
        (
            PermissionError(errno.EACCES, "Permission denied", "x"),
            StoppedError,
            "[Errno 13] Permission denied: 'x'; once that is fixed, ",
        ),
        (OSError(5, "Input/output error"), StoppedError, "[Errno 5] Input/output error; once that is fixed, "),
        (behind(PermissionError(13, "Permission denied"), ZeroDivisionError("a bug")), RuntimeError, "Traceback"),
    ],
)
def test_what_a_worker_process_tells_is_understood(
    error: BaseException, kind: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Beam hands over the text of a traceback, nothing else
    monkeypatch.setattr("pipeline.run.running.DEATH_S", 0.01)
    write_failure(str(tmp_path), error)
    write_failure(str(tmp_path), ValueError("what follows from it"))
    text = 'Traceback (most recent call last):\n  File "x.py", line 3, in f\nSome: text'
    with pytest.raises(kind) as ended:
        run_with_workers(Fail(RuntimeError, text), tmp_path)
    assert type(ended.value) is kind
    assert str(ended.value).startswith(words)


def test_a_failure_names_what_was_in_hand(tmp_path: Path) -> None:
    for error, item in (
        (PermissionError(13, "Permission denied", "a/b.jpg"), "a/b.jpg"),
        (DamagedPart("part x is damaged", path="parts/x"), "parts/x"),
        (MemoryError("no memory [while running 'DetectFaces']"), "DetectFaces"),
        (ZeroDivisionError("a bug"), ""),
    ):
        assert failure_of(error).item == item
    assert read_failure(str(tmp_path)) is None
    write_failure(str(tmp_path), InputFault("a.jpg is gone [while running 'ReadBlocks']"))
    assert json.loads((tmp_path / "failure.json").read_text()) == {
        "kind": "stopped",
        "text": "a.jpg is gone",
        "item": "ReadBlocks",
    }
    assert read_failure(str(tmp_path)) == Failure(FailureKind.STOPPED, "a.jpg is gone", "ReadBlocks")
    (tmp_path / "failure.json").write_text('{"kind": "other"}')
    assert read_failure(str(tmp_path)) is None


@pytest.mark.parametrize(
    "last, kind, words",
    [
        (
            "transforms.storage.faults.InputFault: a.jpg is gone [while running 'ReadBlocks']",
            StoppedError,
            "a.jpg is gone; the same command goes on",
        ),
        (
            "RuntimeError: transforms.formats.publish.StorageError: disk full [while running 'W']",
            StoppedError,
            "disk full; the same command goes on",
        ),
        ("models.backbones.backbone.BackboneError: no weights [while running 'X']", UsageError, "no weights"),
        (  # causes come first
            "transforms.storage.store.InputFault: x\n\nThe above exception was the direct cause ...\n"
            "transforms.finish_run.RunStopped: too many rejected [while running 'FinishRun']",
            StoppedError,
            "too many rejected; the same command goes on",
        ),
        (
            "zip.Bad: a [while running 'b']",
            StoppedError,
            "job there failed on FlinkRunner: Pipeline 7 failed: Traceback (most recent call last): File x "
            "zip.Bad: a [while running 'b']; the same command goes on",
        ),
    ],
)
def test_a_job_that_fails_elsewhere_ends_in_one_line(last: str, kind: type[PipelineError], words: str) -> None:
    # such a runner hands over the text of a traceback, and no worker has a folder to write into
    error = RuntimeError(f"Pipeline 7 failed:\nTraceback (most recent call last):\n  File x\n{last}\n\n")
    job = RemoteJob(options_of(["--runner=FlinkRunner", "--job_endpoint=there:8099"]))
    ended = running._ended(error, job, running._Deaths(), "", "the same command goes on")
    assert type(ended) is kind
    assert str(ended) == words


# --- worker processes -------------------------------------------------------------------------------------------------


class Die(beam.DoFn):
    """A bundle whose worker process is gone: a thread of the runner dies of that, and the run of a lost connection."""

    def __init__(self, thread: str, words: str) -> None:
        self._thread, self._words = thread, words

    def process(self, _: int) -> Iterator[int]:
        def end() -> None:
            raise RuntimeError(self._words)

        thread = threading.Thread(target=end, name=self._thread)
        thread.start()
        thread.join()
        raise RuntimeError("Channel closed prematurely.")
        yield 0


def run_with_workers(stage: beam.DoFn, folder: Path) -> None:
    run_graph(
        lambda root: root | beam.Create([3]) | beam.ParDo(stage),
        [],
        heartbeat=str(folder),
        total=None,
        done=0,
        quiet=True,
        verbose=False,
        go_on="the same command goes on",
    )


@pytest.mark.parametrize(
    "status, log, words",
    [
        (
            -11,
            "Fatal Python error: Segmentation fault\n\nThread",
            "(SIGSEGV); its last output: Fatal Python error: Segm",
        ),
        (-9, "", "(SIGKILL); often caused by lack of memory: use fewer workers; the same command goes on"),
        (-40, "", "(signal 40); the same command goes on"),  # one without a name
        (7, "INFO: hello\ndouble free", "(exit status 7); its last output: double free (full log in "),
    ],
)
def test_the_end_of_a_worker_process_is_told_in_one_line(
    tmp_path: Path, capfd: Any, status: int, log: str, words: str
) -> None:
    (tmp_path / f"worker-{DEAD}.log").write_text(log)
    with pytest.raises(StoppedError) as ended:
        run_with_workers(Die("run_worker", f"Worker subprocess exited with return code {status}"), tmp_path)
    assert words in str(ended.value)
    assert str(ended.value).endswith("; the same command goes on")
    assert "Traceback" not in capfd.readouterr().err


def test_another_thread_that_dies_is_told_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.run.running.DEATH_S", 0.01)
    reported: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda given: reported.append(str(given.exc_value)))
    with pytest.raises(RuntimeError, match="Channel closed"):
        run_with_workers(Die("mine", "a bug"), tmp_path)
    assert reported == ["a bug"]


def test_a_worker_that_ended_because_of_a_stop_is_an_interruption(tmp_path: Path) -> None:
    class StopAndDie(Die):
        def process(self, element: int) -> Iterator[int]:
            stopping.ask_to_stop()
            yield from super().process(element)

    with pytest.raises(Interrupted):
        run_with_workers(StopAndDie("run_worker", "exited with return code 130"), tmp_path)


# --- the bar ----------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_counts_from_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    now = Totals(images=30, faces=25, rejected=2, cached=7)
    with bar(100, done=40, totals=lambda: now, quiet=False):
        pass
    drawn = terminal.getvalue()
    assert "40/100" in drawn
    assert "70/100" in drawn
    assert "faces=25" in drawn
    assert "rejected=2" in drawn
    assert "cached=7" in drawn


def test_the_bar_says_what_is_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr("pipeline.run.progress.HEARTBEAT_S", 0.01)
    states = iter([Totals(loading="TensorFlow"), Totals(images=3)])
    seen = threading.Event()

    def totals() -> Totals:
        now = next(states, None)
        if now is None:
            seen.set()
        return now or Totals(images=3)

    with bar(100, done=0, totals=totals, quiet=False):
        assert seen.wait(10)
    drawn = terminal.getvalue().split("\r")
    assert ["loading TensorFlow" in line for line in (drawn[1], drawn[-1])] == [False, False]
    assert any(line.startswith("loading TensorFlow: ") for line in drawn)


def test_the_bar_moves_while_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("pipeline.run.progress.HEARTBEAT_S", 0.01)
    asked = threading.Event()

    def totals() -> Totals:
        asked.set()
        return Totals()

    with bar(None, done=0, totals=totals, quiet=False):
        assert asked.wait(10)
    assert not [thread for thread in threading.enumerate() if thread.name == "bar"]


@pytest.mark.parametrize("quiet, stream", [(True, Terminal), (False, io.StringIO)])
def test_there_is_no_bar_where_nobody_watches(
    monkeypatch: pytest.MonkeyPatch, quiet: bool, stream: type[io.StringIO]
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := stream())
    with bar(100, done=0, totals=lambda: pytest.fail("nobody asks"), quiet=quiet):
        pass
    assert terminal.getvalue() == ""


def test_the_bar_ends_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(OSError, match="disk full"), bar(None, done=0, totals=Totals, quiet=False):
        raise OSError("disk full")
    assert not [thread for thread in threading.enumerate() if thread.name == "bar"]


def test_totals_come_from_this_process_or_from_the_workers_files(tmp_path: Path) -> None:
    TALLY.reset()
    TALLY.add_block(images=4, faces=0, rejected=0, cached=0)
    (tmp_path / "worker-1.json").write_text('{"images": 5}')
    assert totals_from("")().images == 4
    assert totals_from(str(tmp_path))().images == 5


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


class Left(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit statuses with which the process would have ended."""
    left: list[int] = []

    def leave(status: int) -> None:
        left.append(status)
        if threading.current_thread() is threading.main_thread():
            raise Left

    monkeypatch.setattr(os, "_exit", leave)
    return left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_the_stages_to_stop(number: int, exits: list[int], capfd: Any) -> None:
    before = signal.getsignal(number)
    with interrupt.interruptible(lambda: "last words"):
        stopping.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped):
            stopping.check()
    assert signal.getsignal(number) is before
    assert exits == []
    assert "stopping after the current step" in capfd.readouterr().err
    assert not [t for t in threading.enumerate() if isinstance(t, threading.Timer) and not t.finished.is_set()]


def test_nohup_is_heeded(exits: list[int]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt.interruptible(lambda: "last words"):
            os.kill(os.getpid(), signal.SIGHUP)
            stopping.check()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert exits == []


def test_a_signal_is_told_to_the_other_processes_of_the_run(exits: list[int]) -> None:
    reported: list[int] = []

    def tell() -> None:
        reported.append(1)
        raise OSError("the folder is gone")

    with interrupt.interruptible(lambda: "last words", tell):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped):
            stopping.check()
    assert reported == [1]


def test_the_second_signal_leaves_at_once_with_last_words(exits: list[int], capfd: Any) -> None:
    with contextlib.suppress(Left), interrupt.interruptible(lambda: "the same command goes on"):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it stayed")
    assert exits == [130]
    assert "the same command goes on\n" in capfd.readouterr().err


def test_patience_has_an_end(exits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "PATIENCE_S", 0.01)
    with interrupt.interruptible(lambda: "last words"):
        os.kill(os.getpid(), signal.SIGINT)
        end = time.monotonic() + 10
        while not exits and time.monotonic() < end:
            time.sleep(0.01)
    assert exits == [130]


def test_a_new_run_forgets_the_stop_of_the_one_before(exits: list[int]) -> None:
    stopping.ask_to_stop()
    with interrupt.interruptible(lambda: ""):
        stopping.check()


def test_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with interrupt.interruptible(lambda: ""):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
