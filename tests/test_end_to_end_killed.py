"""Promises 3 and 5: a run that is killed or interrupted at any moment goes on, and ends with the same bytes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pictures
import pyarrow.parquet as pq
import pytest
import runs

from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.publish import is_temporary

IMAGES = 800
BLOCKS = 25
SETTINGS = ("read.block_images=32", "write.rows_per_file=300")  # 3 files of each table

# Starts the command line with one function made to kill its own process at its N-th call, before or after its work.
DYING = """
import importlib, os, signal, sys
module, name, when, count = sys.argv[1:5]
module, calls = importlib.import_module(module), []
real = getattr(module, name)
def dying(*given, **named):
    calls.append(1)
    if when == "before" and len(calls) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*given, **named)
    if when == "after" and len(calls) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(module, name, dying)
from pipeline.cli import main
sys.exit(main(sys.argv[5:]))
"""

# Starts the command line and presses Ctrl-C twice while TensorFlow is being loaded, with its own words silenced.
INTERRUPTED_WHILE_LOADING = """
import os, signal, sys, time
from models.runtimes import tensorflow
from pipeline.cli import main
def loading(self):
    with tensorflow.silent_stderr():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
tensorflow.TensorFlow.start = loading
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    """Pictures of 48 pixels a side: slow enough to be caught at work."""
    place = tmp_path_factory.mktemp("bench")
    return runs.Bench(place, runs.make_head(place / "head", settings=runs.SLOWER), runs.SLOWER)


@pytest.fixture(scope="module")
def source(bench: runs.Bench) -> Path:
    return pictures.write_tar(bench.path / "many.tar", runs.faces(IMAGES))


@pytest.fixture(scope="module")
def undisturbed(bench: runs.Bench, source: Path) -> runs.Ended:
    return bench.label(source, "undisturbed", *SETTINGS).done()


def leftovers(output: Path) -> Iterator[Path]:
    """Yields what a killed run may have left behind under names that are not final."""
    for path in output.rglob("*"):
        if is_temporary(path.name) or path.name.endswith((".tmp", ".unfinished")) or path.name == ".merging":
            yield path


def check_nothing_half_written(output: Path) -> None:
    """Checks that whatever has a final name is whole."""
    for name in ("parts", "predictions", "images"):
        for path in (output / name).glob("*.parquet"):
            pq.ParquetFile(path, page_checksum_verification=True).read()
    assert not (output / "run.json").exists()


def test_killed_at_three_moments_it_goes_on_to_the_same_bytes(
    bench: runs.Bench, source: Path, undisturbed: runs.Ended
) -> None:
    output = bench.path / "killed"
    arguments = bench.arguments(source, "killed", *SETTINGS)
    moments = (
        None,  # from outside, as soon as a part stands
        # features are computed, and kept nowhere yet
        ("transforms.formats.cache.feature_cache", "publish", "before", "6"),
        ("transforms.formats.publish", "_flush", "before", "12"),  # a file is written, and has no name yet
    )
    for moment in moments:
        before = runs.parts(output)
        if moment is None:
            process = runs.start(*arguments)
            runs.wait_until(lambda: bool(runs.parts(output)), process)
            runs.kill(process)
        else:
            process = runs.start(*moment, *arguments, script=DYING)
            runs.finish(process, output)
        assert process.returncode == -signal.SIGKILL
        assert before < runs.parts(output)  # nothing that was finished is lost
        check_nothing_half_written(output)

    kept = runs.parts(output)
    assert len(kept) < BLOCKS
    gone_on = bench.label(source, "killed", *SETTINGS, "features.batch_size=32").done()
    assert gone_on.record["resume"] == {"blocks_reused": len(kept), "blocks_redone": 0}
    assert f"{len(kept)} blocks reused from an earlier run" in gone_on.out
    assert runs.results(output) == runs.results(undisturbed.output)
    assert not list(leftovers(output))


def test_killed_among_blocks_that_share_a_cache_segment(
    bench: runs.Bench, source: Path, undisturbed: runs.Ended
) -> None:
    settings = ("read.block_images=128", *SETTINGS[1:])  # from 128 images on, up to four blocks share a segment
    output = bench.path / "grouped"
    arguments = bench.arguments(source, "grouped", *settings)
    for moment in (
        ("transforms.write_parts", "write_part", "before", "3"),  # of a group some have their part, some not
        ("transforms.formats.cache.feature_cache", "publish", "before", "1"),  # a group is computed, kept nowhere yet
    ):
        before = runs.parts(output)
        dead = runs.finish(runs.start(*moment, *arguments, script=DYING), output)
        assert dead.status == -signal.SIGKILL, dead.err
        assert before <= runs.parts(output)
        check_nothing_half_written(output)
        assert len(FeatureCache.open(output / "cache")) >= 128 * len(runs.parts(output)) > 0  # no part without its rows
    gone_on = bench.label(source, "grouped", *settings).done()
    assert gone_on.record["resume"]["blocks_reused"] >= 2
    assert runs.results(output) == runs.results(undisturbed.output)
    assert not list(leftovers(output))
    assert len(list((output / "cache").rglob("*.h5"))) < 7  # seven blocks: some did share one


def test_killed_while_merging_it_goes_on_to_the_same_bytes(
    bench: runs.Bench, source: Path, undisturbed: runs.Ended
) -> None:
    output = bench.path / "merging"
    cache = ["--cache", str(undisturbed.output / "cache")]  # only the merge is of interest
    arguments = bench.arguments(source, "merging", *SETTINGS, *cache)
    for moment in (
        ("transforms.merge.row_files", "put_in_place", "after", "2"),  # some predictions, no images
        ("transforms.finish_run", "publish", "before", "1"),  # all but run.json
    ):
        dead = runs.finish(runs.start(*moment, *arguments, script=DYING), output)
        assert dead.status == -signal.SIGKILL, dead.err
        check_nothing_half_written(output)

    bench.label(source, "merging", *SETTINGS, *cache).done()
    assert runs.results(output) == runs.results(undisturbed.output)
    assert not list(leftovers(output))


def test_ctrl_c_stops_within_seconds_says_how_to_go_on_and_goes_on(
    bench: runs.Bench, source: Path, undisturbed: runs.Ended
) -> None:
    output = bench.path / "interrupted"
    process = runs.start(*bench.arguments(source, "interrupted", *SETTINGS))
    runs.wait_until(lambda: len(runs.parts(output)) >= 2, process)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    stopped = runs.finish(process, output)
    assert time.monotonic() - asked < 10
    assert stopped.status == 130
    assert "Traceback" not in stopped.err
    assert f"run the same command to resume; progress is saved in {output}" in stopped.err
    check_nothing_half_written(output)

    kept = runs.parts(output)
    assert 2 <= len(kept) < BLOCKS
    gone_on = bench.label(source, "interrupted", *SETTINGS).done()
    assert gone_on.record["resume"]["blocks_reused"] == len(kept)
    assert runs.results(output) == runs.results(undisturbed.output)


def test_ctrl_c_while_the_engine_is_loaded_is_answered_too(bench: runs.Bench, source: Path) -> None:
    output = bench.path / "loading"
    arguments = bench.arguments(source, "loading", *SETTINGS)
    stopped = runs.finish(runs.start(*arguments, script=INTERRUPTED_WHILE_LOADING), output)
    assert stopped.status == 130
    assert f"run the same command to resume; progress is saved in {output}" in stopped.err
