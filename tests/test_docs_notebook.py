"""Runs the Python blocks of docs/notebook.md from top to bottom, and compares its tables with the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import png, portrait, write_folder

from pipeline import api
from pipeline.api import Face, LabelledImage, Run
from pipeline.sample import write_sample

PAGE = (Path(__file__).parents[1] / "docs" / "notebook.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sample's photos and a broken one in `photos/`."""
    pytest.importorskip("skimage", reason="needs the sample extra")
    monkeypatch.chdir(tmp_path)
    for package in ("matplotlib", "pandas"):
        pytest.importorskip(package, reason=f"needs {package}")
    write_sample(tmp_path / "photos")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    for name in ("labelled", "held_out"):
        write_folder(tmp_path / name, {f"{label}/{i}.png": png(face) for (label, i), face in faces(name).items()})
    return tmp_path


def faces(name: str) -> dict[tuple[str, int], np.ndarray]:
    """Returns changed copies of one face by class and number: bright ones and dark ones, no two alike."""
    face = portrait()[60:180, 170:290]
    draw = np.random.default_rng(len(name))
    light = {"day": (0.8, 1.0), "night": (0.1, 0.3)}
    return {
        (label, number): (face * draw.uniform(*light[label])).astype(np.uint8) for label in light for number in range(6)
    }


@pytest.mark.usefixtures("folder")
def test_the_blocks_run_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    shown = []
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/notebook.md, block {number}", "exec"), names)
        last = block.splitlines()[-1]
        if last.isidentifier():
            shown.append(repr(names[last]))
    reported = capsys.readouterr().out.splitlines()
    assert f"`{shown[0]}`" in PAGE
    assert reported[0].startswith("happy 0.97 Box(x=180, y=64, width=92, height=115) ")
    assert reported[1] == "True"
    assert reported[2:5] == [
        "photos/astronaut.png labelled None",
        "photos/broken.jpg rejected truncated",
        "photos/rocket.jpg no_face None",
    ]
    assert "bundled/ferplus" in reported[5]
    assert reported[6].startswith("happy happiness 0.")
    assert reported[7].split()[0] == "9"  # images: the sample and the broken one
    assert shown[1] == repr(names["run"])
    assert [line.split()[0] for line in reported[8:10]] == ["image_id", "together.webp"]
    assert reported[-1] == "('day', 'night') ['accuracy', 'accuracy_of_all']"


@pytest.mark.parametrize(("kind", "of"), [(LabelledImage, "an image"), (Face, "a face")])
def test_the_tables_name_what_comes_back(kind: type, of: str) -> None:
    table = PAGE.split(f"| of {of} |")[1].split("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    fields = {field.name for field in dataclasses.fields(kind)}
    assert named == fields - {"classes", "picture"}


def test_the_table_names_what_a_run_has() -> None:
    table = PAGE.split("| of a run |")[1].split("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    public = {name for name in vars(Run) if not name.startswith("_")} - {"open"}
    assert named == public


def test_every_error_and_every_function_is_named() -> None:
    unnamed = {name for name in api.__all__ if not re.search(rf"\b{name}\b", PAGE)}
    assert unnamed <= {"Box", "Evaluation", "Face", "LabelledImage", "TrainedHead", "load_settings"}
    errors = re.findall(r"^\| `(\w+)` \|", PAGE.split("## Errors")[1], re.MULTILINE)
    assert errors == ["UsageError", "SettingsError", "RejectedImage", "StoppedError", "Interrupted"]
