"""docs/install.md and the Dockerfile install what setup.py asks for, and name every extra."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_house import ROOT

import pipeline
from pipeline.settings import shipped
from pipeline.settings.load import load_settings

PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SMALLER = {"tensorflow": "tensorflow-cpu", "opencv-python": "opencv-python-headless"}


def setup_arguments() -> dict[str, Any]:
    """Returns the arguments of setup() that are literals, without running it."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (call,) = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup")
    return {
        keyword.arg: ast.literal_eval(keyword.value)
        for keyword in call.keywords
        if keyword.arg and isinstance(keyword.value, ast.List | ast.Dict) and keyword.arg != "cmdclass"
    }


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}


def test_the_small_environment_has_all_that_is_needed() -> None:
    block = re.search(
        r"```sh\npip install -c constraints.txt tensorflow-cpu(.*?)\npip install --no-deps", PAGE, re.DOTALL
    )
    assert block is not None
    needed = {SMALLER.get(name, name) for name in names(setup_arguments()["install_requires"])}
    assert {"tensorflow-cpu", *block[1].replace("\\", " ").split()} == needed
    docker = re.search(r'"\$tensorflow" (.*?)&&', DOCKERFILE, re.DOTALL)
    assert docker is not None
    assert {"tensorflow-cpu", *docker[1].replace("\\", " ").split()} == needed


def test_every_extra_is_listed() -> None:
    table = PAGE.split("| extra |")[1].split("\n\n")[0]
    listed = {name for row in table.splitlines()[2:] for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    assert listed == setup_arguments()["extras_require"].keys()


def test_constraints_pin_what_is_needed() -> None:
    pinned = names((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    given = setup_arguments()
    asked = [*given["install_requires"], *(one for extra in given["extras_require"].values() for one in extra)]
    assert {name.lower() for name in names(asked)} | set(SMALLER.values()) <= pinned


def test_the_version_stands_in_one_place() -> None:
    names = ("setup.py", "pyproject.toml", "CITATION.cff", "Dockerfile", "README.md")
    texts = [*(ROOT / name for name in names), *(ROOT / "docs").glob("*.md")]
    assert [path.name for path in texts if pipeline.__version__ in path.read_text(encoding="utf-8")] == []
    command = [sys.executable, "setup.py", "--version"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.split()[-1] == pipeline.__version__


FORMS = [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / "CITATION.cff"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_forms_are_valid_yaml(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.name not in ("config.yml", "CITATION.cff"):
        assert {"name", "description", "body"} <= form.keys()
        ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 0


# --- what is packed ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds."""
    made = tmp_path_factory.mktemp("packed")
    command = ["setup.py", "-q", "egg_info", "--egg-base", str(made), "build_py", "--build-lib", str(made / "lib")]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    return made / "lib"


def test_the_wheel_has_types_settings_and_weights(packed: Path) -> None:
    for name in ("pipeline", "transforms", "models"):
        assert (packed / name / "py.typed").is_file()
        sources = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*.py")}
        assert sources == {path.relative_to(packed) for path in (packed / name).rglob("*.py")}
    configs = {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}
    assert {path.relative_to(packed / "pipeline") for path in (packed / "pipeline" / "configs").rglob("*.*")} == configs
    assert (packed / "models" / "weights" / "face_vgg.npz").is_file()
    assert list((packed / "pipeline" / "report" / "templates").glob("*.j2"))


def test_settings_that_ship_are_found_from_anywhere(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(["configs/kaggle.yaml"]).faces.detector == "none"
    monkeypatch.setattr(shipped, "HOMES", (packed / "pipeline",))  # as installed
    assert load_settings(["configs/kaggle.yaml"]).faces.detector == "none"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "kaggle.yaml").write_text("faces: {detector: haar}")
    assert load_settings(["configs/kaggle.yaml"]).faces.detector == "haar"
    for path in ("kaggle.yaml", "configs/none.yaml", "elsewhere/configs/local.yaml"):
        assert shipped.found(Path(path)) == Path(path)
