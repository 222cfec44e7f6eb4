"""Which files of the driver travel with a run, and that they are sent once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import blocks
import pytest

from models.detectors.options import HaarOptions
from models.detectors.registry import DetectorSpec
from models.heads.output_spec import ClassOutput
from pipeline.errors import StoppedError
from pipeline.run.staging import Staging
from transforms.job import Job, Labelling
from transforms.provenance import WEIGHTS, Provenance, provenance
from transforms.staged import detector_here
from transforms.storage import staged_files
from transforms.storage.staged_files import local_path


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The driver's disk; workers have another temporary folder."""
    place, worker = tmp_path / "driver", tmp_path / "worker"
    place.mkdir()
    worker.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(worker))
    staged_files._fetched.cache_clear()
    return place


def a_job(**changes: Any) -> Job:
    """Returns a job with the bundled head and weights.

    Args:
        changes: `head`, `labels`, `weights` and `backbone` where the job has them, or fields of `Job`.
    """
    labelling = Labelling(changes.pop("head", "bundled"), ClassOutput(("a", "b")), "tensorflow")
    features = {name: changes.pop(name) for name in ("weights", "backbone") if name in changes}
    job = blocks.job(Path("out"), labelling=labelling, detector=changes.pop("detector", DetectorSpec("none")))
    return replace(
        job,
        features=replace(job.features, **{"weights": "bundled", **features}),
        reading=replace(job.reading, labels=changes.pop("labels", "")),
        **changes,
    )


def file(path: Path, data: bytes = b"data") -> str:
    path.write_bytes(data)
    return str(path)


def test_what_is_bundled_stays_a_name(tmp_path: Path, disk: Path) -> None:
    job = a_job()
    place = str(tmp_path / "out" / "staged")
    assert Staging(str(tmp_path / "out")).job(job) == replace(job, provenance=Provenance((), place))
    assert not (tmp_path / "out").exists()


def test_ones_own_files_are_found_elsewhere(tmp_path: Path, disk: Path) -> None:
    weights, labels = file(disk / "own.npz", b"numbers"), file(disk / "train.csv", b"image,label")
    detector = DetectorSpec("haar", HaarOptions(model=file(disk / "haar.xml", b"<xml/>")))
    begun_with = provenance({WEIGHTS: (weights, "digest")})
    job = a_job(detector=detector, labels=labels, weights=weights, provenance=begun_with)
    sent = Staging(str(tmp_path / "out")).job(job)
    assert str(disk) not in repr(sent)
    assert sent.provenance.sources[0].path == "own.npz"
    options: Any = detector_here(sent.detecting.detector).options
    found = [Path(path) for path in (local_path(sent.features.weights), options.model, local_path(sent.reading.labels))]
    assert [path.read_bytes() for path in found] == [b"numbers", b"<xml/>", b"image,label"]
    assert [path.name for path in found] == ["own.npz", "haar.xml", "train.csv"]
    assert all(tmp_path / "worker" in path.parents for path in found)


def test_imagenet_weights_travel_too(tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(disk))
    (disk / "models").mkdir()
    file(disk / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", b"vgg")
    sent = Staging(str(tmp_path / "out")).job(a_job(backbone="vgg16", weights="imagenet"))
    assert Path(local_path(sent.features.weights)).read_bytes() == b"vgg"


@pytest.mark.parametrize("path", ["mine", "mine/second.keras"])
def test_a_head_travels_with_all_its_files(path: str, tmp_path: Path, disk: Path) -> None:
    folder = disk / "mine"
    folder.mkdir()
    about = {"kind": "keras", "classes": ["a", "b"], "feature_space": "0" * 16, "file": "first.keras"}
    file(folder / "head.json", json.dumps(about).encode())
    file(folder / "first.keras", b"1")
    file(folder / "second.keras", b"2")
    sent = Staging(str(tmp_path / "out")).job(a_job(head=str(disk / path)))
    assert sent.labelling is not None
    here = Path(local_path(sent.labelling.head))
    if path == "mine":
        assert sorted(found.name for found in here.iterdir()) == ["first.keras", "head.json"]
    else:
        assert here.read_bytes() == b"2"
        assert here.with_name("head.json").is_file()


def test_a_file_is_sent_once_under_its_digest(tmp_path: Path, disk: Path) -> None:
    job = a_job(labels=file(disk / "train.csv"))
    Staging(str(tmp_path / "out")).job(job)
    (sent,) = (tmp_path / "out" / "staged").iterdir()
    assert sent.name == hashlib.sha256(b"data").hexdigest()
    before = sent.stat().st_ino
    Staging(str(tmp_path / "out")).job(job)
    assert sent.stat().st_ino == before


def test_a_file_that_is_gone_is_named(tmp_path: Path, disk: Path) -> None:
    with pytest.raises(StoppedError, match=r"train.csv is gone; put it back and run the same command again"):
        Staging(str(tmp_path / "out")).job(a_job(labels=str(disk / "train.csv")))
