"""label: what of a run that went before it leaves alone. Whole runs: test_end_to_end_*.py."""

from __future__ import annotations

from pathlib import Path

import pictures
import pytest
import runs

from models.runtimes.device import DeviceOutOfMemory


def test_a_finished_folder_is_left_alone_whatever_the_runtime_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(20))
    first = bench.label(inputs, "out", "read.block_images=8").done()
    record = (first.output / "run.json").read_bytes()
    monkeypatch.setattr("pipeline.commands.label.run_graph", None)  # it must not even be started
    second = bench.label(inputs, "out", "read.block_images=5", "read.threads=3", "features.batch_size=16").done()
    assert "nothing has changed since" in second.out
    assert (first.output / "run.json").read_bytes() == record


def test_a_dry_run_answers_and_leaves_nothing(tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(5))
    before = runs.tree(tmp_path)
    ended = bench.label(inputs, "out", "--dry-run").done()
    assert "would read 5 images" in ended.out
    assert runs.tree(tmp_path) == before


def test_an_output_folder_within_the_input_changes_nothing_on_the_second_run(tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(3))
    bench.label(inputs, "in/out").done()
    again = bench.label(inputs, "in/out").done()
    assert "nothing has changed since" in again.out


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
@pytest.mark.parametrize("folder", ["images", "parts"])
def test_pictures_where_results_are_written_are_refused_and_stay(
    tmp_path: Path, folder: str, overwrite: tuple[str, ...]
) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "mine" / folder, runs.faces(3))
    before = runs.tree(inputs)
    ended = bench.label(inputs, "mine", *overwrite)
    assert ended.status == 2 and "lies where results are written" in ended.err
    assert runs.tree(inputs) == before


def test_pictures_beside_results_outlive_overwriting(tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(3))
    mine = pictures.write_folder(tmp_path / "out" / "images", {"mine.jpg": b"mine"}) / "mine.jpg"
    bench.label(inputs, "out").done()
    bench.label(inputs, "out", "--overwrite").done()
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize("flag", ["--output", "--cache"])
def test_results_and_cache_on_an_object_store_are_refused(tmp_path: Path, flag: str) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(1))
    ended = bench.label(inputs, "out", flag, "gs://bucket/place")
    assert ended.status == 2 and f"{flag} gs://bucket/place" in ended.err and "give a local folder" in ended.err


def test_a_refused_flag_costs_no_results_beside_overwrite(tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(1))
    done = bench.label(inputs, "out").done()
    before = {name: of for name, of in runs.tree(done.output).items() if name != ".lock"}  # which is opened anew
    assert bench.label(inputs, "out", "--overwrite", "--cache", "gs://bucket/place").status == 2
    assert bench.label(inputs, "out", "--overwrite", "--", "--direct_num_workers=many").status == 2
    for runner in ("Strange", "no.such.Runner", "DataflowRunner"):  # the last wants a project
        assert bench.label(inputs, "out", "--overwrite", f"--runner={runner}").status == 2
    assert before.items() <= runs.tree(done.output).items()


@pytest.mark.parametrize("runner", ["Strange", "strange.module.Runner", "json.Strange"])
def test_a_runner_that_beam_does_not_know_is_one_line(tmp_path: Path, runner: str) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(1))
    ended = bench.label(inputs, "out", f"--runner={runner}")
    assert ended.status == 2 and "Beam refuses --runner or its options: " in ended.line


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(1))
    pictures.write_folder(tmp_path / "out", {"run.json": b'{"name": "another program"}'})
    ended = bench.label(inputs, "out")
    assert ended.status == 2 and "its run.json is not that of a run of label" in ended.err


def test_a_fault_of_the_engine_ends_a_dry_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DeviceOutOfMemory("the device is full")

    monkeypatch.setattr("pipeline.run.dry_run.get_device", full)
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(1))
    ended = bench.label(inputs, "out", "--dry-run")
    assert ended.status == 3 and ended.err.count("\n") == 1 and "the device is full" in ended.err
