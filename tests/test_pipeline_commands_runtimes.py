"""`runtimes`: a table of what was measured, and the line for the config that follows from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from models.runtimes import rate as rates
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.rate import Rate, rate_of
from models.runtimes.registry import RUNTIMES
from models.runtimes.runtime import RuntimeUnavailable
from pipeline.actions import runtimes as module
from pipeline.cli import main
from pipeline.settings.load import load_settings

FASTER = {
    ("tensorflow", "float32"): 100.0, ("jax", "float32"): 50.0, ("onnx", "float32"): 120.0,
    ("openvino", "float32"): 110.0, ("tensorflow", "bfloat16"): 180.0, ("openvino", "bfloat16"): 240.0,
}  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], float]:
    """Rates by runtime and precision that stand for measured ones; what is taken out cannot compute."""
    rates = dict(FASTER)

    def rate(settings: FeatureSettings, seconds: float, timeout_s: float) -> Rate:
        kind = (settings.runtime, settings.precision)
        if kind not in rates:
            raise RuntimeUnavailable("it cannot")
        return Rate(1.0, rates[kind], rates[kind] / 2, [[1.0, 2.0 if settings.precision == "float32" else 2.1]])

    monkeypatch.setattr(module, "rate_of", rate)
    monkeypatch.setattr("models.runtimes.runtime.Runtime.check_installed", lambda self: None)
    return rates


def config_lines(text: str) -> list[dict[str, Any]]:
    """Returns the lines for a config, checked to be one."""
    found = [yaml.safe_load(line) for line in text.splitlines() if line.startswith("features:")]
    for one in found:
        load_settings((), [f"features.{name}={value}" for name, value in one["features"].items()])
    return [one["features"] for one in found]


def test_the_fastest_is_recommended_and_the_fastest_in_float32_beside_it(
    measured: dict[tuple[str, str], float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runtimes"]) == 0
    text = capsys.readouterr().out
    assert config_lines(text) == [
        {"runtime": "openvino", "precision": "bfloat16"},
        {"runtime": "onnx", "precision": "float32"},
    ]
    assert "openvino in bfloat16, 2.0 times as fast as the fastest in float32" in text
    table = text.splitlines()[1:8]
    assert [line.split()[:2] for line in table] == [
        *([name, "float32"] for name in ("tensorflow", "jax", "onnx", "openvino")),
        *([name, "bfloat16"] for name in ("tensorflow", "jax", "openvino")),
    ]
    assert table[0].split()[2:] == ["1.0", "100", "50", "0.0e+00"]
    assert table[4].split()[-1] == "5.0e-02"  # 0.1 of 2
    assert table[5].endswith("it cannot")


def test_a_fastest_in_float32_is_the_only_line(
    measured: dict[tuple[str, str], float], capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in [kind for kind in measured if kind[1] == "bfloat16"]:
        del measured[kind]
    assert main(["runtimes"]) == 0
    assert config_lines(capsys.readouterr().out) == [{"runtime": "onnx", "precision": "float32"}]


def test_without_any_runtime_the_command_ends_with_one_line(
    measured: dict[tuple[str, str], float], capsys: pytest.CaptureFixture[str]
) -> None:
    measured.clear()
    assert main(["runtimes"]) == 3
    assert re.fullmatch("pipeline: error: no runtime works .*\n", capsys.readouterr().err)


class Clock:
    """A clock that moves while a runtime is measured: `needs` seconds of each kind."""

    def __init__(self, needs: Mapping[tuple[str, str], float]) -> None:
        self.now, self._needs = 1000.0, needs

    def monotonic(self) -> float:
        return self.now

    def rate_of(self, settings: FeatureSettings, seconds: float, timeout_s: float) -> Rate:
        needs = self._needs[settings.runtime, settings.precision] + seconds
        self.now += min(needs, timeout_s)
        if needs > timeout_s:
            raise RuntimeUnavailable(f"not done after {timeout_s:.0f} s")
        return Rate(1.0, 100.0, 50.0, [[1.0]])


KINDS = [(name, precision) for precision in ("float32", "bfloat16") for name in RUNTIMES
         if precision in RUNTIMES[name].precisions]  # fmt: skip


@pytest.mark.parametrize("words", [[], ["--seconds", "1"], ["--seconds", "8"]])
@pytest.mark.parametrize("slow", [*[{kind} for kind in KINDS], set(KINDS[:2]), set(KINDS), set()])
def test_all_together_never_take_longer_than_the_limit_and_the_slow_leave_time_for_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], slow: set[tuple[str, str]], words: list[str]
) -> None:
    clock = Clock({kind: 1e6 if kind in slow else 3.0 for kind in KINDS})
    monkeypatch.setattr(module, "rate_of", clock.rate_of)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr("models.runtimes.runtime.Runtime.check_installed", lambda self: None)
    status = main(["runtimes", *words])
    limit_s = 220 if words == ["--seconds", "8"] else 110
    assert clock.now - 1000 <= limit_s + 1e-6
    if slow == set(KINDS):
        assert status == 3
        return
    assert status == 0
    lines = capsys.readouterr().out.splitlines()[1 : 1 + len(KINDS)]
    assert [line.endswith(("s", "left")) for line in lines] == [kind in slow for kind in KINDS]


def test_a_rate_is_measured_in_a_process_of_its_own() -> None:
    settings = FeatureSettings("face_vgg", "bundled", "avg", 48, 48, batch_size=8, runtime="onnx")
    found = rate_of(settings, 0.1, 120.0)
    assert found.images_per_s > 0
    assert found.images_per_cpu_s > 0
    assert (len(found.features), len(found.features[0])) == (8, 384)


def test_a_process_that_fails_or_lasts_is_one_clause(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = FeatureSettings("face_vgg", "gone.npz", "avg", 48, 48, batch_size=8, runtime="onnx")
    with pytest.raises(RuntimeUnavailable, match=r"^features\.weights=gone\.npz: no file gone\.npz; [^\n]*$"):
        rate_of(gone, 0.1, 120.0)
    monkeypatch.setattr(rates, "_CHILD", "import time; time.sleep(30)")
    with pytest.raises(RuntimeUnavailable, match="not done after 0 s"):
        rate_of(gone, 0.1, 0.2)
