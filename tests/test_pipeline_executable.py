"""The executable: its files are found wherever it lies, it runs without Python, and its answers are the program's."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import moving_faces
import pytest
import runs
from test_pipeline_api_face_labeler import pictures as photos

from models.backbones.registry import BUNDLED_WEIGHTS
from models.detectors.one_shot.detector import SHIPPED
from models.heads.registry import BUNDLED_HEADS
from pipeline.commands.registry import COMMANDS
from pipeline.executable import SPEC, make_executable, size_of
from pipeline.executable import main as make
from pipeline.packed import check_packed

ROOT = Path(__file__).parents[1]
LIBRARIES = (
    "libc",
    "libm",
    "libdl",
    "libpthread",
    "librt",
    "libutil",
    "libresolv",
)  # of the system, as PyInstaller says


# --- quick ------------------------------------------------------------------------------------------------------------


def test_models_lie_beside_the_modules_that_read_them() -> None:
    """PyInstaller keeps modules and data below one folder, so a path from `__file__` holds as script and executable."""
    for path in (BUNDLED_WEIGHTS, SHIPPED, *BUNDLED_HEADS.values()):
        assert (ROOT / "models" / "weights") in path.resolve().parents
        assert path.exists()


def test_models_are_found_where_the_program_is_copied_to(tmp_path: Path) -> None:
    for package in ("pipeline", "transforms", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / "moved" / package, ignore=ignored)
    script = (
        "import sys; sys.frozen, sys._MEIPASS = True, sys.argv[1]\n"
        "import numpy\n"
        "from pipeline.api.face_labeler import FaceLabeler\n"
        "labeler = FaceLabeler(settings={'features.runtime': 'onnx'})\n"
        "assert labeler.label(numpy.zeros((99, 99, 3), numpy.uint8)).faces == ()\n"
        "import models; print(models.__file__)\n"
    )
    moved = tmp_path / "moved"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script, str(moved)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(moved)}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert str(moved) in ended.stdout


def test_every_model_file_is_packed() -> None:
    text = SPEC.read_text(encoding="utf-8")
    assert 'WEIGHTS = ROOT / "models" / "weights"' in text and "WEIGHTS.rglob" in text
    for heavy in ("apache_beam", "tensorflow", "keras", "pyarrow", "h5py"):
        assert f'"{heavy}"' in text


def test_a_command_that_is_not_in_the_executable_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    there = importlib.util.find_spec
    missing = "pipeline.actions.report"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else there(name))
    ended = runs.run("report", "out", output=tmp_path)
    assert ended.status == 2
    assert "report is not in the executable, which has label-local and live" in ended.line


def test_the_source_tree_has_every_command() -> None:
    for command in COMMANDS.values():
        check_packed(command.name, command.module)


def test_it_says_what_it_takes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert make([]) == 2
    assert "usage: python -m pipeline.executable DIR" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert make(["out"]) == 2
    assert "PyInstaller is not installed" in capsys.readouterr().err


# --- slow: pytest -m slow ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executable, in a folder that holds nothing else."""
    pytest.importorskip("PyInstaller", reason="needs the extra executable")
    return make_executable(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a video."""
    place = tmp_path_factory.mktemp("work")
    (place / "photos").mkdir()
    for name, data in photos().items():
        (place / "photos" / name).write_bytes(data)
    moving_faces.write(place / "clip.avi", 6, faces=2)
    return place


def commands(work: str, out: str) -> list[list[str]]:
    """Returns what is run: the photos and the video of a folder, to tables in another one."""
    return [
        ["label-local", "--input", f"{work}/photos", "--output", f"{out}/tables", "--table", "csv"],
        ["live", "--video", f"{work}/clip.avi", "--output", f"{out}/clip.avi", "--faces", f"{out}/clip.csv"],
    ]


def content(place: Path) -> dict[str, str]:
    """Returns the tables below a folder; paths of photos are cut to names."""
    return {
        path.relative_to(place).as_posix(): re.sub(r"[^,\n]*/photos/", "", path.read_text(encoding="utf-8"))
        for path in place.rglob("*.csv")
    }


@pytest.fixture(scope="module")
def known(work: Path) -> dict[str, str]:
    """What the program itself writes."""
    (work / "known").mkdir()
    for words in commands(str(work), str(work / "known")):
        runs.run(*words, output=work).done()
    return content(work / "known")


@pytest.mark.slow
def test_answers_are_those_of_the_program(executable: Path, work: Path, known: dict[str, str], tmp_path: Path) -> None:
    for words in commands(str(work), str(tmp_path)):
        subprocess.run([executable, *words], env={}, cwd=tmp_path, check=True, capture_output=True)
    assert len(known) == 3
    assert content(tmp_path) == known


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("chroot") is None, reason="only root may change the root folder")
def test_it_runs_where_there_is_no_python(executable: Path, work: Path, known: dict[str, str], tmp_path: Path) -> None:
    jail = tmp_path / "jail"
    shutil.copytree(work, jail / "work", ignore=shutil.ignore_patterns("known"))
    shutil.copytree(executable.parent, jail / "facelabel", symlinks=True)
    for library in system_libraries(executable):
        (jail / library.parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
        shutil.copy(library, jail / library.relative_to("/"))
    for folder in ("tmp", "out"):
        (jail / folder).mkdir()
    for words in commands("/work", "/out"):
        command = [str(shutil.which("chroot")), str(jail), "/facelabel/facelabel", *words]
        ended = subprocess.run(command, env={}, check=False, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    assert content(jail / "out") == known


def system_libraries(executable: Path) -> set[Path]:
    """Returns the loader, the C library's parts and zlib: all that the folder needs of a system."""
    said_by_ldd = subprocess.run(["ldd", executable], text=True, capture_output=True, check=True).stdout
    listed = {Path(path) for path in re.findall(r"(/\S+\.so\S*)", said_by_ldd)}
    folder = Path(re.search(r"libc\.so\.6 => (\S+)", said_by_ldd)[1]).parent
    parts = {path for name in LIBRARIES for path in folder.glob(f"{name}.so.*")}
    return {*listed, *parts}


@pytest.mark.slow
def test_it_is_of_the_size_that_the_documents_state(executable: Path) -> None:
    stated = int(re.search(r"(\d+) MB", (ROOT / "docs" / "live.md").read_text(encoding="utf-8"))[1])
    assert size_of(executable.parent) / 1e6 == pytest.approx(stated, rel=0.1)


@pytest.mark.slow
def test_other_commands_are_refused_in_one_line(executable: Path) -> None:
    ended = subprocess.run([executable, "--input", "a", "--output", "b"], text=True, capture_output=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("pipeline: error: label is not in the executable")
