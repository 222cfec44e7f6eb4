"""Spark with two executors: the bytes of a local run, also after an executor is killed.

Start by tests/cluster/run.sh, after fetch.sh FOLDER spark.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import clusters
import labelling
import pytest
import runs
import sparks

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sparks.Spark]:
    with sparks.spark(tmp_path_factory.mktemp("spark")) as running:
        yield running


@pytest.mark.parametrize("killed", [False, True])
def test_the_same_bytes_as_a_local_run(
    cluster: sparks.Spark, faces: Path, disk: Path, here: dict[str, str], tmp_path: Path, killed: bool
) -> None:
    output = tmp_path / "out"
    flags = sparks.flags_for(clusters.workers(tmp_path / "workers", disk))
    lost = cluster.log("js").count("Lost executor")
    began = time.monotonic()
    process = clusters.driver(labelling.arguments(faces, output, disk, flags))
    standing = 0
    if killed:
        clusters.wait_for(lambda: labelling.parts(output) >= 3 or process.poll() is not None, "three parts")
        standing = labelling.parts(output)
        os.kill(cluster.executors()[0], signal.SIGKILL)
    print(labelling.ended(process))
    record = runs.Ended(0, "", "", output).record
    twice = labelling.computed_twice(labelling.cached(output))
    took = f"{time.monotonic() - began:.0f} s, killed={killed} at {standing} parts"
    print(f"Spark: {took}, {record['cache']}, {twice} computed twice")
    assert (cluster.log("js").count("Lost executor") > lost) is killed
    assert runs.results(output) == here
    assert labelling.leftovers(output) == []
