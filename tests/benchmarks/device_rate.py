"""How much of the processor's arithmetic the shipped net gets: its faces a second beside a plain matrix product.

In one process, in turn: the net as the program compiles and calls it (`models.runtimes.device.Device`, full batches,
`uint8` in, `float16` out), and the product of two 2048² matrices in the same precision through TensorFlow, both on all
cores. The net's operations are counted from its layers, two for each multiplication with its addition; only
convolutions count, so pooling, activation, preprocessing and copies are the net's loss. Wall and CPU time are given for
every pair; the claims are about the medians of the ratios.

`--weights FILE` measures another network than the bundled one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import measuring

SIZE = 2048  # rows and columns of the matrices
TARGET = 0.8  # of the product's rate, in float32
PRECISIONS = ("float32", "bfloat16")
HERE = Path(__file__)


@dataclass(frozen=True)
class Spent:
    """What some calls took: operations are of multiplication or addition."""

    operations: float
    wall_s: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        """10⁹ operations a second."""
        return self.operations / self.wall_s / 1e9

    @property
    def per_cpu(self) -> float:
        """10⁹ operations a CPU-second."""
        return self.operations / self.cpu_s / 1e9


# --- in a process of its own, with the program's packages -------------------------------------------------------------


def operations_of(network: Any) -> int:
    """Returns the operations of a face: two for each weight of a convolution at each place of its output."""
    total = 0
    for layer in network._flatten_layers(include_self=False):
        if hasattr(layer, "kernel") and len(layer.kernel.shape) == 4:
            _, height, width, _ = layer.output.shape
            total += 2 * int(layer.kernel.shape.num_elements()) * height * width
    return total


def spent(call: Callable[[], Any], operations: float, seconds: float) -> Spent:
    """Calls again and again until the time is up; returns what that took."""
    calls, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        call()
        calls += 1
    return Spent(calls * operations, time.perf_counter() - wall, time.process_time() - cpu)


def measure(precision: str, pairs: int, seconds: float, words: Sequence[str]) -> dict[str, Any]:
    """Returns operations and parameters of the net, its batch, and what net and product took in turn."""
    import numpy as np
    import tensorflow as tf

    from models.backbones.features import build_features
    from models.runtimes.device import Device
    from pipeline.run.identity import feature_settings
    from pipeline.settings.load import load_settings

    chosen = feature_settings(load_settings((), [*words, f"features.precision={precision}"]))
    size = (chosen.height, chosen.width)
    network = build_features(chosen.backbone, chosen.weights, pooling=chosen.pooling, size=size)
    operations = operations_of(network) * (2 if chosen.flip_average else 1)  # both sides of a face run through it
    device = Device(chosen)
    random = np.random.default_rng(0)
    crops = random.integers(0, 256, device.input_shape, np.uint8)
    one, other = (tf.constant(random.normal(size=(SIZE, SIZE)).astype(np.float32)) for _ in range(2))
    one, other = tf.cast(one, precision), tf.cast(other, precision)
    product = tf.function(tf.matmul, autograph=False).get_concrete_function(one, other)

    def net() -> None:
        device.features(crops)

    def matrices() -> None:
        product(one, other)[0, 0].numpy()  # waits for the end

    batch = len(crops)
    for call in (net, matrices):
        spent(call, 0, min(1.0, seconds))  # warm
    found = []
    for _ in range(pairs):
        found.append((spent(net, operations * batch, seconds), spent(matrices, 2 * SIZE**3, seconds)))
    return {
        "operations": operations,
        "parameters": network.count_params(),
        "batch": batch,
        "pairs": [[asdict(of) for of in pair] for pair in found],
    }


# --- tables -----------------------------------------------------------------------------------------------------------


def report(precision: str, found: dict[str, Any]) -> list[tuple[str, bool]]:
    """Prints a row a pair; returns what is claimed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    faces_of = found["operations"]
    lines: list[list[Any]] = []
    for number, pair in enumerate(found["pairs"], 1):
        net, product = (Spent(**of) for of in pair)
        faces = [net.per_second * 1e9 / faces_of, net.per_cpu * 1e9 / faces_of]
        rates = [net.per_second, product.per_second, net.per_second / product.per_second]
        lines.append([number, *faces, *rates, net.per_cpu, product.per_cpu, net.per_cpu / product.per_cpu])
    by_wall = [line[5] for line in lines]
    by_cpu = [line[8] for line in lines]
    middle = ["median", *(measuring.median(line[i] for line in lines) for i in range(1, 9))]
    head = [
        "pair", "faces/s", "faces/CPU-s", "net GFLOP/s", "product", "share",
        "net GFLOP/CPU-s", "product", "share by CPU",
    ]  # fmt: skip
    shown = [[*line[:5], measuring.ratio(line[5]), *line[6:8], measuring.ratio(line[8])] for line in [*lines, middle]]
    title = (
        f"{precision}: {faces_of / 1e6:,.1f} million operations a face, {found['parameters']:,} parameters, "
        f"batch {found['batch']}, {cores} cores"
    )
    measuring.show(title, head, shown)
    if precision != "float32":
        return []
    return [
        (f"{precision}: {measuring.spread(of)} of the matrix product's rate by {what}, target {TARGET}",
         measuring.median(of) >= TARGET)
        for what, of in (("CPU-second", by_cpu), ("second", by_wall))
    ]  # fmt: skip


def run(options: Namespace) -> int:
    """Measures, prints, and returns the exit status."""
    words = [] if options.weights is None else [f"features.weights={options.weights.resolve()}"]
    pairs, seconds = (2, 0.3) if options.small else (options.pairs, options.seconds)
    claims = []
    for precision in PRECISIONS:
        measuring.progress(f"{precision}: {pairs} pairs of {2 * seconds:.1f} s")
        ran = measuring.start(HERE, "--inside", precision, str(pairs), str(seconds), *words).wait().done()
        claims += report(precision, json.loads(ran.out.splitlines()[-1]))
    return measuring.verdict(claims)


def main(words: Sequence[str]) -> int:
    if words and words[0] == "--inside":
        precision, pairs, seconds, *settings = words[1:]
        print(json.dumps(measure(precision, int(pairs), float(seconds), settings)))
        return 0
    made = measuring.parser(__doc__ or "")
    made.add_argument("--weights", type=Path, help="another network than the bundled one")
    made.add_argument("--pairs", type=int, default=9)
    made.add_argument("--seconds", type=float, default=1.0, help="of net, and of product, in a pair")
    return run(made.parse_args(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
