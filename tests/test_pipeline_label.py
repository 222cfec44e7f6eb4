"""label: what of a run that went before it leaves alone. Whole runs: test_end_to_end_*.py."""

from __future__ import annotations

from pathlib import Path

import pictures
import pytest
import runs


def test_a_finished_folder_is_left_alone_whatever_the_runtime_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    inputs = pictures.write_folder(tmp_path / "in", runs.faces(20))
    first = bench.label(inputs, "out", "read.block_images=8").done()
    record = (first.output / "run.json").read_bytes()
    monkeypatch.setattr("pipeline.label.run_graph", None)  # it must not even be started
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
