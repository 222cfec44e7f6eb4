"""Promise 4 and half of promise 8: features are kept by content, checked when they are used, and shared by runs."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
import runs

from models.backbones.registry import BUNDLED_WEIGHTS
from pipeline.run import drive
from transforms.formats.cache import feature_cache
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.publish import StorageError

STATED = "write.no_face_label=neutral"
COUNT = 60


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_head(tmp_path_factory.mktemp("head"))


@pytest.fixture
def bench(tmp_path: Path, head: Path) -> runs.Bench:
    return runs.Bench(tmp_path, head)


@pytest.fixture
def cached(bench: runs.Bench) -> runs.Ended:
    """A finished run over a folder, six segments in its cache, some images without a label."""
    files = {**runs.faces(COUNT), "page.png": b"<html>", "cut.png": next(iter(runs.faces(1).values()))[:-20]}
    source = pictures.write_folder(bench.path / "in", files)
    ended = bench.label(source, "first", STATED, "read.block_images=16").done()
    assert ended.record["cache"] == {"cached": 0, "computed": COUNT + 2, "damaged": 0}
    return ended


def again(bench: runs.Bench, source: Path, output: str, *more: str) -> runs.Ended:
    """Runs with the cache of the first run."""
    cache = ("--cache", str(bench.path / "first" / "cache"))
    return bench.label(source, output, STATED, "read.block_images=16", *more, *cache)


def by_content(output: Path) -> dict[str, tuple[float, ...]]:
    """Returns the probabilities of each labelled image by the digest of its bytes."""
    digests = {image_id: row["digest"] for image_id, row in runs.images(output).items()}
    return {
        digests[row["image_id"]]: tuple(value for name, value in row.items() if name.startswith("p_"))
        for row in runs.predictions(output)
    }


# --- what hits --------------------------------------------------------------------------------------------------------


def renamed(place: Path, files: dict[str, bytes]) -> Path:
    return pictures.write_folder(place / "moved", {f"{n // 7}/IMG_{n}.JPG": d for n, d in enumerate(files.values())})


def tarred(place: Path, files: dict[str, bytes]) -> Path:
    return pictures.write_tar(place / "same.tar", dict(reversed(list(files.items()))))


def zipped(place: Path, files: dict[str, bytes]) -> Path:
    return pictures.write_zip(place / "same.zip", files)


def streamed(place: Path, files: dict[str, bytes]) -> Path:
    return pictures.write_tar(place / "same.tar.gz", files)


def tabled(place: Path, files: dict[str, bytes]) -> Path:
    return pictures.write_parquet(place / "same.parquet", files)


@pytest.mark.parametrize("move", [renamed, tarred, zipped, streamed, tabled])
def test_moved_renamed_and_archived_again_images_are_known(
    move: Callable[[Path, dict[str, bytes]], Path], bench: runs.Bench, cached: runs.Ended
) -> None:
    files = {str(p.relative_to(bench.path / "in")): p.read_bytes() for p in (bench.path / "in").rglob("*.png")}
    ended = again(bench, move(bench.path, files), "moved_out").done()
    assert ended.record["cache"] == {"cached": COUNT + 2, "computed": 0, "damaged": 0}
    assert f"{COUNT + 2} of {COUNT + 2} results from the cache" in ended.out
    assert by_content(ended.output) == by_content(cached.output)
    assert ended.record["reasons"] == cached.record["reasons"] == {"not_an_image": 1, "truncated": 1}


def test_only_what_is_new_is_computed(bench: runs.Bench, cached: runs.Ended) -> None:
    pictures.write_folder(bench.path / "in", runs.faces(5, first=COUNT))
    ended = again(bench, bench.path / "in", "more").done()
    assert ended.record["cache"] == {"cached": COUNT + 2, "computed": 5, "damaged": 0}


def test_names_sizes_and_times_prove_nothing(bench: runs.Bench, cached: runs.Ended) -> None:
    """One pixel differs; name, size and times do not."""
    path = bench.path / "in" / "happy" / "00000.png"
    stat, before = path.stat(), path.read_bytes()
    changed = pictures.png(np.full((24, 24), 7, np.uint8))
    changed += b"\0" * (len(before) - len(changed))
    path.write_bytes(changed)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size

    ended = again(bench, bench.path / "in", "changed").done()

    assert ended.record["cache"]["computed"] == 1
    old, new = (
        next(row for row in runs.predictions(output) if row["image_id"] == "happy/00000.png")
        for output in (cached.output, ended.output)
    )
    assert old["p_happy"] != new["p_happy"]


@pytest.mark.parametrize(
    "setting",
    ["features.precision=bfloat16", "read.max_pixels=1000000", "faces.detector=haar", "features.input_size=24"],
)
def test_other_features_are_another_folder(setting: str, bench: runs.Bench, cached: runs.Ended) -> None:
    more = [setting]
    if "input_size" in setting:
        head = runs.make_head(bench.path / "head24", settings=[*bench.settings, setting])
        more += ["--head", str(head)]
    ended = again(bench, bench.path / "in", "other", *more).done()
    assert ended.record["cache"]["cached"] == 0
    assert ended.record["cache_key"] != cached.record["cache_key"]
    folders = {path.name for path in (cached.output / "cache").iterdir()}
    assert folders == {r.record["cache_key"][:16] for r in (cached, ended)}
    states = json.loads((cached.output / "cache" / min(folders) / "fingerprint.json").read_text())
    assert states["sha256"].startswith(min(folders))


def test_the_margin_of_faces_changes_the_folder(bench: runs.Bench, cached: runs.Ended) -> None:
    haar = again(bench, bench.path / "in", "haar", "faces.detector=haar").done()
    wider = again(bench, bench.path / "in", "wider", "faces.detector=haar", "faces.margin=0.3").done()
    assert len({r.record["cache_key"] for r in (cached, haar, wider)}) == 3


def test_batch_and_block_sizes_do_not_change_the_folder(bench: runs.Bench, cached: runs.Ended) -> None:
    ended = again(bench, bench.path / "in", "out", "features.batch_size=8", "read.block_images=3", "read.threads=1")
    assert ended.done().record["cache"]["computed"] == 0


# --- damage -----------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace(path: Path) -> None:
    path.write_bytes(b"not HDF5 at all" * 100)


@pytest.mark.parametrize("index", ["index", "no index"])
@pytest.mark.parametrize("damage", [flip, cut, empty, replace])
def test_damaged_segments_are_set_aside_reported_and_computed_again(
    damage: Callable[[Path], None], index: str, bench: runs.Bench, cached: runs.Ended
) -> None:
    segments = runs.segments(cached.output / "cache")
    assert len(segments) >= 3
    folder = segments[0].parent
    for path in segments[:2]:
        damage(path)
    if index == "no index":
        for path in folder.iterdir():
            if path.suffix != ".h5" and path.name != "fingerprint.json":
                path.unlink()

    ended = again(bench, bench.path / "in", "healed").done()

    assert ended.record["cache"]["damaged"] == 2
    assert "2 damaged cache files moved aside and computed again" in ended.out
    assert 0 < ended.record["cache"]["computed"] < COUNT
    assert {path.name for path in folder.glob("*.damaged")} == {path.name + ".damaged" for path in segments[:2]}
    assert runs.results(ended.output) == runs.results(cached.output)

    healed = again(bench, bench.path / "in", "healed_again").done()
    assert healed.record["cache"] == {"cached": COUNT + 2, "computed": 0, "damaged": 0}
    verified = runs.run("cache", "verify", str(cached.output / "cache"), output=bench.path)
    assert verified.status == 0, verified.err


def test_a_lost_cache_is_filled_again(bench: runs.Bench, cached: runs.Ended) -> None:
    shutil.rmtree(cached.output / "cache")
    ended = again(bench, bench.path / "in", "refilled").done()
    assert ended.record["cache"] == {"cached": 0, "computed": COUNT + 2, "damaged": 0}
    assert runs.results(ended.output) == runs.results(cached.output)


def test_a_cache_that_may_only_be_read_serves_a_run_with_new_images(
    bench: runs.Bench, cached: runs.Ended, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pictures.write_folder(bench.path / "in", runs.faces(5, first=COUNT))

    def forbidden(path: str, *_: object, **__: object) -> None:
        raise StorageError(errno.EROFS, f"cannot write {path}: Read-only file system")

    before = runs.tree(cached.output / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(feature_cache, "publish", forbidden)
        ended = again(bench, bench.path / "in", "reading").done()
    assert ended.record["cache"] == {"cached": COUNT + 2, "computed": 5, "damaged": 0}
    assert runs.tree(cached.output / "cache") == before
    reported = [record.getMessage() for record in caplog.records if "are not cached" in record.getMessage()]
    assert len(reported) == 1
    assert str(cached.output / "cache") in reported[0]
    assert runs.results(ended.output) == runs.results(again(bench, bench.path / "in", "writing").done().output)


# --- for people, and without TensorFlow -------------------------------------------------------------------------------


def test_a_notebook_reads_ids_labels_and_features_of_a_run(cached: runs.Ended) -> None:
    cache = FeatureCache.open(cached.output / "cache")
    assert sorted(cache.face_ids) == sorted(row["image_id"] for row in runs.predictions(cached.output))
    assert all(name.split("/")[0] == label for name, label in zip(cache.face_ids, cache.face_labels, strict=True))
    assert cache.features.shape[0] == COUNT
    assert cache.features.dtype == np.float16


def test_a_fully_cached_run_with_a_linear_head_loads_no_engine(bench: runs.Bench, cached: runs.Ended) -> None:
    script = (
        "import runpy, sys\n"
        "try:\n    runpy.run_module('pipeline', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    print('loaded:', sorted({'tensorflow', 'keras', 'jax'} & set(sys.modules)), file=sys.stderr)\n"
        "    raise\n"
    )
    arguments = bench.arguments(
        bench.path / "in", "no_engine", STATED, "read.block_images=16", "--cache", str(cached.output / "cache")
    )
    ended = runs.finish(runs.start(*arguments, script=script), bench.path / "no_engine").done()
    assert ended.err.splitlines()[-1] == "loaded: []"
    assert ended.record["cache"]["computed"] == 0
    assert runs.results(ended.output) == runs.results(cached.output)


def test_two_runs_at_once_share_a_cache(bench: runs.Bench) -> None:
    source = pictures.write_tar(bench.path / "many.tar", runs.faces(300))
    more = (STATED, "read.block_images=16", "--cache", str(bench.path / "shared"))
    names = ("one", "two")
    processes = [runs.start(*bench.arguments(source, name, *more)) for name in names]
    one, two = (runs.finish(process, bench.path / name).done() for process, name in zip(processes, names, strict=True))
    assert runs.results(one.output) == runs.results(two.output)

    verified = runs.run("cache", "verify", str(bench.path / "shared"), output=bench.path)
    assert verified.status == 0, verified.err
    third = bench.label(source, "three", *more).done()
    assert third.record["cache"] == {"cached": 300, "computed": 0, "damaged": 0}
    assert runs.results(third.output) == runs.results(one.output)


def test_weights_that_are_replaced_behind_the_start_are_not_kept_under_the_old_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "w.npz"
    shutil.copy(BUNDLED_WEIGHTS, weights)
    settings = (*runs.SMALL, f"features.weights={weights}")
    place = runs.Bench(tmp_path, runs.make_head(tmp_path / "head", settings=settings), settings)
    source = pictures.write_folder(tmp_path / "in", runs.faces(20))
    arrays = dict(np.load(weights))
    arrays["block1_conv1/kernel"] = arrays["block1_conv1/kernel"][::-1].copy()
    real = drive.run_graph

    def with_other_weights(*given: Any, **named: Any) -> Any:
        np.savez(weights, **arrays)
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(drive, "run_graph", with_other_weights)
        stopped = place.label(source)
    assert stopped.status == 3
    assert f"weights {weights} has changed since the run started; restore the file" in stopped.line
    assert runs.segments(stopped.output / "cache") == []

    shutil.copy(BUNDLED_WEIGHTS, weights)
    gone_on = place.label(source).done()
    assert runs.results(gone_on.output) == runs.results(place.label(source, "fresh").done().output)
