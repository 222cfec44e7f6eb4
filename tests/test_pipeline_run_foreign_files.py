"""The working folder of training and evaluation: removed in the end, so nothing of the user's may lie there.

What `label` refuses in its output folder: test_pipeline_label.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import jpeg, plain, write_folder

from pipeline.errors import UsageError
from pipeline.run.foreign_files import refuse_foreign, refuse_foreign_work
from transforms.formats.encode import as_jpeg

OURS = {
    ".lock": b"",
    "training.npy": b"\x93NUMPY",
    "run/.lock": b"",
    "run/plan/identity.json": b'{"features": {}, "purpose": "evaluate"}',
    "run/plan/blocks.jsonl": b'[["key"',
    f"training/parts/{'0' * 32}.npz": b"",
    "pictures/blocks.jsonl": b'[["key"',
    "excluded/plan.json": b'{"inputs_digest": "", "layout": {}}',
    "mlp/checkpoint.npz": b"",
}


def test_what_a_killed_training_or_evaluation_left_is_ours(tmp_path: Path) -> None:
    refuse_foreign_work(str(tmp_path / "work"))  # nothing there
    write_folder(tmp_path / "work", OURS)
    refuse_foreign_work(str(tmp_path / "work"))


@pytest.mark.parametrize(
    "name",
    ["thesis.tex", "run/notes.txt", "training/parts/mine.npz", "excluded/plan.png", "mlp/photo.jpg", "drafts/1.txt"],
)
def test_what_is_the_users_is_refused(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "work", {**OURS, name: b"mine"})
    with pytest.raises(UsageError, match=r"no run wrote it; move it away or give another"):
        refuse_foreign_work(str(tmp_path / "work"))


def test_a_link_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", OURS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "work").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="work, where results go, is a link"):
        refuse_foreign_work(str(tmp_path / "out" / "work"))


def test_rendered_pictures_are_ours_by_their_mark_alone(tmp_path: Path) -> None:
    picture = plain(8, 8)
    write_folder(tmp_path / "rendered", {"0000001-a.jpg": as_jpeg(picture, 90), "sheet-0001.jpg": as_jpeg(picture, 90)})
    refuse_foreign(str(tmp_path))
    write_folder(tmp_path / "rendered", {"0000002-mine.jpg": jpeg(picture)})
    with pytest.raises(UsageError, match=r"rendered/0000002-mine\.jpg is where results are written"):
        refuse_foreign(str(tmp_path))
