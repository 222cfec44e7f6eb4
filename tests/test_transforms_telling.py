"""A stage that cannot start leaves a note for the driver, unless the next attempt may do better."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.heads.output_spec import ClassOutput
from models.heads.outputs import HeadError
from pipeline.run.failures import FailureKind, failure_in_text
from pipeline.run.staging import Staging
from transforms.apply_head import ApplyHead
from transforms.job import Labelling
from transforms.provenance import Provenance
from transforms.storage.faults import FileChanged, InputFault
from transforms.telling import telling


def apply(head: str, provenance: Provenance) -> ApplyHead:
    return ApplyHead(Labelling(head, ClassOutput(("a", "b")), "tensorflow"), provenance)


def test_a_missing_head_is_told(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path / "out"))
    assert staging.complaint() == ""
    with pytest.raises(HeadError):
        apply("gone", Provenance(tell=str(tmp_path / "out" / "staged"))).setup()
    found = failure_in_text(staging.complaint())
    assert found is not None
    assert found.kind is FailureKind.USAGE
    assert found.text.startswith("no head: gone/head.json does not exist")
    staging.forget()
    assert staging.complaint() == ""


@pytest.mark.parametrize(
    "error, is_told",
    [(InputFault(5, "x cannot be read"), False), (FileChanged(None, "x has changed"), True), (ValueError("bug"), True)],
)
def test_faults_of_storage_are_left_to_the_next_attempt(error: Exception, is_told: bool, tmp_path: Path) -> None:
    class Stage:
        _provenance = Provenance(tell=str(tmp_path / "staged"))

        @telling
        def setup(self) -> None:
            raise error

    with pytest.raises(type(error)):
        Stage().setup()
    assert (tmp_path / "staged" / "failure.txt").exists() == is_told


def test_a_local_run_writes_no_note(tmp_path: Path) -> None:
    with pytest.raises(HeadError):
        apply("gone", Provenance()).setup()
    assert list(tmp_path.iterdir()) == []
