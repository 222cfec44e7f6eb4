"""label: what of a run that went before it leaves alone. Whole runs: test_end_to_end_*.py."""

from __future__ import annotations

import io
from pathlib import Path

import pictures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs

from models.runtimes.device import DeviceOutOfMemory


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_head(tmp_path_factory.mktemp("head"))


def test_a_finished_folder_is_left_alone_whatever_the_runtime_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(20))
    first = bench.label(inputs, "out", "read.block_images=8").done()
    record = (first.output / "run.json").read_bytes()
    monkeypatch.setattr("pipeline.run.drive.run_graph", None)  # it must not even be started
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
    assert ended.status == 2 and "is where results are written" in ended.err
    assert runs.tree(inputs) == before


def sound_parquet() -> bytes:
    """A table of the user's."""
    packed = io.BytesIO()
    pq.write_table(pa.table({"mine": [1, 2, 3]}), packed)
    return packed.getvalue()


FOREIGN = {
    "images/mine.jpg": b"mine",
    "parts/mine.parquet": sound_parquet(),
    f"parts/{'0' * 32}.parquet": sound_parquet(),
    f"parts/{'0' * 32}.npz": b"mine, not numpy's",
    f"parts/{'0' * 32}.stream.json": b'{"mine": 1}',
    "predictions/part-00000-of-00001.parquet": sound_parquet(),
    "images/part-00000-of-00001.parquet": b"text",
    "plan/plan.json": b'{"resource_changes": []}',
    "plan/identity.json": b"[1, 2]",
    "plan/floor.png": b"mine",
    "plan/blocks.jsonl": b'{"mine": 1}',
    "predictions/deep/part.txt": b"mine",
    ".merging/mine.parquet": b"mine",
    "submission.csv": b"id,label",
    "report.html": b"<!DOCTYPE html>\n<title>Evaluation</title>",
    "report.json": b'{"name": "another program"}',
    "run.json": b'{"name": "another program"}',
}


@pytest.mark.parametrize("more", [(), ("--overwrite",), ("--dry-run",)], ids=["plain", "overwrite", "dry"])
@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_the_users_where_results_go_are_refused_and_stay(
    head: Path, tmp_path: Path, name: str, more: tuple[str, ...]
) -> None:
    bench = runs.Bench(tmp_path, head)
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(2))
    mine = pictures.write_folder(tmp_path / "out", {name: FOREIGN[name]}) / name
    ended = bench.label(inputs, "out", *more)
    assert ended.status == 2
    assert name.removeprefix("predictions/deep/") in ended.line or "predictions/deep" in ended.line
    assert "move it away or give another" in ended.line
    assert mine.read_bytes() == FOREIGN[name]
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {
        mine.relative_to(tmp_path / "out").parts[0],
        ".lock",
    }


def test_so_they_are_in_the_folder_of_a_finished_run(head: Path, tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, head)
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(2))
    done = bench.label(inputs, "out", "--keep-parts").done()
    for name in [name for name in FOREIGN if name not in ("submission.csv", "run.json")]:
        mine, ours = tmp_path / "out" / name, None
        if mine.exists():
            ours = mine.read_bytes()
        pictures.write_folder(tmp_path / "out", {name: FOREIGN[name]})
        for more in ((), ("--overwrite",)):
            assert bench.label(inputs, "out", *more).status == 2, name
            assert mine.read_bytes() == FOREIGN[name]
        mine.unlink() if ours is None else mine.write_bytes(ours)
        if name.startswith("predictions/deep"):
            mine.parent.rmdir()
    assert "nothing has changed since" in bench.label(inputs, "out").done().out
    assert runs.results(done.output)


def test_a_link_where_results_go_is_refused_and_nothing_behind_it_is_touched(head: Path, tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, head)
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(2))
    done = bench.label(inputs, "elsewhere", "--keep-parts").done()
    for folder in ("parts", "predictions", "images", "plan", "heartbeats", ".merging"):
        (done.output / folder).mkdir(exist_ok=True)
        before = runs.tree(done.output)
        out = tmp_path / f"out_{folder}"
        out.mkdir()
        (out / folder).symlink_to(done.output / folder)
        for more in ((), ("--overwrite",)):
            ended = bench.label(inputs, out.name, *more)
            assert ended.status == 2
            assert f"{folder}, where results go, is a link, and links are not followed" in ended.line
        assert runs.tree(done.output) == before


def test_a_link_among_parts_and_a_file_in_place_of_a_folder_are_refused(head: Path, tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, head)
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(2))
    part = next((bench.label(inputs, "other", "--keep-parts").done().output / "parts").glob("*.parquet"))
    (tmp_path / "out" / "parts").mkdir(parents=True)
    (tmp_path / "out" / "parts" / part.name).symlink_to(part)
    assert f"parts/{part.name} is where results are written" in bench.label(inputs, "out").line
    pictures.write_folder(tmp_path / "file", {"images": b"mine"})
    assert "images, where results go, is no folder" in bench.label(inputs, "file", "--overwrite").line


