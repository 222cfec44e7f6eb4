"""`runtimes`: times every runtime installed on this machine, and recommends the fastest.

Each runtime and precision runs in a separate process, on noise of the size of the face crops. A process that is not
done in time is ended, so all of them together never take longer than the limit; a slow one leaves a reserve for each
that comes after it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from models.backbones.backbone import BackboneError
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.rate import Rate, rate_of
from models.runtimes.registry import RUNTIMES
from pipeline.commands.command import Context
from pipeline.commands.runtimes import RuntimesOptions
from pipeline.errors import StoppedError
from pipeline.run.identity import feature_settings

SECONDS = 4  # per runtime, by default
LIMIT_S = 110.0  # for all together, with the default seconds
RESERVE_S = 4.0  # beside the seconds of measuring: what a runtime takes to start on two quiet cores, at the least
REFERENCE = ("tensorflow", "float32")  # the bundled heads' metrics were measured with it


@dataclass(frozen=True, slots=True)
class Measured:
    """One runtime in one precision: its rate, or why it failed."""

    runtime: str
    precision: str
    rate: Rate | None = None
    why_not: str = ""


def run(options: RuntimesOptions, context: Context) -> int:
    """Prints a table of rates, and the setting for the fastest."""
    chosen = feature_settings(context.settings)
    seconds = options.seconds or SECONDS
    deadline = time.monotonic() + max(LIMIT_S, LIMIT_S * seconds / SECONDS)
    kinds = [
        (name, precision)
        for precision in ("float32", "bfloat16")  # every runtime's first precision, in case time runs out
        for name, runtime in RUNTIMES.items()
        if precision in runtime.precisions
    ]
    found = []
    for after, (name, precision) in zip(range(len(kinds) - 1, -1, -1), kinds, strict=True):
        must_end = deadline - after * (seconds + RESERVE_S)
        found.append(_measured(replace(chosen, runtime=name, precision=precision), seconds, must_end))
    print("\n".join([*_table(found), "", *_advice(found)]))
    return 0


def _measured(settings: FeatureSettings, seconds: float, must_end: float) -> Measured:
    left = must_end - time.monotonic()
    try:
        RUNTIMES[settings.runtime].check(settings)
        if left < seconds:
            return Measured(settings.runtime, settings.precision, why_not="no time left")
        return Measured(settings.runtime, settings.precision, rate_of(settings, seconds, left))
    except BackboneError as error:
        return Measured(settings.runtime, settings.precision, why_not=str(error))


def _table(found: list[Measured]) -> list[str]:
    """Returns the lines of the table; differences are between features, as a share of the largest."""
    reference = next((one.rate for one in found if (one.runtime, one.precision) == REFERENCE), None)
    lines = [f"{'runtime':<12}{'precision':<11}{'start CPU s':>12}{'faces/s':>10}{'faces/CPU-s':>13}{'difference':>13}"]
    for one in found:
        name = f"{one.runtime:<12}{one.precision:<11}"
        if one.rate is None:
            lines.append(f"{name}{one.why_not}")
            continue
        rate = one.rate
        difference = "" if reference is None else f"{_difference(rate, reference):.1e}"
        lines.append(
            f"{name}{rate.start_cpu_s:>12.1f}{rate.images_per_s:>10,.0f}{rate.images_per_cpu_s:>13,.0f}{difference:>13}"
        )
    return lines


def _difference(rate: Rate, reference: Rate) -> float:
    ours, theirs = np.asarray(rate.features), np.asarray(reference.features)
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12))


def _advice(found: list[Measured]) -> list[str]:
    """Returns the line for the config: the fastest, and the fastest in float32 if it is another one.

    Raises:
        StoppedError: no runtime could compute.
    """
    exact = _fastest([one for one in found if one.precision == "float32"])
    best = _fastest(found)
    if best is None:
        raise StoppedError("no runtime works with these settings; the table says why")
    lines = [f"fastest: {_rate_in_words(best, exact)}; put this line into the config:", _config_line(best)]
    if exact is not None and best is not exact:
        lines += ["a few labels may differ in bfloat16; the fastest in float32:", _config_line(exact)]
    return lines


def _fastest(found: list[Measured]) -> Measured | None:
    return max(
        (one for one in found if one.rate is not None),
        key=lambda one: one.rate.images_per_s if one.rate else 0.0,
        default=None,
    )


def _rate_in_words(best: Measured, exact: Measured | None) -> str:
    name = f"{best.runtime} in {best.precision}"
    if exact is None or exact is best or best.rate is None or exact.rate is None:
        return name
    times = best.rate.images_per_s / exact.rate.images_per_s
    return f"{name}, {times:.1f} times as fast as the fastest in float32"


def _config_line(one: Measured) -> str:
    return f"features: {{runtime: {one.runtime}, precision: {one.precision}}}"
