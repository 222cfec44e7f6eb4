"""What a run removes in its output folder, and what it refuses to read there: the user's files are not its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import gradient, png, write_folder

from pipeline.errors import UsageError
from pipeline.run.input_files import find_inputs
from pipeline.run.own_files import OWN_FOLDERS, remove_own, without_own

PART = "part-00000-of-00001.parquet"
KEY = "0123456789abcdef0123456789abcdef"


def names(patterns: list[Path], output: Path, cache: Path | None = None) -> list[str]:
    found = find_inputs([str(pattern) for pattern in patterns])
    return [file.path for file in without_own(found, str(output), str(cache or output / "cache"))]


@pytest.mark.parametrize("folder", OWN_FOLDERS)
def test_an_input_where_results_are_written_is_refused(tmp_path: Path, folder: str) -> None:
    write_folder(tmp_path / folder, {"a.png": png(gradient(4, 4))})
    for pattern in (tmp_path / folder, tmp_path, tmp_path / folder / "*.png"):
        with pytest.raises(UsageError, match=rf"{folder}/a\.png is where results are written \(--output .*another"):
            names([pattern], tmp_path)
    assert len(names([tmp_path / folder], tmp_path / "elsewhere")) == 1


def test_shards_of_the_users_with_our_names_are_refused_and_never_dropped(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", {PART: b""})
    with pytest.raises(UsageError, match="is where results are written"):
        names([tmp_path], tmp_path)  # no run has been here
    write_folder(tmp_path, {"run.json": b"{}"})
    with pytest.raises(UsageError, match="is where results are written"):
        names([tmp_path / "images"], tmp_path)  # asked for by name


def test_an_output_folder_within_the_input_is_no_input(tmp_path: Path) -> None:
    own = {f"{folder}/{PART}": b"" for folder in ("predictions", "images")}
    own |= {f"parts/{KEY}.parquet": b"", "plan/identity.json": b"{}", "plan/blocks.jsonl": b"", "run.json": b"{}"}
    own |= {"submission.csv": b"", ".lock": b"", "cache/0123456789abcdef/1.h5": b"", "heartbeats/worker-7.json": b""}
    write_folder(tmp_path / "out", own)
    write_folder(tmp_path, {"a.png": b"", "out/mine.png": b"", "out/cache/mine.png": b"", "predictions/b.png": b""})
    found = [Path(path).relative_to(tmp_path).as_posix() for path in names([tmp_path], tmp_path / "out")]
    assert found == ["a.png", "out/cache/mine.png", "out/mine.png", "predictions/b.png"]


def test_a_link_to_the_output_is_the_output(tmp_path: Path) -> None:
    write_folder(tmp_path / "real" / "images", {"a.png": b""})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UsageError, match="is where results are written"):
        names([tmp_path / "real" / "images"], tmp_path / "link")


def test_the_users_files_among_our_own_stay(tmp_path: Path) -> None:
    ours = {f"parts/{KEY}.parquet": b"", f"parts/{KEY}.stream.json": b"", "plan/plan.json": b"", f"images/{PART}": b""}
    kept = {"images/a.png": b"", "parts/table.parquet": b"", "plan/floor.png": b"", "predictions/deep/part.txt": b""}
    write_folder(tmp_path, {**ours, **kept, "heartbeats/worker-3.log": b""})
    (tmp_path / "outside").mkdir()
    remove_own(str(tmp_path))
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)
    assert not (tmp_path / "heartbeats").exists()
    remove_own(str(tmp_path / "outside"))  # nothing there is no fault
