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
    "keras": ("models.backbones", "models.heads.keras", "models.runtimes", "models.training"),
    "jax": ("models.runtimes",),
    "tensorflow": ("models.runtimes", "models.backbones.normalisation"),
    "matplotlib": ("pipeline.report", "models.training.curves"),
    "jinja2": ("pipeline.report",),
    "cv2": (
        "transforms.formats.decode",
        "transforms.formats.encode",
        "transforms.formats.video",
        "transforms.crop_faces",
        "pipeline.live.window",
        "models.detectors",
        "models.evaluation.image_changes",
        "models.training.detection",
    ),
    "PIL": ("transforms.formats.decode", "pipeline.report.render.lettering"),
    "pi_heif": ("transforms.formats.decode",),
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


def sources(*packages: str, root: Path = ROOT) -> list[Path]:
    return sorted(path for package in packages for path in (root / package).rglob("*.py"))


def dotted(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path = ROOT) -> Iterator[Import]:
    module = dotted(path, root)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(module, name.name, node.lineno, relative=False)
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield Import(module, f"{node.module}.{name.name}", node.lineno, relative=node.level > 0)


def all_imports(root: Path = ROOT) -> list[Import]:
    return [found for path in sources(*PACKAGES, root=root) for found in imports(path, root)]


def circles(root: Path = ROOT) -> list[str]:
    """Returns the modules that import themselves by way of others, also inside functions and for types alone."""
    modules = {dotted(path, root) for path in sources(*PACKAGES, root=root)}
    imported: dict[str, set[str]] = {module: set() for module in modules}
    for found in all_imports(root):
        target = found.target
        while target and target not in modules:  # a name in a module
            target = target.rpartition(".")[0]
        if target:
            imported[found.module].add(target)
    return sorted(module for module in modules if module in reached(module, imported))


def reached(module: str, imported: dict[str, set[str]]) -> set[str]:
    """Returns all that `module` imports, at any remove."""
    seen: set[str] = set()
    ahead = [module]
    while ahead:
        new = imported[ahead.pop()] - seen
        seen |= new
        ahead += new
    return seen


