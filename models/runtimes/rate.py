"""How fast a runtime computes features, measured in a process of its own: a process has one backend of Keras."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from models.backbones.backbone import BackboneError
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.runtime import RuntimeUnavailable

ROOT = Path(__file__).parents[2]
_CHILD = "from models.runtimes.rate import measure_and_print; measure_and_print()"


@dataclass(frozen=True, slots=True)
class Rate:
    """What a runtime did on random crops.

    Attributes:
        start_cpu_s: CPU seconds from the import of the runtime to the first batch.
        images_per_s: by the clock. images_per_cpu_s: by CPU time of all threads.
        features: of the first batch, rows of numbers; to compare runtimes.
    """

    start_cpu_s: float
    images_per_s: float
    images_per_cpu_s: float
    features: list[list[float]]


def rate_of(settings: FeatureSettings, seconds: float, timeout_s: float) -> Rate:
    """Returns the rate of a runtime, measured for some seconds in a new process.

    Raises:
        RuntimeUnavailable: the process failed or took longer than `timeout_s`; the message is a clause.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-c", _CHILD, json.dumps(asdict(settings)), str(seconds)]
    try:
        ran = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeUnavailable(f"not done after {timeout_s:.0f} s") from error
    if ran.returncode:
        raise RuntimeUnavailable((ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1])
    return Rate(**json.loads(ran.stdout.splitlines()[-1]))


def measure_and_print() -> None:
    """Measures what the command line names, and writes a `Rate` as JSON; an error of ours is one line."""
    settings, seconds = FeatureSettings(**json.loads(sys.argv[1])), float(sys.argv[2])
    try:
        found = measured(settings, seconds)
    except BackboneError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


def measured(settings: FeatureSettings, seconds: float) -> Rate:
    """Returns the rate in this process: full batches of noise, one after another."""
    from models.runtimes.device import Device

    began = time.process_time()
    device = Device(settings)
    start = time.process_time() - began
    crops = np.random.default_rng(0).integers(0, 256, device.input_shape, np.uint8)
    features = device.features(crops)
    images, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        device.features(crops)
        images += len(crops)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Rate(start, images / wall, images / cpu, features.astype(float).tolist())
