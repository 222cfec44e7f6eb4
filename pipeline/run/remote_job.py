"""A job on a runner elsewhere: its progress by Beam's metrics or its parts, its errors, and its end by Ctrl-C.

For a local run all of this is empty: its stages share this process or are its children.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipeline.run.runners import is_direct
from transforms.check_workers import CURE
from transforms.tally import Totals
from transforms.write_parts import COUNTED, METRICS

logger = logging.getLogger("pipeline.job")

WATCH_S = 2.0  # between two looks at the job
CANCEL_S = 1.0  # that last words wait for the runner's answer to a cancellation
SILENCE_S = 60.0  # without a finished block; then a warning says where to look
SHOWN = 600  # characters of an error that is not ours
LOGS_REPORTS = "portable_runner"  # Beam's module that does
_LACKS_US = re.compile(r"No module named '(?:pipeline|transforms|models)\b")
WITHOUT_US = f"the workers lack this program or have another version of it; {CURE}"


def lacks_this_program(text: str) -> bool:
    """True if a worker's error says that it cannot import this program."""
    return _LACKS_US.search(text) is not None


@contextmanager
def reports_hidden(verbose: bool) -> Iterator[None]:
    """While inside, hides what a job server reports, such as tracebacks of workers, unless `verbose`.

    Beam logs it by the root logger, so that no level hides it.
    """
    root = logging.getLogger()

    def is_another(record: logging.LogRecord) -> bool:
        return verbose or record.module != LOGS_REPORTS

    root.addFilter(is_another)
    try:
        yield
    finally:
        root.removeFilter(is_another)


class RemoteJob:
    """What this process knows of a job elsewhere.

    Attributes:
        fault: what the job was cancelled for, if the runner itself would have gone on trying.
        complaint: why a worker could not start, as a traceback ends; the job was cancelled for it.
    """

    def __init__(
        self,
        options: PipelineOptions,
        complaint: Callable[[], str] = lambda: "",
        finished: Callable[[], Totals] = Totals,
    ) -> None:
        """Takes the runner's options and two functions.

        Args:
            complaint: returns why a worker could not start, "" if none did.
            finished: returns what is finished, for runners that have no counters while the job runs.
        """
        self._runner = str(options.view_as(StandardOptions).runner)
        self.is_remote = not is_direct(options)
        self._result: Any = None
        self._cancelled = threading.Event()
        self._cancelling: threading.Thread | None = None
        self._seen = Totals()
        self.fault = self.complaint = ""
        self._ask_workers, self._finished = complaint, finished

    def begun(self, result: Any) -> Any:
        """Notes the runner's handle of the job, and returns it."""
        self._result = result
        return result

    def totals(self) -> Totals:
        """Returns images, faces and cached images by the runner's counters, else by finished parts; never fewer."""
        for source in (self._counted, self._finished):
            try:
                found = source()
            except Exception as error:  # noqa: BLE001 - a bar must not stop a run, and each runner fails in its own way
                logger.debug("no progress: %s", error)
                continue
            if found.images > self._seen.images or found.blocks > self._seen.blocks:
                self._seen = found
            if found.images:
                break
        return self._seen

    def _counted(self) -> Totals:
        """Returns what the runner has counted."""
        self._result._metrics = None  # else the first answer is kept for ever
        found = self._result.metrics().query(MetricsFilter().with_namespace(METRICS))["counters"]
        counts = {item.key.metric.name: int(item.attempted or item.committed or 0) for item in found}
        images, faces, cached = (counts.get(name, 0) for name in COUNTED)
        return Totals(images=images, faces=faces, cached=cached)

    def cancel(self) -> None:
        """Asks the runner to end the job, in a thread, as it may take its time."""
        if self.is_remote and self._result is not None:
            self._cancelling = threading.Thread(target=self._cancel, name="cancel", daemon=True)
            self._cancelling.start()

    def failed(self, error: BaseException) -> str:
        """Returns why the job failed, as far as the runner says so."""
        text = " ".join(str(error).split()) or type(error).__name__
        shown = text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
        return f"job {self._name()} failed on {self._runner}: {shown}"

    def words(self) -> str:
        """Returns what has become of the job, for last words; "" for a local run."""
        if not self.is_remote or self._result is None:
            return ""
        if self._cancelling is not None:  # the job may end before the runner has answered
            self._cancelling.join(CANCEL_S)
        if self._cancelled.is_set():
            return f"job {self._name()} was cancelled; "
        return f"job {self._name()} may continue: cancel it on {self._runner} before you run the command again; "

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While inside, cancels a job whose workers cannot work, and says so if nothing is finished for a while."""
        if not self.is_remote:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(ended.wait,), name="watch-job", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(WATCH_S)

    def _watch(self, wait: Callable[[float], bool]) -> None:
        begun, reported = time.monotonic(), False
        while not wait(WATCH_S):
            if any(map(lacks_this_program, self._messages())):
                self.fault = WITHOUT_US
            else:
                self.complaint = self._ask_workers()
            if self.fault or self.complaint:
                self._cancel()
                return
            if not reported and time.monotonic() - begun > SILENCE_S:
                reported = True
                if (seen := self.totals()).images or seen.blocks:
                    continue
                logger.warning(
                    "%s has not finished a block in %.0f s; if its workers lack this program, its own log says so",
                    self._runner,
                    SILENCE_S,
                )

    def _messages(self) -> list[str]:
        """Returns what the runner has reported so far."""
        found = list(
            getattr(self._result, "_messages", ())
        )  # Beam's portable result keeps them, and shows them at the end
        return [message.message_response.message_text for message in found if message.HasField("message_response")]

    def _cancel(self) -> None:
        try:
            self._result.cancel()
            self._cancelled.set()
        except Exception as error:  # noqa: BLE001 - whatever it is, the job goes on, and the last words say so
            logger.info("the job cannot be cancelled: %s", error)

    def _name(self) -> str:
        found = getattr(self._result, "_job_id", None)
        return str(found) if found else "there"
