"""A Spark cluster of this machine: a master, two workers with an executor each, and Beam's job server.

Not a test: tests of this folder `import sparks`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import clusters
import pytest

MASTER, JOBS = "spark://localhost:7077", "localhost:8199"
EXECUTORS = 2
TASKS = 3  # of a stage: more than executors, and with five blocks each, so that a kill meets finished ones
_OPENS = (
    *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util"),
    *("java.util.concurrent", "java.util.concurrent.atomic", "sun.nio.ch", "sun.nio.cs", "sun.security.action"),
    "sun.util.calendar",
)
OPENS = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENS]


@dataclass
class Spark:
    """A running cluster.

    Attributes:
        place: its logs and scratch.
        processes: of the cluster, by name.
    """

    place: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        """Starts all of it, and waits until the job server answers."""
        home, beam = clusters.tools() / "spark" / "deps", clusters.tools() / "spark_job_server"
        if not home.is_dir() or not beam.is_dir():
            pytest.skip("needs Spark and Beam's job server for it, which tests/cluster/fetch.sh FOLDER spark fetches")
        jars = f"{home}/jars/*"
        self._java("master", jars, "org.apache.spark.deploy.master.Master", "--host", "localhost", "--port", "7077")
        self._wait(lambda: "I have been elected leader" in self.log("master"), "Spark's master")
        names = [f"worker{number}" for number in range(EXECUTORS)]
        for number, name in enumerate(names):
            words = ["--host", "localhost", "--cores", "1", "--memory", "1g", "--work-dir", str(self.place / "work")]
            main = "org.apache.spark.deploy.worker.Worker"
            self._java(name, jars, main, *words, "--webui-port", str(8091 + number), MASTER)
        self._wait(lambda: all("registered with master" in self.log(name) for name in names), "workers")
        ports = ["--job-host", "localhost", "--job-port", "8199", "--artifact-port", "8198", "--expansion-port", "8197"]
        options = {
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "localhost",
            "spark.default.parallelism": str(TASKS),
            "spark.executor.memory": "700m",
            "spark.ui.enabled": "false",
            "spark.executor.extraJavaOptions": " ".join(OPENS),
            "spark.executor.extraClassPath": f"{beam}/*",  # before Spark's: its guava is too old for Beam
        }
        self._java(
            "js",
            f"{beam}/*:{jars}",
            "org.apache.beam.runners.spark.SparkJobServerDriver",
            *("--spark-master-url", MASTER, "--artifacts-dir", str(self.place / "artifacts"), *ports),
            options=[f"-D{name}={value}" for name, value in options.items()],
        )
        self._wait(lambda: _answers(JOBS), "job server")  # it logs warnings alone

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def dead() -> list[str]:
            return [name for name, process in self.processes.items() if process.poll() is not None]

        clusters.wait_for(lambda: condition() or bool(dead()), what)
        assert not dead(), f"{dead()[0]} of Spark has ended: {self.log(dead()[0])[-2000:]}"

    def _java(self, name: str, jars: str, main: str, *words: str, options: Sequence[str] = ()) -> None:
        env = {
            **os.environ,
            "SPARK_HOME": str(clusters.tools() / "spark" / "deps"),
            "SPARK_SCALA_VERSION": "2.12",
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_HOSTNAME": "localhost",
        }
        with open(self.place / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                ["nice", "-n", "10", "java", "-Xmx1g", *OPENS, *options, "-cp", jars, main, *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=env,
                cwd=self.place,
            )

    def log(self, name: str) -> str:
        """Returns what a process of the cluster has written."""
        return (self.place / f"{name}.log").read_text(errors="replace")

    def executors(self) -> list[int]:
        """Returns the process ids of the executors."""
        found = []
        groups = {process.pid for name, process in self.processes.items() if name.startswith("worker")}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes()
                ours = b"CoarseGrainedExecutorBackend" in words and os.getpgid(int(path.name)) in groups
                if ours and Path(os.readlink(path / "exe")).name == "java":
                    found.append(int(path.name))
        return sorted(found)

    def stop(self) -> None:
        """Ends the cluster, its executors and their workers."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes.values():
            process.wait(30)


def _answers(address: str) -> bool:
    """True if something listens there."""
    host, _, port = address.partition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
        return True
    return False


@contextlib.contextmanager
def spark(place: Path) -> Iterator[Spark]:
    """Gives a running cluster."""
    cluster = Spark(place)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def flags_for(chosen: clusters.Workers) -> list[str]:
    """Returns the arguments of a job on the cluster with these workers: the file that ships, and their own script."""
    config = json.dumps({"command": chosen.command()})
    return ["--config", "configs/spark.yaml", f"--job_endpoint={JOBS}", f"--environment_config={config}"]
