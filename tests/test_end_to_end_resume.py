"""Promise 5: what stands in an output folder is used, refused, or done again; never mixed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pictures
import pytest
import runs

from pipeline.run.output_folder import OutputFolder

SETTINGS = ("write.no_face_label=neutral", "read.block_images=8")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_head(tmp_path_factory.mktemp("head"))


@pytest.fixture
def bench(tmp_path: Path, head: Path) -> runs.Bench:
    return runs.Bench(tmp_path, head)


def three_inputs(place: Path) -> list[Path]:
    """Writes a folder, a tar file with one bad image and a streamed one; with blocks of 8 a dozen blocks or so."""
    files = runs.faces(90)
    names = list(files)
    return [
        pictures.write_folder(place / "loose", {name: files[name] for name in names[:40]}),
        pictures.write_tar(place / "a.tar", {**{name: files[name] for name in names[40:69]}, "bad.png": b"no image"}),
        pictures.write_tar(place / "b.tar.gz", {name: files[name] for name in names[69:]}),
    ]


def stop_before_merging(bench: runs.Bench, inputs: list[Path], output: str = "out") -> int:
    """Runs until all parts stand and nothing is merged; returns how many parts there are."""
    stopped = bench.label(inputs, output, *SETTINGS, "--max-rejected", "0")
    assert stopped.status == 3
    assert "--max-rejected" in stopped.line
    return len(runs.parts(stopped.output))


def fresh(bench: runs.Bench, inputs: list[Path]) -> dict[str, str]:
    """Returns the results of a run that nothing preceded."""
    ended = bench.label(inputs, "fresh", *SETTINGS).done()
    assert ended.record["resume"] == {"blocks_reused": 0, "blocks_redone": 0}
    return runs.results(ended.output)


# --- going on ---------------------------------------------------------------------------------------------------------


def test_finished_blocks_are_kept_whatever_the_runtime_settings(bench: runs.Bench) -> None:
    inputs = three_inputs(bench.path)
    blocks = stop_before_merging(bench, inputs)
    standing = runs.tree(bench.path / "out" / "parts")

    other = ("read.block_images=200", "read.threads=1", "features.batch_size=8")  # the layout stays the plan's
    ended = bench.label(inputs, "out", *SETTINGS, *other, "--keep-parts").done()

    assert ended.record["resume"] == {"blocks_reused": blocks, "blocks_redone": 0}
    assert runs.tree(ended.output / "parts") == standing
    assert runs.results(ended.output) == fresh(bench, inputs)


def test_an_input_that_changed_meanwhile_is_done_again_and_reported(bench: runs.Bench) -> None:
    inputs = three_inputs(bench.path)
    blocks = stop_before_merging(bench, inputs)
    changed = next((inputs[0] / "happy").iterdir())
    changed.write_bytes(next(iter(runs.faces(1, first=500).values())))

    ended = bench.label(inputs, "out", *SETTINGS).done()

    assert ended.record["resume"] == {"blocks_reused": blocks - 1, "blocks_redone": 1}
    assert "1 done again because an input changed or their part was damaged" in ended.out
    assert runs.results(ended.output) == fresh(bench, inputs)


def test_an_archive_that_was_written_anew_is_streamed_and_done_again(bench: runs.Bench) -> None:
    inputs = three_inputs(bench.path)
    blocks = stop_before_merging(bench, inputs)
    pictures.write_tar(inputs[2], runs.faces(21, first=600))

    ended = bench.label(inputs, "out", *SETTINGS).done()

    streamed = 3  # blocks of the archive that was written anew
    assert ended.record["resume"] == {"blocks_reused": blocks - streamed, "blocks_redone": streamed}
    assert runs.results(ended.output) == fresh(bench, inputs)


def test_an_archive_whose_blocks_all_stand_is_not_read_again(
    bench: runs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = three_inputs(bench.path)
    stop_before_merging(bench, inputs)
    monkeypatch.setattr("transforms.read_blocks.stream_blocks", None)
    ended = bench.label(inputs, "out", *SETTINGS).done()
    assert ended.record["counts"]["images"] == 91


def test_an_input_that_is_gone_leaves_the_results(bench: runs.Bench) -> None:
    inputs = three_inputs(bench.path)
    stop_before_merging(bench, inputs)
    shutil.rmtree(inputs[0] / "sad")

    ended = bench.label(inputs, "out", *SETTINGS).done()

    assert not any(image_id.startswith("loose/sad/") for image_id in runs.images(ended.output))
    assert runs.results(ended.output) == fresh(bench, inputs)


def test_a_part_that_was_damaged_is_done_again(bench: runs.Bench) -> None:
    inputs = three_inputs(bench.path)
    blocks = stop_before_merging(bench, inputs)
    cut, emptied, *_ = sorted((bench.path / "out" / "parts").glob("*.parquet"))
    cut.write_bytes(cut.read_bytes()[:-30])
    emptied.write_bytes(b"")

    ended = bench.label(inputs, "out", *SETTINGS).done()

    assert ended.record["resume"]["blocks_reused"] == blocks - 2
    assert runs.results(ended.output) == fresh(bench, inputs)


def test_a_file_more_costs_one_block(bench: runs.Bench) -> None:
    place = pictures.write_folder(bench.path / "loose", runs.faces(120))
    settings = (*SETTINGS, "--keep-parts")
    first = bench.label(place, "out", *settings).done()
    blocks = len(runs.parts(first.output))
    assert blocks >= 15
    name, data = next(iter(runs.faces(1, first=900).items()))
    (place / name).write_bytes(data)

    second = bench.label(place, "out", *settings).done()

    assert second.record["counts"]["images"] == 121
    assert second.record["resume"]["blocks_redone"] == 1
    assert second.record["resume"]["blocks_reused"] == blocks - 1
    assert second.record["cache"]["cached"] < 8  # the other images of that block; nothing else was looked at
    again = bench.label(place, "again", *SETTINGS).done()
    assert runs.results(second.output) == runs.results(again.output)


# --- finished ---------------------------------------------------------------------------------------------------------


def test_a_finished_folder_with_the_same_inputs_is_left_alone(
    bench: runs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = three_inputs(bench.path)
    first = bench.label(inputs, "out", *SETTINGS).done()
    kept = ("predictions", "images", "submission.csv", "report.html", "report.json", "run.json", "cache")
    before = {name: found for name, found in runs.tree(first.output).items() if name.split("/")[0] in kept}
    monkeypatch.setattr("pipeline.run.drive.run_graph", None)  # it must not even be started

    other = ("read.block_images=64", "read.threads=1", "features.batch_size=8")  # none of these changes a result
    second = bench.label(inputs, "out", *SETTINGS, *other).done()

    assert "nothing has changed since" in second.out
    assert first.out.splitlines()[0] in second.out
    after = {name: found for name, found in runs.tree(first.output).items() if not name.startswith(".")}
    assert after == before  # neither plan/ nor parts/ either


@pytest.mark.parametrize("again, kept", [(("--keep-parts",), True), ((), False)])
def test_parts_that_were_kept_stay_while_they_are_asked_for(
    again: tuple[str, ...], kept: bool, bench: runs.Bench
) -> None:
    inputs = three_inputs(bench.path)
    first = bench.label(inputs, "out", *SETTINGS, "--keep-parts").done()
    before = runs.parts(first.output)
    assert before
    assert "nothing has changed since" in bench.label(inputs, "out", *SETTINGS, *again).done().out
    assert runs.parts(first.output) == (before if kept else set())


@pytest.mark.parametrize("setting", ["write.rows_per_file=50", "write.label_values=name"])
def test_an_unfinished_run_may_still_change_how_results_are_written(setting: str, bench: runs.Bench) -> None:
    inputs = three_inputs(bench.path)
    blocks = stop_before_merging(bench, inputs)
    ended = bench.label(inputs, "out", *SETTINGS, setting).done()
    assert ended.record["resume"]["blocks_reused"] == blocks
    assert runs.results(ended.output) == runs.results(bench.label(inputs, "fresh", *SETTINGS, setting).done().output)


@pytest.mark.parametrize("lost", ["submission.csv", "predictions/part-00000-of-00001.parquet"])
def test_a_finished_folder_that_lost_a_file_is_made_whole(lost: str, bench: runs.Bench) -> None:
    inputs = three_inputs(bench.path)
    first = bench.label(inputs, "out", *SETTINGS).done()
    before = runs.results(first.output)
    (first.output / lost).unlink()
    second = bench.label(inputs, "out", *SETTINGS).done()
    assert second.record["cache"]["computed"] <= 1  # what cannot be decoded is known too, unless reading refused it
    assert runs.results(second.output) == before


def test_a_finished_folder_with_other_inputs_is_brought_up_to_date(bench: runs.Bench) -> None:
    inputs = three_inputs(bench.path)
    bench.label(inputs[:1], "out", *SETTINGS).done()
    both = bench.label(inputs, "out", *SETTINGS).done()
    assert both.record["counts"]["images"] == 91
    assert runs.results(both.output) == fresh(bench, inputs)


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "finished, setting, reported",
    [
        (True, "write.label_values=name", "label_values"),
        (True, "write.no_face_label=happy", "no_face_label"),
        (True, "write.rows_per_file=50", "rows_per_file"),
        (True, "features.precision=bfloat16", "precision"),
        (False, "features.precision=bfloat16", "precision"),
        (False, "read.max_pixels=1000000", "max_pixels"),
    ],
)
def test_a_folder_of_other_settings_is_refused_with_the_difference(
    finished: bool, setting: str, reported: str, bench: runs.Bench
) -> None:
    inputs = three_inputs(bench.path)
    if finished:
        bench.label(inputs, "out", *SETTINGS).done()
    else:
        stop_before_merging(bench, inputs)
    before = runs.tree(bench.path / "out")

    refused = bench.label(inputs, "out", *SETTINGS, setting)

    assert refused.status == 2
    assert reported in refused.line
    assert "--overwrite" in refused.line
    after = runs.tree(bench.path / "out")
    assert {**before, ".lock": None} == {**after, ".lock": None}


def test_a_folder_of_another_head_is_refused(bench: runs.Bench, tmp_path: Path) -> None:
    inputs = three_inputs(bench.path)
    bench.label(inputs, "out", *SETTINGS).done()
    other = runs.make_head(tmp_path / "other", classes=("happy", "neutral"))
    refused = bench.label(inputs, "out", *SETTINGS, "--head", str(other))
    assert refused.status == 2
    assert "head" in refused.line


def test_overwrite_starts_anew_and_keeps_the_cache(bench: runs.Bench) -> None:
    inputs = three_inputs(bench.path)
    bench.label(inputs, "out", *SETTINGS, "--keep-parts").done()
    (bench.path / "out" / "notes.txt").write_text("the user's own")
    ended = bench.label(inputs, "out", *SETTINGS, "write.label_values=name", "--overwrite").done()
    assert ended.record["resume"] == {"blocks_reused": 0, "blocks_redone": 0}
    assert ended.record["cache"]["computed"] == 0
    assert {line.split(",")[1] for line in runs.submission(ended.output)[1:]} <= set(runs.CLASSES)
    assert (ended.output / "notes.txt").read_text() == "the user's own"


def test_a_command_that_was_refused_does_not_claim_the_folder(bench: runs.Bench) -> None:
    inputs = three_inputs(bench.path)
    assert bench.label(bench.path / "mistyped", "out", *SETTINGS, "read.max_pixels=1000000").status == 2
    assert bench.label(inputs, "out", *SETTINGS, "--sample-submission", str(bench.path / "mistyped.csv")).status == 2
    ended = bench.label(inputs, "out", *SETTINGS, "read.block_images=64").done()
    assert ended.record["resume"] == {"blocks_reused": 0, "blocks_redone": 0}


def test_a_mistyped_input_does_not_cost_a_finished_run(bench: runs.Bench) -> None:
    finished = bench.label(three_inputs(bench.path), "out", *SETTINGS).done()
    before = runs.results(finished.output)
    refused = bench.label(bench.path / "mistyped", "out", *SETTINGS, "--overwrite")
    assert refused.status == 2
    assert finished.record["counts"]["images"] == 91
    assert runs.results(finished.output) == before


def test_one_run_an_output_folder(bench: runs.Bench) -> None:
    inputs = three_inputs(bench.path)
    with OutputFolder(str(bench.path / "out")).locked():
        refused = bench.label(inputs, "out", *SETTINGS)
        assert refused.status == 3
        assert "another run is using this folder" in refused.line
        assert os.listdir(bench.path / "out") == [".lock"]
    bench.label(inputs, "out", *SETTINGS).done()
