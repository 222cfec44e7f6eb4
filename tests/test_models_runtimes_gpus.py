"""Which GPUs a process may use, without a runtime and without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.runtimes import gpus


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with three GPUs."""
    for name in ("nvidia0", "nvidia1", "nvidia3", "nvidiactl", "nvidia-uvm", "sda"):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpus, "_DEVICES", str(tmp_path))
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    return tmp_path


def test_the_drivers_files_are_counted(machine: Path) -> None:
    assert gpus.visible_gpus() == ("0", "1", "2")  # CUDA numbers those that it sees


@pytest.mark.parametrize(
    "chosen, left",
    [("", ()), ("-1", ()), ("2", ("2",)), ("2, 0", ("2", "0")), ("GPU-1f,GPU-2e", ("GPU-1f", "GPU-2e"))],
)
def test_what_the_user_left_visible_counts(
    chosen: str, left: tuple[str, ...], machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gpus.VISIBLE, chosen)
    assert gpus.visible_gpus() == left


@pytest.mark.parametrize("number, chosen", [(0, "2"), (1, "5"), (2, "2")])
def test_each_process_gets_one_in_turn(
    number: int, chosen: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "2,5")
    gpus.use_one_gpu(number)
    assert gpus.visible_gpus() == (chosen,)
    assert gpus.named("H200") == f"H200 (GPU {chosen})"


def test_a_machine_without_gpus_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_DEVICES", str(tmp_path))
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    gpus.use_one_gpu(0)
    assert gpus.visible_gpus() == ()
    assert gpus.named("CPU") == "CPU"
