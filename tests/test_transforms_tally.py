"""Running totals: of threads, of processes, and of files that cannot be read."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from transforms.tally import Tally, Totals, read_heartbeats


def test_blocks_add_up() -> None:
    tally = Tally()
    tally.note_first(images=4)
    tally.note_first(images=3)
    tally.add_block(images=4, faces=5, rejected=1, cached=2)
    tally.add_block(images=3, faces=0, rejected=0, cached=1)
    totals = tally.totals()
    assert (totals.images, totals.faces, totals.rejected, totals.cached, totals.blocks) == (7, 5, 1, 3, 2)
    assert 0 < totals.first_block_at <= totals.last_block_at
    assert totals.images_in_first_block == 4
    tally.reset()
    assert tally.totals() == Totals()


def test_threads_lose_nothing() -> None:
    tally = Tally()

    def work() -> None:
        for _ in range(200):
            tally.add_block(images=1, faces=1, rejected=1, cached=1)
            tally.add_damaged(1)
            with tally.clock("x"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals = tally.totals()
    assert (totals.images, totals.blocks, totals.damaged) == (800, 800, 800)


def test_clocks_add_up_by_stage_also_when_the_work_fails() -> None:
    tally = Tally()
    with tally.clock("read"):
        time.sleep(0.02)
    with contextlib.suppress(OSError), tally.clock("read"):
        time.sleep(0.02)
        raise OSError("gone")
    with tally.clock("crop"):
        pass
    assert tally.totals().seconds["read"] >= 0.04
    assert set(tally.totals().seconds) == {"read", "crop"}


def test_a_copy_of_the_totals_stays_as_it_was() -> None:
    tally = Tally()
    before = tally.totals()
    tally.add_block(images=4, faces=5, rejected=1, cached=2)
    with tally.clock("read"):
        pass
    assert before == Totals()


def test_devices_are_told_once_each() -> None:
    tally = Tally()
    for name in ("b", "a", "b"):
        tally.add_devices([name])
    assert tally.totals().devices == ["a", "b"]


def test_totals_of_two_processes() -> None:
    one = Totals(images=3, faces=2, rejected=1, cached=1, blocks=1, seconds={"read": 1.0}, devices=["a"], damaged=1)
    two = Totals(
        images=5, faces=1, rejected=0, cached=2, blocks=2, seconds={"read": 2.0, "crop": 3.0}, devices=["a", "b"]
    )
    for total in (one.plus(two), two.plus(one)):
        assert (total.images, total.faces, total.rejected, total.cached, total.blocks) == (8, 3, 1, 3, 3)
        assert (total.seconds, total.devices, total.damaged) == ({"read": 3.0, "crop": 3.0}, ["a", "b"], 1)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_first_and_the_last_block_of_two_processes(swapped: bool) -> None:
    early = Totals(blocks=2, first_block_at=10.0, last_block_at=20.0, images_in_first_block=7)
    late = Totals(blocks=2, first_block_at=15.0, last_block_at=30.0, images_in_first_block=8)
    total = late.plus(early) if swapped else early.plus(late)
    assert (total.first_block_at, total.last_block_at, total.images_in_first_block) == (10.0, 30.0, 7)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_process_that_did_nothing_changes_nothing(swapped: bool) -> None:
    busy = Totals(images=3, blocks=1, first_block_at=10.0, last_block_at=20.0, images_in_first_block=3)
    assert (Totals().plus(busy) if swapped else busy.plus(Totals())) == busy


def test_heartbeats_of_workers_add_up(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"worker-{number}.json").write_text(json.dumps(asdict(Totals(images=number, blocks=1))))
    (tmp_path / "worker-3.json").write_text('{"ima')
    (tmp_path / "worker-4.json").write_text('{"colour": 3}')
    (tmp_path / "worker-5.json").write_text("[]")
    (tmp_path / "notes.json").write_text('{"images": 100}')
    assert (read_heartbeats(str(tmp_path)).images, read_heartbeats(str(tmp_path)).blocks) == (3, 2)
    assert read_heartbeats(str(tmp_path / "nowhere")) == Totals()


def test_a_process_tells_of_itself_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()
    tally.flush()  # nobody listens
    tally.beat_into(str(tmp_path / "beats"))
    tally.add_block(images=4, faces=0, rejected=0, cached=0)
    assert read_heartbeats(str(tmp_path / "beats")).images == 4
    tally.add_block(images=4, faces=0, rejected=0, cached=0)
    assert read_heartbeats(str(tmp_path / "beats")).images == 4  # reported a moment ago
    tally.flush()
    assert read_heartbeats(str(tmp_path / "beats")) == tally.totals()
    assert os.listdir(tmp_path / "beats") == [f"worker-{os.getpid()}.json"]


def test_a_full_disk_stops_no_counting(tmp_path: Path) -> None:
    (tmp_path / "beats").write_text("a file where the folder should be")
    tally = Tally()
    tally.beat_into(str(tmp_path / "beats"))
    tally.add_block(images=4, faces=0, rejected=0, cached=0)
    assert tally.totals().images == 4


def test_rates_begin_once_and_leave_out_the_engine_but_not_what_is_done_meanwhile() -> None:
    tally = Tally()
    tally.begin()
    began = tally.totals().began_at
    tally.begin()
    assert tally.totals().began_at == began > 0

    def ahead() -> None:
        with tally.clock("crop"):
            burn(0.05)

    with tally.runtime_start("TensorFlow"):
        assert tally.totals().loading == "TensorFlow"
        thread = threading.Thread(target=ahead)
        thread.start()
        burn(0.1)
        thread.join()
    totals = tally.totals()
    assert totals.cpu["crop"] == pytest.approx(0.05, abs=0.01)
    assert totals.runtime_cpu == pytest.approx(0.1, abs=0.03)
    assert totals.runtime_s >= 0.1


def burn(seconds: float) -> None:
    """Works for so much CPU time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_times_of_processes_add_up_but_their_engines_start_side_by_side() -> None:
    one = Totals(blocks=1, began_at=5.0, began_cpu=1.0, last_block_cpu=4.0, runtime_s=3.0, runtime_cpu=2.0)
    other = Totals(blocks=1, began_at=4.0, began_cpu=2.0, last_block_cpu=7.0, runtime_s=2.0, runtime_cpu=1.0)
    one.cpu, other.cpu = {"read": 1.0}, {"read": 2.0}
    idle = Totals(began_at=4.5, began_cpu=9.0)
    for total in (one.plus(other).plus(idle), idle.plus(other).plus(one)):
        assert (total.began_at, total.began_cpu, total.last_block_cpu) == (4.0, 3.0, 11.0)
        assert (total.runtime_s, total.runtime_cpu, total.cpu) == (3.0, 3.0, {"read": 3})
