"""Promises 6 and 9: what is wrong with a command stops it at once, in one line with the cure, and writes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pictures
import pytest
import runs


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_head(tmp_path_factory.mktemp("head"))


@pytest.fixture
def bench(tmp_path: Path, head: Path) -> runs.Bench:
    pictures.write_folder(tmp_path / "in", runs.faces(3))
    return runs.Bench(tmp_path, head)


@pytest.mark.parametrize(
    "more, reported",
    [
        (["--batch_sise", "3"], ["--batch_sise", "features.batch_size"]),
        (["--max-rejcted", "0.1"], ["--max-rejcted", "--max-rejected"]),
        (["--max-rejected", "2"], ["--max-rejected", "0 to 1"]),
        (["faces.detektor=none"], ["faces.detektor", "faces.detector"]),
        (["faces.detector=eyes"], ["faces.detector", "haar", "yunet"]),
        (["features.batch_size=4"], ["features.batch_size", "8"]),
        (["features.batch_size=many"], ["features.batch_size", "whole number"]),
        (["features.input_size=4"], ["features.input_size"]),
        (["faces.detector=yunet"], ["faces.yunet.model"]),
        (["faces.detector=yunet", "faces.yunet.model=/nowhere/yunet.onnx"], ["/nowhere/yunet.onnx"]),
        (["features.weights=/nowhere/weights.npz"], ["/nowhere/weights.npz", "nothing is downloaded"]),
        (
            ["features.backbone=vgg16", "features.weights=imagenet", "features.input_size=48"],
            ["vgg16", "nothing is downloaded"],
        ),
        (["features.backbone=vgg61"], ["vgg61", "vgg16"]),
        (["--head", "/nowhere/head"], ["/nowhere/head"]),
        (["write.no_face_label=cheerful"], ["cheerful", "happy, neutral, sad"]),
        (["--config", "/nowhere/settings.yaml"], ["/nowhere/settings.yaml"]),
        (["--sample-submission", "/nowhere/sample.csv"], ["/nowhere/sample.csv"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_setting_or_flag_is_one_line(more: list[str], reported: list[str], bench: runs.Bench) -> None:
    refused = bench.label(bench.path / "in", "out", *more)
    assert refused.status == 2, refused.err
    for word in reported:
        assert word in refused.line
    assert not wrote_results(bench.path / "out")


def wrote_results(output: Path) -> bool:
    """True if anything of a run stands there: parts, tables, a record, or a cache."""
    return output.is_dir() and any((output / name).exists() for name in ("predictions", "images", "run.json", "cache"))


@pytest.mark.parametrize(
    "source, reported",
    [
        ("missing", "missing"),
        ("missing/*.png", "missing/*.png"),
        ("empty", "nothing is there"),
        ("texts", "no image"),
    ],
)
def test_an_input_that_holds_nothing_is_one_line(source: str, reported: str, bench: runs.Bench) -> None:
    (bench.path / "empty").mkdir()
    pictures.write_folder(bench.path / "texts", {"a.txt": b"", "b.md": b""})
    refused = bench.label(bench.path / source)
    assert refused.status == 2, refused.err
    assert reported in refused.line
    assert "--input" in refused.line
    assert not wrote_results(bench.path / "out")


def test_two_inputs_that_give_the_same_ids_stop_at_planning_and_names_cure_it(bench: runs.Bench) -> None:
    other = pictures.write_folder(bench.path / "other", runs.faces(3))
    refused = bench.label([bench.path / "in", other])
    assert refused.status == 2
    assert str(other / "happy/00000.png") in refused.line
    assert "--input NAME=PATTERN" in refused.line
    assert not wrote_results(bench.path / "out")

    named = bench.label([Path(f"a={bench.path / 'in'}"), Path(f"b={other}")], "named").done()
    assert list(runs.images(named.output)) == sorted(f"{prefix}/{name}" for prefix in "ab" for name in runs.faces(3))


def test_an_output_that_cannot_be_made_is_one_line(bench: runs.Bench) -> None:
    (bench.path / "file").write_text("in the way")
    refused = bench.label(bench.path / "in", "file/out")
    assert refused.status == 2
    assert f"{bench.path}/file/out" in refused.line
    assert (bench.path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write everywhere")
def test_an_output_without_permission_is_one_line(bench: runs.Bench) -> None:
    (bench.path / "closed").mkdir(mode=0o555)
    refused = bench.label(bench.path / "in", "closed/out")
    assert refused.status == 2
    assert "can be written" in refused.line


@pytest.mark.parametrize(
    "setting, differs",
    [("features.input_size=24", "input"), ("features.pooling=multi", "pooling"), ("features.seed=1", "weights")],
)
def test_a_head_refuses_features_it_was_not_made_for(setting: str, differs: str, bench: runs.Bench) -> None:
    """Both fingerprints are named, and what makes the difference."""
    made_for = runs.fingerprint_of_space(bench.settings)[:16]
    here = runs.fingerprint_of_space([*bench.settings, setting])[:16]
    refused = bench.label(bench.path / "in", "out", setting)
    assert refused.status == 2
    assert made_for in refused.line
    assert here in refused.line
    assert differs in refused.line
    assert not (bench.path / "out").exists()


def test_a_head_serves_whatever_finds_the_faces(bench: runs.Bench) -> None:
    settings = ("faces.detector=haar", "faces.margin=0.3", "read.max_pixels=1000000", "features.batch_size=8")
    bench.label(bench.path / "in", "out", *settings, "write.no_face_label=sad").done()


def test_help_and_a_mistyped_setting_need_neither_beam_nor_the_engine(bench: runs.Bench) -> None:
    script = (
        "import sys\nfrom pipeline.cli import main\nstatus = main(sys.argv[1:])\n"
        "heavy = {'apache_beam', 'tensorflow', 'keras', 'cv2', 'h5py', 'pyarrow'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy), file=sys.stderr)\nsys.exit(status)\n"
    )
    helped = runs.finish(runs.start("--help", script=script), bench.path)
    assert helped.status == 0
    assert "--input" in helped.out
    assert helped.err == "heavy: []\n"
    mistyped = runs.finish(
        runs.start("--input", "x", "--output", "y", "--set", "faces.detektor=none", script=script), bench.path
    )
    assert mistyped.status == 2
    assert mistyped.err.splitlines()[1:] == ["heavy: []"]
