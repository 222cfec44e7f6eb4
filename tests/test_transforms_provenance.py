"""Stages compute with what the run started with, or the run stops before anything is saved."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from blocks import job

from models.heads.output_spec import ClassOutput
from models.training.fit_head import Fitted
from transforms.apply_head import ApplyHead
from transforms.detect_faces import DetectFaces
from transforms.job import Labelling
from transforms.provenance import DETECTOR, HEAD, REVISION, WEIGHTS, provenance, refuse_another
from transforms.storage.store import FileChanged


def test_what_is_the_same_passes_and_what_is_not_named_is_not_looked_at() -> None:
    described = {"name": "haar", "model": "b", "size": 3}
    given = provenance({WEIGHTS: ("w.npz", "a" * 64), DETECTOR: ("haar", described)})
    refuse_another(given, {WEIGHTS: "a" * 64, DETECTOR: {"size": 3, "name": "haar", "model": "b"}, HEAD: "other"})
    assert pickle.loads(pickle.dumps(given)) == given


@pytest.mark.parametrize(
    "name, found, words",
    [
        (WEIGHTS, "other", "weights heads/mine has changed since the run started; restore the file"),
        (HEAD, "other", "head heads/mine has changed since the run started"),
        (DETECTOR, {"name": "none"}, "detector heads/mine has changed since the run started"),
        (REVISION, 7, "another version of this program"),
    ],
)
def test_what_is_another_is_named_with_its_cure(name: str, found: object, words: str) -> None:
    given = provenance({name: ("heads/mine", "before")})
    with pytest.raises(FileChanged, match=words):
        refuse_another(given, {name: found})


def test_stages_refuse_another_head_and_another_detector(tmp_path: Path, a_head: Path) -> None:
    labelling = Labelling(str(a_head), ClassOutput(("a", "b")), "tensorflow")
    with pytest.raises(FileChanged, match=r"head .* changed"):
        ApplyHead(labelling, provenance({HEAD: (str(a_head), "before")})).setup()
    with pytest.raises(FileChanged, match="detector none has changed"):
        DetectFaces(job(tmp_path).detecting, provenance({DETECTOR: ("none", json.dumps({"name": "none"}))})).setup()


@pytest.fixture
def a_head(tmp_path: Path) -> Path:
    import numpy as np

    from models.heads.linear import LinearHead
    from pipeline.run.fitting import save_head

    head = LinearHead(
        classes=("a", "b"),
        coef=np.zeros((2, 3), np.float32),
        intercept=np.zeros(2),
        mean=np.zeros(3),
        scale=np.ones(3),
    )
    save_head(tmp_path / "head", Fitted(head, sweep=(), split={}, metrics={}), "f" * 64, {})
    return tmp_path / "head"
