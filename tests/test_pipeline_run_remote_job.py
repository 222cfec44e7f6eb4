"""A job on a runner elsewhere: Ctrl-C, progress, errors in one line. The runner here is a stand-in in this process."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from apache_beam.metrics.execution import MetricKey, MetricResult
from apache_beam.metrics.metricbase import MetricName
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.portable_runner import PipelineResult
from apache_beam.runners.runner import PipelineRunner

from pipeline.errors import StoppedError, UsageError
from pipeline.run import remote_job
from pipeline.run.runners import options_of, refuse_out_of_reach
from pipeline.run.running import run_graph
from transforms.storage import stopping
from transforms.tally import Totals


class Job:
    """A runner's handle of a job that works until it is cancelled or a test ends it."""

    def __init__(
        self,
        *,
        cancels: bool = True,
        answers_after_s: float = 0.0,
        says: tuple[str, ...] = (),
        fails: str = "",
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self._job_id = "job-7"
        self._messages = [Message(text) for text in says]
        self._cancels, self._fails, self._meanwhile = cancels, fails, meanwhile
        self._answers_after_s = answers_after_s
        self.ended = threading.Event()
        self.state = "RUNNING"
        self.counts: dict[str, int] = {}
        if fails:
            self.ended.set()

    def cancel(self) -> None:
        if not self._cancels:
            raise RuntimeError("UNAVAILABLE")
        self.state = "CANCELLED"
        self.ended.set()
        time.sleep(self._answers_after_s)

    def wait_until_finish(self) -> str:
        threading.Timer(0.2, self._meanwhile).start()
        while not self.ended.wait(0.01):
            pass
        if self._fails or self.state == "CANCELLED":
            raise RuntimeError(self._fails or "Pipeline job-7 failed in state CANCELLED: unknown error")
        return "DONE"

    def metrics(self) -> Any:
        found = [
            MetricResult(MetricKey("WriteParts", MetricName("facelabel", name)), None, value)
            for name, value in self.counts.items()
        ]
        return SimpleNamespace(query=lambda _: {"counters": found})


class Message:
    """As Beam's job server sends it."""

    def __init__(self, text: str) -> None:
        self.message_response = SimpleNamespace(message_text=text)

    def HasField(self, name: str) -> bool:  # noqa: N802
        return name == "message_response"


class Elsewhere(PipelineRunner):
    """Starts the job that a test has prepared."""

    job: ClassVar[Any]

    def run_pipeline(self, pipeline: Any, options: Any) -> Job:
        return self.job


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(remote_job, "WATCH_S", 0.02)
    yield
    stopping.forget()


def run(job: Any, *, verbose: bool = False, **more: Any) -> Totals:
    Elsewhere.job = job
    return run_graph(
        lambda root: None,
        [f"--runner={__name__}.Elsewhere"],
        heartbeat="",
        total=None,
        done=0,
        quiet=True,
        verbose=verbose,
        go_on="run the same command again",
        **more,
    )


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


PRESSED = """
import sys
import test_pipeline_run_remote_job as tests
from pipeline.errors import Interrupted
from pipeline.run import interrupt, remote_job
remote_job.WATCH_S, interrupt.PATIENCE_S = 0.02, float(sys.argv[3])
job = tests.Job(meanwhile=tests.interrupt, answers_after_s=float(sys.argv[1]), cancels=sys.argv[2] == "cancels")
try:
    tests.run(job)
except Interrupted as error:
    print(job.state, error)
"""


def pressed(answers_after_s: float = 0.0, *, cancels: bool = True, patience_s: float = 60.0) -> Any:
    """Presses Ctrl-C in a process of its own: in that of the tests, beside all their threads, it ended all of them."""
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", PRESSED, str(answers_after_s), "cancels" if cancels else "goes on", str(patience_s)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
        cwd=root, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("answers_after_s", [0.0, 0.2])
def test_ctrl_c_cancels_the_job(answers_after_s: float) -> None:
    """The words are those of the runner's answer, even where the job ends before it comes."""
    done = pressed(answers_after_s)
    assert (done.returncode, done.stdout) == (
        0, "CANCELLED interrupted; job job-7 was cancelled; run the same command again\n",
    ), done.stderr  # fmt: skip


def test_a_job_that_cannot_be_cancelled_is_named() -> None:
    done = pressed(cancels=False, patience_s=0.3)
    words = "interrupted; job job-7 may continue: cancel it on test_pipeline_run_remote_job.Elsewhere before you run"
    assert done.returncode == 130 and words in done.stderr


def test_workers_without_this_program_end_the_job_in_one_line() -> None:
    """The runner itself would start them again and again."""
    job = Job(says=("java.lang.Exception: ModuleNotFoundError: No module named 'transforms'\n at ...",))
    with pytest.raises(StoppedError, match=r"^the workers lack this program .*; run the same command again$"):
        run(job)
    assert job.state == "CANCELLED"


def test_a_worker_that_cannot_start_ends_the_job_in_its_words() -> None:
    """The runner would hide it in a log and start workers again."""
    job = Job()
    said = "models.heads.outputs.HeadError: no head: x does not exist"
    with pytest.raises(UsageError, match=r"^no head: x does not exist$"):
        run(job, complaint=lambda: said)
    assert job.state == "CANCELLED"


@pytest.mark.parametrize(
    "text, words",
    [
        ("Traceback ...\nModuleNotFoundError: No module named 'models.heads'\n", "the workers lack this program"),
        ("the cluster\nhas burnt down", "job job-7 failed on .*Elsewhere: the cluster has burnt down; run the same"),
        (
            "Traceback ...:\ntransforms.storage.faults.FileChanged: x has changed [while running 'ApplyHead']",
            "^x has changed; run the same",
        ),
    ],
)
def test_why_a_job_failed_is_one_line(text: str, words: str) -> None:
    with pytest.raises(StoppedError, match=words) as caught:
        run(Job(fails=text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("verbose", [False, True])
def test_what_a_job_server_reports_is_shown_on_request_alone(verbose: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Beam logs it without a name: the traceback of each worker, above the one line that ends the command."""
    text = "java.lang.RuntimeException: Traceback ...\nModuleNotFoundError: No module named 'transforms'\n"
    said = beam_job_api_pb2.JobMessage(importance=beam_job_api_pb2.JobMessage.JOB_MESSAGE_ERROR, message_text=text)
    messages = iter([beam_job_api_pb2.JobMessagesResponse(message_response=said)])
    states = iter([beam_job_api_pb2.JobStateEvent(state=beam_job_api_pb2.JobState.FAILED)])
    with pytest.raises(StoppedError, match=r"^the workers lack this program .*; run the same command again$"):
        run(PipelineResult(SimpleNamespace(), "job-7", messages, states), verbose=verbose)
    assert ("Traceback" in caplog.text) is verbose
    logging.getLogger().error("of others")
    assert "of others" in caplog.text


def test_progress_comes_from_the_runners_counters() -> None:
    job = Job()
    job.counts = {"images": 30, "faces": 40, "cached": 5}
    seen = remote_job.RemoteJob(options_of([f"--runner={__name__}.Elsewhere"]))
    assert seen.totals().images == 0  # no job yet
    seen.begun(job)
    assert (seen.totals().images, seen.totals().faces, seen.totals().cached) == (30, 40, 5)
    job.counts = {"images": 60}
    assert seen.totals().images == 60
    job.metrics = lambda: 1 / 0  # type: ignore[method-assign]
    assert seen.totals().images == 60
    job.ended.set()
    del job.metrics
    assert run(job).images == 60


def test_a_runner_that_counts_only_in_the_end_is_followed_by_its_parts() -> None:
    """Beam's job server, of Flink and Spark, has no counters while a job runs."""
    done = [Totals(), Totals(images=30, faces=4, cached=2, blocks=1), Totals(images=64, faces=9, cached=2, blocks=2)]
    seen = remote_job.RemoteJob(options_of([f"--runner={__name__}.Elsewhere"]), finished=lambda: done[0])
    seen.begun(job := Job())
    assert seen.totals().images == 0
    done.pop(0)
    assert (seen.totals().images, seen.totals().faces, seen.totals().cached) == (30, 4, 2)
    done.pop(0)
    assert seen.totals().images == 64
    job.counts = {"images": 32, "faces": 4}  # fewer than in the parts: a bar never runs backwards
    assert (seen.totals().images, seen.totals().faces) == (64, 9)
    job.counts = {"images": 96, "faces": 12, "cached": 2}
    assert (seen.totals().images, seen.totals().faces) == (96, 12)


@pytest.mark.parametrize("finished", [Totals(images=32, blocks=1), Totals(blocks=1)])
def test_finished_parts_are_no_silence(
    finished: Totals, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_job, "SILENCE_S", 0.1)
    job = Job(meanwhile=lambda: job.ended.set())
    run(job, finished=lambda: finished)
    assert caplog.messages == []


def test_silence_is_told_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_job, "SILENCE_S", 0.1)
    job = Job(meanwhile=lambda: job.ended.set())
    run(job)
    assert [line for line in caplog.messages if "has not finished a block" in line] == caplog.messages[-1:]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("flag", ["--output", "--cache", "--input"])
def test_dataflow_is_refused_a_path_of_this_machine(flag: str) -> None:
    paths = {"--output": "gs://b/out", "--cache": "s3://b/cache", "--input": "gs://b/in", "head.path": None}
    far = options_of(["--runner=DataflowRunner"])
    refuse_out_of_reach(far, paths)
    with pytest.raises(UsageError, match=rf"{flag} /data/x: workers of DataflowRunner cannot see this machine's disk"):
        refuse_out_of_reach(far, {**paths, flag: "/data/x"})
    refuse_out_of_reach(options_of(["--runner=FlinkRunner", "--job_endpoint=h:1"]), {flag: "/data/x"})
    refuse_out_of_reach(options_of([]), {flag: "/data/x"})