def lies_in(name: str, packages: tuple[str, ...] | set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def allowed_for(module: str) -> set[str]:
    return MAY_IMPORT[max((name for name in MAY_IMPORT if lies_in(module, (name,))), key=len)]


def test_imports_go_down_only() -> None:
    ours = [found for found in all_imports() if lies_in(found.target, PACKAGES)]
    assert ours
    assert [str(found) for found in ours if not lies_in(found.target, allowed_for(found.module))] == []


def test_no_import_runs_in_a_circle() -> None:
    assert circles() == []


@pytest.mark.parametrize("back", ["import pipeline.first", "def later():\n    from pipeline.first import name"])
def test_a_circle_is_found(back: str, tmp_path: Path) -> None:
    plant(tmp_path, {"pipeline/first": "from pipeline.second import other", "pipeline/second": "import models.third"})
    assert circles(tmp_path) == []
    plant(tmp_path, {"models/third": back, "models/fourth": "import pipeline.first"})
    assert circles(tmp_path) == ["models.third", "pipeline.first", "pipeline.second"]


def plant(root: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        path = root / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def strangers(outsider: str, root: Path = ROOT) -> list[str]:
    """Returns the imports of an outsider where it may not be imported."""
    found = [found for found in all_imports(root) if lies_in(found.target, (outsider,))]
    return [str(stranger) for stranger in found if not lies_in(stranger.module, OUTSIDERS[outsider])]


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_outsiders_are_imported_only_where_they_may_be(outsider: str) -> None:
    assert strangers(outsider) == []


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_an_outsider_in_the_wrong_place_is_found(outsider: str, tmp_path: Path) -> None:
    plant(tmp_path, {"models/evaluation": f"def f():\n    from {outsider}.inner import name"})
    assert strangers(outsider, tmp_path) == [f"models.evaluation:2 imports {outsider}.inner.name"]


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_no_place_may_import_what_it_does_not_need(outsider: str) -> None:
    places = {found.module for found in all_imports() if lies_in(found.target, (outsider,))}
    idle = [allowed for allowed in OUTSIDERS[outsider] if not any(lies_in(place, (allowed,)) for place in places)]
    assert idle == []


def test_formats_know_neither_beam_nor_networks() -> None:
    wrong = [
        str(found)
        for found in all_imports()
        if lies_in(found.module, ("transforms.formats",)) and lies_in(found.target, NEVER_IN_FORMATS)
    ]
    assert wrong == []


def test_runners_are_named_in_one_module() -> None:
    wrong = [str(found) for found in all_imports() if lies_in(found.target, ("apache_beam.runners",))]
    assert [found for found in wrong if not found.startswith("pipeline.run.runners:")] == []


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


RENAMES = {  # the modules that give a file a name, other than the one writer, and why
    "transforms.formats.cache.segments": "a damaged segment is set aside under another name",
    "transforms.check_workers": "a note of workers that lack the one writer",
    "transforms.tally": "a heartbeat, read while the run lasts: whole, but it need not outlive a power cut",
    "models.training.checkpoint": "the state of a training",
    "models.training.detection.cascade.levels": "the state of a training",
    "models.training.detection.cascade.one_network": "the state of a training",
}
THE_WRITER = "transforms.formats.publish"


def renames(path: Path, root: Path = ROOT) -> list[str]:
    """Returns where a file is given a name: os.replace, os.rename, Path.rename, Path.replace (one argument), shutil."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        of_a_module = owner in ("os", "shutil") and node.func.attr in ("replace", "rename", "renames", "move", "link")
        of_a_path = node.func.attr in ("replace", "rename") and len(node.args) == 1 and not node.keywords
        if of_a_module or (of_a_path and owner != "dataclasses"):
            found.append(f"{dotted(path, root)}:{node.lineno}")
    return found


def test_one_function_puts_files_in_place() -> None:
    places = [place for path in sources(*PACKAGES) for place in renames(path)]
    assert [place for place in places if place.partition(":")[0] not in (THE_WRITER, *RENAMES)] == []
    assert RENAMES.keys() <= {place.partition(":")[0] for place in places}, "a reason that nothing needs"
    assert [place.partition(":")[0] for place in places].count(THE_WRITER) == 1


@pytest.mark.parametrize(
    "line", ["os.replace(a, b)", "os.rename(a, b)", "path.rename(b)", "Path(a).replace(b)", "shutil.move(a, b)"]
)
def test_a_rename_by_hand_is_found(line: str, tmp_path: Path) -> None:
    plant(tmp_path, {"pipeline/some": f"text.replace('a', 'b')\nreplace(job, name=1)\ndef f():\n    {line}"})
    assert renames(tmp_path / "pipeline" / "some.py", tmp_path) == ["pipeline.some:4"]


def test_files_are_named_after_ideas() -> None:
    assert [path.name for path in sources(*PACKAGES) if path.stem in VAGUE] == []


def test_files_that_texts_name_are_there() -> None:
    there = {f"/{path.relative_to(ROOT)}" for path in sources(*PACKAGES, "tests")}
    texts = [*sources(*PACKAGES, "tests"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    named = [
        (path.name, name)
        for path in texts
        if path.name != "CHANGELOG.md"
        for name in re.findall(r"`([a-z_0-9/]+\.py)`", path.read_text(encoding="utf-8"))
    ]
    assert len(named) > 50
    assert [names for names in named if not any(path.endswith(f"/{names[1]}") for path in there)] == []


def test_no_file_is_longer_than_500_lines() -> None:
    lengths = {dotted(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*PACKAGES)}
    assert {module: lines for module, lines in lengths.items() if lines > 500} == {}


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
    found = (ROOT / "tests").rglob("test_*.py")
    assert {path.name for path in found if path.parent.name != "cluster"} == {  # those need a cluster of their own
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
    files = [path for path in texts if path.is_file() and path.name != ".git"]  # a worktree has a file there
    assert [path.name for path in files if places.search(path.read_text(encoding="utf-8"))] == []
