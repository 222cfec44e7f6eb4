"""What the tests of clusters share: some faces, a head that only the driver sees, and the results of a local run."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import clusters
import labelling
import pytest
import runs

IMAGES = 512


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that only the driver sees: the head of the runs is there."""
    place = tmp_path_factory.mktemp("driver")
    shutil.copytree(clusters.ROOT / "models" / "weights" / "fer2013", place / "my_head")
    return place


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first images of FER2013's test set, on the shared disk."""
    path = tmp_path_factory.mktemp("input") / "faces.tar"
    with tarfile.open(clusters.data("fer2013/test.tar")) as source, tarfile.open(path, "w") as target:
        for number, member in enumerate(source):
            if number >= IMAGES:
                break
            target.addfile(member, source.extractfile(member))
    return path


@pytest.fixture(scope="session")
def here(faces: Path, disk: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Results of a local run."""
    output = tmp_path_factory.mktemp("here")
    labelling.ended(clusters.driver(labelling.arguments(faces, output, disk, ["--runner=DirectRunner"])))
    return runs.results(output)
