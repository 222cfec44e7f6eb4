"""`tests/benchmarks/gpu.py`: its time is bounded, its shares are right, it runs to its end where there is no GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

import gpu  # noqa: E402
import measuring  # noqa: E402


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("late", [(), (0,), (2,), (0, 1, 2, 3)])
def test_steps_that_use_all_their_time_never_take_more_than_the_budget(late: tuple[int, ...]) -> None:
    clock = Clock()
    budget = gpu.Budget(60.0, [3.0, 1.0, 1.0, 1.0], clock)
    shares = []
    for step in range(4):
        shares.append(budget.share())
        clock.now += shares[-1] if step in late else 1.0
    assert clock.now <= 160.0 + 1e-6
    assert shares[0] == 30.0
    assert all(share >= 10.0 - 1e-6 for share in shares[1:])  # one that is late takes nothing from the others


def test_a_process_that_lasts_is_ended_and_what_it_printed_is_kept() -> None:
    text = "import time; print('one', flush=True); time.sleep(60)"
    ran = gpu.in_time(measuring.start("-c", text), 3.0)
    assert ran.status != 0
    assert ran.out in ("one\n", "")  # on a busy machine Python itself may take so long to start
    assert ran.wall_s < 30


def test_a_network_is_held_against_the_peak_of_its_chip() -> None:
    assert gpu.peak_of("NVIDIA H200 (GPU 0)", "bfloat16") == 989
    assert gpu.peak_of("NVIDIA A100-SXM4-80GB", "float32") == 156
    assert gpu.peak_of("AMD EPYC", "bfloat16") is None
    rates = {"device": 100.0, "in flight": 200.0, "bare loop": 150.0, "bare loop, XLA": None, "on the device": 180.0}
    found = {"net": "vgg16", "precision": "bfloat16", "rates": rates, "operations": 989e9, "product": 400.0}
    row = gpu.row_of({**found, "device": "NVIDIA H200"})
    assert len(row) == len(gpu.HEAD)
    assert row[-3:] == pytest.approx([197.8, 0.2, 0.4945])
    assert gpu.row_of({**found, "device": "unknown"})[-2:] == [None, pytest.approx(0.4945)]


def test_made_crops_all_differ_and_are_the_same_each_time() -> None:
    crops = gpu.made_crops(4)
    assert len({data for _, data in crops}) == 4
    assert crops == gpu.made_crops(4)


@pytest.mark.slow  # starts TensorFlow three times
def test_it_runs_to_its_end_without_a_gpu() -> None:
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "gpu.py"), "--small"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert "4 of 4 networks were measured" in ran.stdout
    for kind in ("files", "tar"):
        assert f"holds: the job, face_vgg at 48², {kind}: every image is in" in ran.stdout
    assert "No accelerator" in ran.stdout or "of the bare loop" in ran.stdout
