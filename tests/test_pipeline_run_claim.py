"""One work an output folder: the same command may do it again, another one is refused, and users' files stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.registry import COMMANDS
from pipeline.commands.train_head import TrainHeadOptions
from pipeline.errors import UsageError
from pipeline.flags import flags_of
from pipeline.run.claim import COMMAND_FILE, Work, asked, claim, refuse_other_command

FILES = ("head.json", "head.npz")


def work(command: str = "train-head", **identity: Any) -> Work:
    return Work(command=command, files=FILES, identity=identity)


def made(folder: Path, **identity: Any) -> Path:
    """Returns the folder of a finished work, with a file of the user beside."""
    claim(str(folder), work(**identity), overwrite=False)
    for name in (*FILES, "mine.txt"):
        (folder / name).write_text(name)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != COMMAND_FILE}


def test_the_same_work_may_be_done_again_and_removes_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path / "out", kind="ridge", names=[])
    before = contents(folder)
    claim(str(folder), work(kind="ridge", names=[]), overwrite=False)
    assert contents(folder) == before
    assert json.loads((folder / COMMAND_FILE).read_text()) == {
        "command": "train-head",
        "identity": {"kind": "ridge", "names": []},
    }


def test_the_same_command_in_another_way_is_refused_with_the_differences(tmp_path: Path) -> None:
    folder = made(tmp_path, kind="ridge")
    before = contents(folder)
    with pytest.raises(UsageError, match=r"with other options \(kind: ridge there, mlp here\).*--overwrite to start"):
        claim(str(folder), work(kind="mlp"), overwrite=False)
    assert contents(folder) == before
    claim(str(folder), work(kind="mlp"), overwrite=True)
    assert contents(folder) == {"mine.txt": "mine.txt"}
    claim(str(folder), work(kind="mlp"), overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_folder_of_another_command_is_refused_in_any_case(tmp_path: Path, overwrite: bool) -> None:
    folder = made(tmp_path / "head")
    with pytest.raises(UsageError, match="holds the results of train-head; give another folder"):
        claim(str(folder), work("evaluate"), overwrite=overwrite)
    with pytest.raises(UsageError, match="holds the results of train-head"):
        refuse_other_command(str(folder), "label")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="holds the results of label"):
        claim(str(tmp_path / "run"), work(), overwrite=overwrite)
    refuse_other_command(str(tmp_path / "run"), "label")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_nothing_proves_to_be_ours_is_the_users(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "head.json").write_text("mine")
    with pytest.raises(UsageError, match=r"head\.json is where results are written, but nothing says that train-head"):
        claim(str(tmp_path), work(), overwrite=overwrite)
    assert contents(tmp_path) == {"head.json": "mine"}


def test_a_recipe_proves_a_training_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    (tmp_path / "weights.npz").write_text("")
    training = Work(command="train-detector", files=("recipe.json", "weights.npz"), proof="recipe.json")
    claim(str(tmp_path), training, overwrite=False)
    assert (tmp_path / "weights.npz").exists()
    claim(str(tmp_path), training, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [COMMAND_FILE]


def test_a_link_in_the_place_of_a_result_is_never_followed(tmp_path: Path) -> None:
    folder = made(tmp_path / "out")
    (folder / "head.npz").unlink()
    (folder / "head.npz").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"head\.npz, where results go, is not a file"):
        claim(str(folder), work(kind="mlp"), overwrite=True)
    assert (folder / "head.json").exists()


def test_a_damaged_note_is_refused_until_the_user_starts_anew(tmp_path: Path) -> None:
    folder = made(tmp_path)
    (folder / COMMAND_FILE).write_text("{")
    with pytest.raises(UsageError, match="--overwrite to start over"):
        claim(str(folder), work(), overwrite=False)
    claim(str(folder), work(), overwrite=True)
    assert contents(folder) == {"mine.txt": "mine.txt"}


def test_places_and_comforts_are_no_part_of_what_is_asked() -> None:
    options = TrainHeadOptions(input=("a",), output="out", cache="c", overwrite=True, tensorboard=True)
    given = asked(options, besides=("tensorboard",))
    assert given["input"] == ["a"]
    assert not {"output", "cache", "overwrite", "tensorboard"} & given.keys()


def test_every_command_that_fills_a_folder_can_start_anew() -> None:
    flags = {name: {flag.name for flag in flags_of(command.options)} for name, command in COMMANDS.items()}
    # render replaces marked pictures alone, and refuses a folder with anything else
    assert [name for name, known in flags.items() if "output" in known and "overwrite" not in known] == ["render"]