@pytest.mark.parametrize("name", ["run.json", "plan/identity.json"])
def test_a_damaged_record_is_named_and_overwriting_cures_it(head: Path, tmp_path: Path, name: str) -> None:
    bench = runs.Bench(tmp_path, head)
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(2))
    done = bench.label(inputs, "out", "--keep-parts").done()
    before = runs.results(done.output)
    (done.output / name).write_bytes(b"garbage")
    refused = bench.label(inputs, "out")
    assert refused.status == 2
    assert f"{name} is damaged, so the settings of the results there are unknown; --overwrite" in refused.line
    assert runs.results(bench.label(inputs, "out", "--overwrite").done().output) == before


def test_a_lock_of_the_users_is_not_emptied(head: Path, tmp_path: Path) -> None:
    mine = pictures.write_folder(tmp_path / "elsewhere", {"mine.txt": b"mine"}) / "mine.txt"
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(mine)
    runs.Bench(tmp_path, head).label(inputs, "out").done()
    assert mine.read_bytes() == b"mine"


def test_what_a_kill_or_a_power_cut_left_is_ours(head: Path, tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, head)
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(5))
    once = bench.label(inputs, "once").done()
    out = bench.label(inputs, "out", "--keep-parts").done().output
    part = next((out / "parts").glob("*.parquet"))
    part.write_bytes(bytes(part.stat().st_size))
    left = {
        f"parts/{'1' * 32}.parquet": b"PAR1 cut",
        f"parts/{'2' * 32}.parquet": b"",
        ".merging/000001.parquet": b"PAR1",
    }
    left |= {
        "predictions/part-00000.unfinished": b"",
        "plan/plan.tmp": b'{"inputs',
        "heartbeats/worker-7.log": b"words",
    }
    pictures.write_folder(out, left)
    (out / "run.json").unlink()
    assert runs.results(bench.label(inputs, "out").done().output) == runs.results(once.output)
    assert not {path.name for path in out.iterdir()} & {"parts", "plan", ".merging", "heartbeats"}


@pytest.mark.parametrize("flag", ["--output", "--cache"])
def test_results_and_cache_on_another_kind_of_store_are_refused(tmp_path: Path, flag: str) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(1))
    ended = bench.label(inputs, "out", flag, "hdfs://bucket/place")
    assert ended.status == 2 and f"{flag} hdfs://bucket/place" in ended.err and "s3:// or gs://" in ended.err


def test_a_refused_flag_costs_no_results_beside_overwrite(tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(1))
    done = bench.label(inputs, "out").done()
    before = {name: of for name, of in runs.tree(done.output).items() if name != ".lock"}  # which is opened anew
    assert bench.label(inputs, "out", "--overwrite", "--cache", "hdfs://bucket/place").status == 2
    assert bench.label(inputs, "out", "--overwrite", "--", "--direct_num_workers=many").status == 2
    for runner in ("Strange", "no.such.Runner", "DataflowRunner"):  # the last wants a project
        assert bench.label(inputs, "out", "--overwrite", f"--runner={runner}").status == 2
    assert before.items() <= runs.tree(done.output).items()


def test_dataflow_with_a_local_output_is_one_line(tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    ended = bench.label("gs://bucket/in", "out", "--runner=DataflowRunner")
    assert ended.status == 2
    assert "workers of DataflowRunner cannot see this machine's disk; give a gs:// or s3:// path" in ended.line
    assert not (tmp_path / "out").exists()


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
    assert ended.status == 2 and "its run.json was not written by label" in ended.err


def test_a_dry_run_refuses_what_the_run_would_refuse(tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(2))
    (tmp_path / "sample.csv").write_text("id,label\nelsewhere.png,0\n")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "command.json").write_text('{"command": "train-head"}')
    bench.label(inputs, "out").done()
    for output, more in (
        ("new", ("--sample-submission", str(tmp_path / "sample.csv"))),
        ("out", ("write.rows_per_file=7",)),
        ("new", ("--runner=NoSuchRunner",)),
        ("new", ("--direct_num_workers=x",)),
        ("other", ()),
        ("other", ("--overwrite",)),
        ("file", ()),
        ("file/below", ()),
    ):
        dry, run = bench.label(inputs, output, *more, "--dry-run"), bench.label(inputs, output, *more)
        assert (dry.status, dry.out) == (run.status, run.out) == (2, ""), (output, more)
        assert dry.line == run.line or output.startswith("file")
    assert bench.label(inputs, "out", "--dry-run").done().out


def test_a_fault_of_the_engine_ends_a_dry_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DeviceOutOfMemory("the device is full")

    monkeypatch.setattr("pipeline.run.dry_run.get_device", full)
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(1))
    ended = bench.label(inputs, "out", "--dry-run")
    assert ended.status == 3 and ended.err.count("\n") == 1 and "the device is full" in ended.err
