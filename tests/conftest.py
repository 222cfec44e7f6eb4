"""What all tests share: no network, patience with slow machines and none with faulty storage, quiet TensorFlow."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# A busy machine stretches one example past any deadline; that says nothing about the code. The examples are the same
# each time, so that a change that breaks nothing is not refused; `--hypothesis-profile=searching` tries others.
PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
hypothesis_settings.register_profile("searching", **PATIENT)
hypothesis_settings.register_profile("patient", **PATIENT, derandomize=True)
hypothesis_settings.load_profile("patient")

LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0")


class FailuresAtOnce:
    """Prints a failed test when it fails: a run that is ended from outside never gets to its summary."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(f"\nFAILED {report.nodeid} ({report.when})\n{report.longreprtext}")


def pytest_sessionstart(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(session.config, "workerinput"):  # only where results come together
        session.config.pluginmanager.register(FailuresAtOnce(terminal), "failures at once")


@pytest.fixture(autouse=True)
def _offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded at run time: an attempt to leave this machine fails the test."""
    if request.node.get_closest_marker("cloud"):
        return
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and (
            not isinstance(address, tuple) or address[0] not in LOCAL
        ):
            pytest.fail(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faulty storage is tried as often as ever, without waiting in between."""
    retrying = sys.modules.get("transforms.storage.retrying")  # tests of models need no Beam
    if retrying is not None:
        monkeypatch.setattr(retrying, "PAUSES_S", (0.001,) * len(retrying.PAUSES_S))
        monkeypatch.setattr(retrying, "_gave_up_at", -math.inf)  # another test's storage is no concern of this one


@pytest.fixture(autouse=True)
def _patient_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted run may take its time: on a busy machine its five seconds would end the whole test process."""
    interrupting = sys.modules.get("pipeline.run.interrupt")
    if interrupting is not None:
        monkeypatch.setattr(interrupting, "PATIENCE_S", 300.0)


@pytest.fixture(autouse=True)
def _own_log_level() -> Iterator[None]:
    """A command with --quiet silences our log for its process; here, for its test alone."""
    ours = logging.getLogger("pipeline")
    before = ours.level
    yield
    ours.setLevel(before)


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, made once: see `made_pages.py`."""
    from made_pages import write_pages  # needs pyarrow and more, which most tests do without

    return write_pages(tmp_path_factory.mktemp("pages"))
