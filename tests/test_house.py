"""The house: what may import what, where things lie, and words that are not used. Read from the source, not run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "transforms", "models")
MAY_IMPORT = {  # downward only; the longest name that fits a module counts
    "pipeline": {"pipeline", "transforms", "models"},
    "transforms": {"transforms", "models"},
    "transforms.formats": {"transforms.formats"},
    "models": {"models"},
}
OUTSIDERS = {  # third party: the modules, or packages, that may import it
    "apache_beam": ("pipeline", "transforms"),
    "keras": ("models", "transforms", "pipeline"),
    "jax": ("models.device",),
    "tensorflow": ("models.device", "models.training.normalisation"),
    "matplotlib": ("models.evaluation", "models.training.curves"),
    "PIL": ("transforms.formats.decode",),
    "pillow_heif": ("transforms.formats.decode",),
    "cv2": ("transforms.formats.decode", "transforms.crop_faces", "models.detectors"),
}
NEVER_IN_FORMATS = ("apache_beam", "keras", "tensorflow", "jax", "models", "pipeline")
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "base", "tools"}
TOP_LEVEL_FOLDERS = {"configs", "docs", "models", "pipeline", "tests", "transforms"}


@dataclass(frozen=True)
class Import:
    """One import: who, what (dotted), where."""

    module: str
    target: str
    line: int
    relative: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def sources(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[Import]:
    module = dotted(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(module, name.name, node.lineno, relative=False)
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield Import(module, f"{node.module}.{name.name}", node.lineno, relative=node.level > 0)


def all_imports() -> list[Import]:
    return [found for path in sources(*PACKAGES) for found in imports(path)]


def lies_in(name: str, packages: tuple[str, ...] | set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def allowed_for(module: str) -> set[str]:
    return MAY_IMPORT[max((name for name in MAY_IMPORT if lies_in(module, (name,))), key=len)]


def test_imports_go_down_only() -> None:
    ours = [found for found in all_imports() if lies_in(found.target, PACKAGES)]
    assert ours
    assert [str(found) for found in ours if not lies_in(found.target, allowed_for(found.module))] == []


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_outsiders_are_imported_only_where_they_may_be(outsider: str) -> None:
    wrong = [
        str(found)
        for found in all_imports()
        if lies_in(found.target, (outsider,)) and not lies_in(found.module, OUTSIDERS[outsider])
    ]
    assert wrong == []


def test_formats_know_neither_beam_nor_networks() -> None:
    wrong = [
        str(found)
        for found in all_imports()
        if lies_in(found.module, ("transforms.formats",)) and lies_in(found.target, NEVER_IN_FORMATS)
    ]
    assert wrong == []


def test_runners_are_named_in_one_module() -> None:
    wrong = [str(found) for found in all_imports() if lies_in(found.target, ("apache_beam.runners",))]
    assert [found for found in wrong if not found.startswith("pipeline.runners:")] == []


def test_imports_are_absolute() -> None:
    assert [str(found) for found in all_imports() if found.relative] == []


def test_nobody_edits_the_path_of_imports() -> None:
    edit = re.compile(r"\bsys\.path\b\s*(\.(append|insert|extend|remove|pop)\b|\[.*\]\s*=|\+?=[^=])")
    assert [path.name for path in sources(*PACKAGES) if edit.search(path.read_text())] == []


def calls(path: Path, name: str) -> list[int]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def test_only_the_command_line_prints() -> None:
    printing = [f"{path.name}:{line}" for path in sources("transforms", "models") for line in calls(path, "print")]
    assert printing == []


@pytest.mark.parametrize("name", ["eval", "exec", "__import__"])
def test_no_code_is_made_of_texts(name: str) -> None:
    assert [path.name for path in sources(*PACKAGES) if calls(path, name)] == []


def test_nothing_stored_may_hold_a_pickle() -> None:
    wrong = [
        str(found) for found in all_imports() if lies_in(found.target, ("pickle", "dill", "cloudpickle", "joblib"))
    ]
    assert wrong == []


def test_files_are_named_after_ideas() -> None:
    assert [path.name for path in sources(*PACKAGES) if path.stem in VAGUE] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in sources(*PACKAGES) if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_top_level_is_as_agreed() -> None:
    assert all((ROOT / name).is_dir() for name in TOP_LEVEL_FOLDERS)
    for name in ("run_local.sh", "setup.py", "pyproject.toml", "constraints.txt", "LICENSE", "CHANGELOG.md", ".ci/run"):
        assert (ROOT / name).is_file(), name
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(PACKAGES)
    assert [path.name for path in ROOT.glob("*.py")] == ["setup.py"]


def test_tests_lie_flat_and_are_no_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert {path.name for path in (ROOT / "tests").rglob("test_*.py")} == {
        path.name for path in (ROOT / "tests").glob("test_*.py")
    }


def test_every_package_is_packed() -> None:
    packed = set(re.search(r"packages=\[(.*?)\]", (ROOT / "setup.py").read_text(), re.DOTALL)[1].split('"')[1::2])
    there = {dotted(path) for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")}
    assert packed == there
    loose = {dotted(path.parent / "__init__.py") for path in sources(*PACKAGES)} - there
    assert loose == set(), "a folder with modules needs an __init__.py"


def test_no_file_names_a_place_of_one_machine() -> None:
    places = re.compile("/" + r"(root|home|work|Users)/")
    texts = [
        *sources(*PACKAGES, "tests"),
        *ROOT.glob("*.*"),
        *(ROOT / "configs").rglob("*.yaml"),
        *(ROOT / "docs").rglob("*.md"),
    ]
    files = [path for path in texts if path.is_file()]
    assert [path.name for path in files if places.search(path.read_text(encoding="utf-8"))] == []
