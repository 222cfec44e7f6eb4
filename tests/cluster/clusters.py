"""A Flink cluster of this machine with two task managers, and workers that live in another house.

A worker has its own copy of the three packages, and the driver's checkout and its private folder are hidden from it,
as on another machine. Not a test: tests of this folder `import clusters`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "transforms", "models")
SLOTS = 2  # of each task manager
REST, JOBS = "http://localhost:8081", "localhost:8099"
PATIENCE_S = 600.0

CONF = f"""\
jobmanager.rpc.address: localhost
jobmanager.rpc.port: 6123
jobmanager.bind-host: localhost
jobmanager.memory.process.size: 1024m
taskmanager.host: localhost
taskmanager.bind-host: localhost
taskmanager.numberOfTaskSlots: {SLOTS}
rest.address: localhost
rest.bind-address: localhost
rest.port: 8081
blob.server.port: 6124
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 20
restart-strategy.fixed-delay.delay: 1 s
pekko.startup-timeout: 120 s
pekko.ask.timeout: 60 s
heartbeat.interval: 1000
heartbeat.timeout: 20000
classloader.check-leaked-classloader: false
taskmanager.network.sort-shuffle.min-buffers: 32
taskmanager.network.sort-shuffle.min-parallelism: 1000
"""
LOG4J = """\
rootLogger.level = INFO
rootLogger.appenderRef.c.ref = C
appender.c.name = C
appender.c.type = CONSOLE
appender.c.layout.type = PatternLayout
appender.c.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} %m%n
"""
MEMORY = {  # of a task manager
    "taskmanager.cpu.cores": "2.0",
    "taskmanager.memory.task.heap.size": "256m",
    "taskmanager.memory.task.off-heap.size": "0m",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.network.min": "256m",
    "taskmanager.memory.network.max": "256m",
    "taskmanager.memory.managed.size": "128m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "192m",
    "taskmanager.memory.jvm-overhead.max": "192m",
}
_EXPORTS = {"java.base": ["sun.net.util"], "java.management": ["sun.management"], "java.rmi": ["sun.rmi.registry"]}
_OPENS = (
    *("java.lang", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.text", "java.time", "java.util"),
    *("java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.nio.ch"),
)
JAVA = (
    "java",
    *(f"--add-exports={module}/{name}=ALL-UNNAMED" for module, names in _EXPORTS.items() for name in names),
    *(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENS),
)


def tools() -> Path:
    """Returns the folder that `fetch.sh` filled; skips the test where there is none."""
    found = os.environ.get("FACELABEL_CLUSTER")
    if not found:
        pytest.skip("needs what tests/cluster/fetch.sh fetches: start it by tests/cluster/run.sh FOLDER")
    return Path(found)


def data(name: str) -> Path:
    """Returns a file of the data folder beside the checkout; skips the test where there is none."""
    for folder in ROOT.parents:
        if (path := folder / "shared" / "data" / name).is_file():
            return path
    pytest.skip(f"needs shared/data/{name} beside the checkout")


# --- workers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workers:
    """How task managers start Python: in another house than the driver's.

    Attributes:
        place: scratch of their own.
        house: folder with their copy of the packages; empty if they have none.
        hidden: folders of the driver that they cannot see.
    """

    place: Path
    house: Path
    hidden: tuple[Path, ...] = ()

    def command(self) -> str:
        """Returns the script that starts a worker, as `--environment_config` names it."""
        python = self.place / "venv"
        if not python.exists():
            venv.create(python, with_pip=False)
            (site,) = python.glob("lib/python*/site-packages")
            packages = [str(Path(apache_beam.__file__).parents[1])]
            (site / "packages.pth").write_text("\n".join(packages))
        hide = "; ".join(f"mount -t tmpfs none {folder}" for folder in self.hidden) or "true"
        script = self.place / "boot.sh"
        script.write_text(
            textwrap.dedent(f"""\
                #!/bin/bash
                export PATH={python}/bin:$PATH RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 PYTHONPATH={self.house}
                export TMPDIR={self.place}/tmp
                mkdir -p $TMPDIR
                exec unshare --mount -- bash -c '{hide}; cd /; exec {tools()}/bin/container \\
                    --semi_persist_dir=$(mktemp -d) "$@"' boot "$@"
            """)
        )
        script.chmod(0o755)
        return str(script)


def workers(place: Path, driver: Path, *, without: str = "", empty: bool = False) -> Workers:
    """Returns workers with a copy of the packages.

    Args:
        place: a new folder for it.
        driver: a folder that only the driver sees, as its checkout is.
        without: a folder below the copy that is missing.
        empty: True for workers without the packages.
    """
    house = place / "house"
    house.mkdir(parents=True)
    for name in () if empty else PACKAGES:
        shutil.copytree(ROOT / name, house / name, ignore=shutil.ignore_patterns("__pycache__"))
    if without:
        shutil.rmtree(house / without)
    return Workers(place, house, (driver, *(ROOT / name for name in PACKAGES)))


# --- the cluster ------------------------------------------------------------------------------------------------------


@dataclass
class Flink:
    """A running cluster.

    Attributes:
        place: its configuration and logs.
        processes: of the cluster, by name.
    """

    place: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        """Starts a job manager, two task managers and Beam's job server, and waits until all answer."""
        (self.place / "flink-conf.yaml").write_text(CONF)
        (self.place / "log4j.properties").write_text(LOG4J)
        configured = ["--configDir", str(self.place)]
        self._java(
            "jm", ["-Xmx512m"], "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint", configured
        )
        for name in ("tm1", "tm2"):
            self.start_task_manager(name)
        wait_for(lambda: self.rest("/overview").get("taskmanagers") == 2 or self._dead(), "task managers")
        assert not self._dead(), f"a process of Flink has ended; its log is in {self.place}"
        served = [*("--flink-master", "localhost:8081", "--artifacts-dir", str(self.place / "artifacts"))]
        ports = ["--job-host", "localhost", "--job-port", "8099", "--artifact-port", "8098", "--expansion-port", "8097"]
        main = "org.apache.beam.runners.flink.FlinkJobServerDriver"
        self._java("js", ["-Xmx1g"], main, [*served, *ports], jars=str(tools() / "job_server" / "*"))
        wait_for(lambda: "JobService started on" in self.log("js"), "job server")

    def _dead(self) -> bool:
        return any(process.poll() is not None for process in self.processes.values())

    def start_task_manager(self, name: str) -> None:
        """Starts another task manager, which takes over from one that died."""
        memory = [word for key, value in MEMORY.items() for word in ("-D", f"{key}={value}")]
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        self._java(
            name,
            ["-Xmx512m", "-XX:MaxDirectMemorySize=512m"],
            main,
            ["--configDir", str(self.place), *memory],
            own_group=True,
        )

    def _java(
        self, name: str, sizes: list[str], main: str, words: list[str], *, jars: str = "", own_group: bool = False
    ) -> None:
        lib = tools() / "flink" / "deps" / "lib"
        log4j = f"-Dlog4j2.configurationFile={self.place / 'log4j.properties'}"
        path = jars or ":".join(
            str(next(iter(sorted(lib.glob(f"{jar}-[0-9]*.jar")))))
            for jar in ("flink-dist", "log4j-api", "log4j-core", "log4j-slf4j-impl")
        )
        with open(self.place / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                ["nice", "-n", "10", JAVA[0], *sizes, *JAVA[1:], log4j, "-cp", path, main, *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=own_group,
            )

    def log(self, name: str) -> str:
        """Returns what a process of the cluster has written."""
        return (self.place / f"{name}.log").read_text(errors="replace")

    def rest(self, path: str, method: str = "GET") -> dict[str, Any]:
        """Returns an answer of Flink's REST interface; {} if there is none."""
        try:
            with urllib.request.urlopen(urllib.request.Request(REST + path, method=method), timeout=10) as answer:
                found: dict[str, Any] = json.loads(answer.read() or b"{}")
                return found
        except OSError:
            return {}

    def running(self) -> list[str]:
        """Returns the ids of the jobs that run."""
        going = ("RUNNING", "RESTARTING", "CREATED", "INITIALIZING", "FAILING", "CANCELLING")
        return [job["id"] for job in self.rest("/jobs").get("jobs", ()) if job["status"] in going]

    def kill(self, name: str) -> None:
        """Kills a task manager as a failing machine would; its Python workers live on for a while."""
        self.processes.pop(name).kill()

    def cancel_all(self) -> None:
        """Ends whatever a test left behind."""
        for job in self.running():
            self.rest(f"/jobs/{job}?mode=cancel", "PATCH")
        wait_for(lambda: not self.running(), "jobs to end")

    def stop(self) -> None:
        """Ends the cluster and its workers."""
        for name, process in self.processes.items():
            with contextlib.suppress(ProcessLookupError):
                if name.startswith("tm"):
                    os.killpg(process.pid, signal.SIGKILL)  # a session of its own: its workers go with it
                process.kill()
        for process in self.processes.values():
            process.wait(30)


@contextlib.contextmanager
def flink(place: Path) -> Iterator[Flink]:
    """Gives a running cluster."""
    cluster = Flink(place)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Returns as soon as the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)


# --- the driver -------------------------------------------------------------------------------------------------------


def flags_for(chosen: Workers, parallelism: int = 2 * SLOTS) -> list[str]:
    """Returns Beam's flags for a job on the Flink cluster with these workers."""
    config = json.dumps({"command": chosen.command()})
    return [
        *("--runner=PortableRunner", f"--job_endpoint={JOBS}", "--environment_type=PROCESS"),
        *(f"--environment_config={config}", f"--parallelism={parallelism}"),
    ]


def driver(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Starts the command line in a process of its own."""
    return subprocess.Popen(
        ["nice", "-n", "10", sys.executable, "-m", "pipeline", *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
