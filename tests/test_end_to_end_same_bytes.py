"""Promise 2: predictions, images and submission depend on input and settings alone, not on how the work was done."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pictures
import pytest
import runs

from models.runtimes import device
from models.runtimes.tensorflow import TensorFlow

STATED = "write.no_face_label=neutral"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A folder, a tar, a zip and a tar that can only be streamed; good, bad and repeated images, 303 in all."""
    place = tmp_path_factory.mktemp("inputs")
    files, nasty = runs.faces(230), {name: data for name, (data, _) in pictures.nasty_files().items()}
    names = list(files)
    return [
        pictures.write_folder(place / "loose", {name: files[name] for name in names[:60]}),
        pictures.write_tar(place / "many.tar", {name: files[name] for name in names[50:200]}),  # ten are in both
        pictures.write_zip(place / "nasty.zip", nasty),
        pictures.write_tar(place / "streamed.tar.gz", {name: files[name] for name in names[180:]}),
    ]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("bench")
    return runs.Bench(place, runs.make_head(place / "head"))


@pytest.fixture(scope="module")
def undisturbed(bench: runs.Bench, inputs: list[Path]) -> runs.Ended:
    """A run as it comes: batches of 64, blocks of 256, a cold cache."""
    ended = bench.label(inputs, "undisturbed", STATED).done()
    assert ended.record["counts"]["images"] == sum((60, 150, len(pictures.nasty_files()), 50))
    assert len({row["label"] for row in runs.predictions(ended.output)}) == 3  # else equal bytes would say little
    return ended


@pytest.mark.parametrize(
    "settings",
    [
        ["features.batch_size=8"],
        ["read.block_images=32"],
        ["read.block_images=1"],
        ["read.block_bytes=3000"],
        ["read.threads=1"],
        ["read.threads=5", "read.block_images=7", "features.batch_size=8"],
        ["--direct_num_workers=2"],
        ["--verbose"],
    ],
    ids=" ".join,
)
def test_how_the_work_is_cut_makes_no_difference(
    settings: list[str], bench: runs.Bench, inputs: list[Path], undisturbed: runs.Ended
) -> None:
    output = " ".join(settings).replace("/", "")
    ended = bench.label(inputs, output, STATED, *settings).done()
    assert runs.results(ended.output) == runs.results(undisturbed.output)


@pytest.mark.parametrize("blocks", [256, 16])
def test_a_warm_cache_makes_no_difference(
    blocks: int, bench: runs.Bench, inputs: list[Path], undisturbed: runs.Ended
) -> None:
    cache = undisturbed.output / "cache"
    ended = bench.label(inputs, f"warm{blocks}", STATED, f"read.block_images={blocks}", "--cache", str(cache)).done()
    assert ended.record["cache"]["computed"] == 0
    assert runs.results(ended.output) == runs.results(undisturbed.output)


def test_a_cache_that_knows_some_of_the_images_makes_no_difference(
    bench: runs.Bench, inputs: list[Path], undisturbed: runs.Ended
) -> None:
    cache = str(bench.path / "some_cache")
    bench.label(inputs[1], "some", STATED, "--cache", cache).done()
    ended = bench.label(inputs, "rest", STATED, "--cache", cache).done()
    assert 150 <= ended.record["cache"]["cached"] < ended.record["counts"]["images"]
    assert runs.results(ended.output) == runs.results(undisturbed.output)


def test_the_order_of_the_inputs_makes_no_difference(
    bench: runs.Bench, inputs: list[Path], undisturbed: runs.Ended
) -> None:
    ended = bench.label(inputs[::-1], "reversed", STATED).done()
    assert runs.results(ended.output) == runs.results(undisturbed.output)


def test_processes_of_their_own_make_no_difference(
    bench: runs.Bench, inputs: list[Path], undisturbed: runs.Ended
) -> None:
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=2", "read.block_images=32"]
    output = bench.path / "processes"
    arguments = bench.arguments(inputs, "processes", STATED, *workers)
    ended = runs.finish(runs.start(*arguments), output).done()
    assert runs.results(ended.output) == runs.results(undisturbed.output)
    seconds = ended.record["seconds"]["by_stage"]
    assert {"read", "detect", "device", "write"} <= set(seconds)  # from the workers' files


def test_several_faces_come_in_the_same_order_however_many_threads_look(bench: runs.Bench) -> None:
    face = pictures.portrait()
    files = {
        "one.png": pictures.png(face),
        "two.png": pictures.png(np.hstack([face, face[:, ::-1]])),
        "none.png": pictures.png(pictures.quarters(200, 300)),
        "turned.jpg": pictures.jpeg(np.rot90(face), orientation=6),
    }
    source = pictures.write_folder(bench.path / "photos", files)
    with_detector = [STATED, "faces.detector=haar", "faces.haar.min_face_fraction=0.05"]
    first = bench.label(source, "haar", *with_detector).done()
    second = bench.label(source, "haar_again", *with_detector, "read.threads=1", "read.block_images=1").done()
    assert runs.results(first.output) == runs.results(second.output)

    faces = Counter(row["image_id"] for row in runs.predictions(first.output))
    assert faces["two.png"] >= 2
    assert faces["one.png"] >= 1
    assert runs.images(first.output)["none.png"]["status"] == "no_face"
    for row, before in zip(runs.predictions(first.output)[1:], runs.predictions(first.output), strict=False):
        if row["image_id"] == before["image_id"]:
            assert row["face_index"] == before["face_index"] + 1
            assert row["detection_score"] <= before["detection_score"]


def test_one_copy_of_the_weights_is_loaded_and_compiled_once(
    bench: runs.Bench, inputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    real = TensorFlow.compile
    monkeypatch.setattr(TensorFlow, "compile", lambda *given: compiled.append(given) or real(*given))
    monkeypatch.setattr(device, "_devices", {})
    bench.label(inputs, "once", STATED, "read.block_images=16", "--direct_num_workers=3").done()
    assert len(compiled) == 1
