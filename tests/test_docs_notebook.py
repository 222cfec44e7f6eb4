"""Runs the Python blocks of docs/notebook.md from top to bottom, and compares its tables with the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.api import Face, LabelledImage
from pipeline.sample import write_sample

PAGE = (Path(__file__).parents[1] / "docs" / "notebook.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sample's photos and a broken one in `photos/`."""
    pytest.importorskip("skimage", reason="needs the sample extra")
    monkeypatch.chdir(tmp_path)
    write_sample(tmp_path / "photos")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_the_blocks_run_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    shown = []
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/notebook.md, block {number}", "exec"), names)
        last = block.splitlines()[-1]
        if last.isidentifier():
            shown.append(repr(names[last]))
    told = capsys.readouterr().out.splitlines()
    assert f"`{shown[0]}`" in PAGE
    assert told[0].startswith("happy 0.97 Box(x=180, y=64, width=92, height=115) ")
    assert told[1] == "True"
    assert told[2:5] == [
        "photos/astronaut.png labelled None",
        "photos/broken.jpg rejected truncated",
        "photos/rocket.jpg no_face None",
    ]
    assert "bundled/ferplus" in told[5]


@pytest.mark.parametrize(("kind", "of"), [(LabelledImage, "an image"), (Face, "a face")])
def test_the_tables_name_what_comes_back(kind: type, of: str) -> None:
    table = PAGE.split(f"| of {of} |")[1].split("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    fields = {field.name for field in dataclasses.fields(kind)}
    assert named == fields - {"classes", "picture"}
