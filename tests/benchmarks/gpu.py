"""What a GPU makes of the networks and of the whole job, within five minutes. `--small` shows on a CPU that it runs.

For each network and precision, images a second, in turn:

- the program's device, batch by batch, and with as many batches in flight as the job has;
- a bare loop of Keras and TensorFlow (pixels in, features out, batch by batch), without and with XLA;
- the bare loop on pixels that are on the device already: what copies cost is the difference.

Beside them the arithmetic that this is, as a share of the chip's peak, and of the rate of a matrix product in the same
process. Then the whole job: made JPEG crops in a folder and in a tar, images a second from `run.json`.

Every step has a deadline. What is not done by then is ended, and its line says so.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from measuring import Ran, Started

HERE = Path(__file__)
PRECISIONS = ("float32", "bfloat16")
# dense 10¹² operations a second, from NVIDIA's data sheets: (TF32, which TensorFlow computes float32 in, bfloat16)
PEAKS = {
    "H200": (494, 989), "H100": (494, 989), "A100": (156, 312), "L40S": (183, 362), "L4": (60, 121), "A10": (62, 125),
}  # fmt: skip
SIDE = 224  # pixels of the job's crops
WEIGHT = 2.0  # of a network, in both precisions, beside a job
LOOK_S = 0.2  # how often a process is looked at
AROUND_S = 20.0  # beside the steps: making crops, ending what is late
WARM_UP = 3  # calls
LEAST_CALLS = 2
RATES = ("device", "in flight", "bare loop", "bare loop, XLA", "on the device")
BARE = "bare loop"
TARGET = 0.95  # of the bare loop, in flight


@dataclass(frozen=True)
class Net:
    """A network at one size: settings of the program, and crops a batch."""

    name: str
    settings: tuple[str, ...]
    batch: int


def vgg16(size: int, batch: int) -> Net:
    """Returns VGG16 with random weights, and means as features."""
    words = ("features.backbone=vgg16", "features.weights=random", f"features.input_size={size}")
    return Net(f"vgg16 at {size}²", (*words, "features.pooling=avg"), batch)


NETS = (vgg16(224, 128), vgg16(96, 512), Net("face_vgg at 48²", (), 2048))
SMALL_NETS = (vgg16(32, 8), Net("face_vgg at 48²", (), 16))


# --- time -------------------------------------------------------------------------------------------------------------


class Budget:
    """Shares the time that is left among the steps that are left, by their weights; a quick one leaves more to others.

    Args:
        weights: of the steps, in their order.
    """

    def __init__(self, seconds: float, weights: Sequence[float], clock: Callable[[], float] = time.monotonic) -> None:
        self._ends, self._weights, self._clock = clock() + seconds, list(weights), clock

    def share(self) -> float:
        """Returns the seconds of the next step."""
        share = max(0.0, self._ends - self._clock()) * self._weights[0] / sum(self._weights)
        del self._weights[0]
        return share


def in_time(started: Started, seconds: float) -> Ran:
    """Returns how a process ended; one that takes longer is ended, and what it printed is kept."""
    ends = time.monotonic() + seconds
    while not started.ended():
        if time.monotonic() > ends:
            return started.kill()
        time.sleep(LOOK_S)
    return started.wait().done()


# --- in a process of its own, with the program's packages -------------------------------------------------------------


def measure_all(nets: Sequence[Net], seconds: float) -> None:
    """Writes a line of JSON for each network and precision, as soon as it is measured."""
    for net in nets:
        for precision in PRECISIONS:
            words = [*net.settings, f"features.precision={precision}", "features.runtime=tensorflow"]
            found = {"net": net.name, "precision": precision, **measure(words, net.batch, seconds)}
            print(json.dumps(found), flush=True)


def measure(words: Sequence[str], batch: int, seconds: float) -> dict[str, Any]:
    """Returns images a second by way, operations an image, the rate of a matrix product, and the device's name.

    Args:
        seconds: of each way, at most; at least `LEAST_CALLS` calls.
    """
    from dataclasses import replace

    from device_rate import operations_of

    from models.backbones.features import build_features
    from models.runtimes.device import Device
    from pipeline.run.identity import feature_settings
    from pipeline.settings.load import load_settings

    chosen = replace(feature_settings(load_settings((), words)), batch_size=batch)
    device = Device(chosen)
    size = (chosen.height, chosen.width)
    once = build_features(chosen.backbone, chosen.weights, pooling=chosen.pooling, size=size)  # without mirror images
    crops = [np.random.default_rng(n).integers(0, 256, device.input_shape, np.uint8) for n in range(4)]
    return {
        "rates": {name: rate(call, batch, seconds) for name, call in ways_of(device, crops).items()},
        "operations": operations_of(once) * (2 if chosen.flip_average else 1),
        "product": matrix_product(chosen.precision, seconds, small=not device.has_accelerator()),
        "same": bool(np.array_equal(device.start(crops[0]).features(), device.features(crops[0]))),
        "device": device.device_names()[0],
        "accelerator": device.has_accelerator(),
    }


def ways_of(device: Any, crops: Sequence[np.ndarray]) -> dict[str, Callable[[int], Any]]:
    """Returns what is timed, by `RATES`: each computes one batch, the n-th."""
    import tensorflow as tf

    from models.runtimes.keras import network_of

    network, waiting = network_of(device.settings), []
    signature = [tf.TensorSpec(device.input_shape, tf.uint8)]

    def forward(images: Any) -> Any:
        return network(images, training=False)

    plain, fused = (tf.function(forward, signature, autograph=False, jit_compile=xla) for xla in (False, True))
    there = [tf.identity(tf.constant(some)) for some in crops]

    def in_flight(n: int) -> None:
        waiting.append(device.start(crops[n % 4]))
        while len(waiting) >= device.in_flight:
            waiting.pop(0).features()

    return {
        "device": lambda n: device.features(crops[n % 4]),
        "in flight": in_flight,
        BARE: lambda n: plain(tf.constant(crops[n % 4])).numpy(),
        "bare loop, XLA": lambda n: fused(tf.constant(crops[n % 4])).numpy(),
        "on the device": lambda n: plain(there[n % 4])[0, 0].numpy(),  # waits; copies one number
    }


def rate(call: Callable[[int], Any], batch: int, seconds: float) -> float | None:
    """Returns images a second; None where XLA does not compile."""
    import tensorflow as tf

    try:
        return batch * calls_a_second(call, seconds)
    except tf.errors.OpError as error:
        print((str(error).splitlines() or [type(error).__name__])[0], file=sys.stderr)
        return None


def calls_a_second(call: Callable[[int], Any], seconds: float) -> float:
    """Returns the rate of a call, warm; it is given numbers from 0."""
    for n in range(WARM_UP):
        call(n)
    done, began = 0, time.perf_counter()
    while done < LEAST_CALLS or time.perf_counter() - began < seconds:
        call(done)
        done += 1
    return done / (time.perf_counter() - began)


def matrix_product(precision: str, seconds: float, *, small: bool) -> float:
    """Returns 10¹² operations a second of a product of two square matrices."""
    import tensorflow as tf

    side = 1024 if small else 8192
    one, other = (tf.cast(tf.random.normal((side, side)), precision) for _ in range(2))
    product = tf.function(lambda a, b: tf.matmul(a, b), autograph=False)
    return calls_a_second(lambda _: product(one, other)[0, 0].numpy(), seconds) * 2 * side**3 / 1e12


# --- tables -----------------------------------------------------------------------------------------------------------


def peak_of(device: str, precision: str) -> float | None:
    """Returns the chip's peak in 10¹² operations a second; None for one that is not in the table.

    >>> peak_of("NVIDIA H200 (GPU 0)", "bfloat16")
    989
    """
    for name, peaks in PEAKS.items():
        if name in device.split(" (")[0].replace("-", " ").split():
            return peaks[PRECISIONS.index(precision)]
    return None


def row_of(found: dict[str, Any]) -> list[Any]:
    """Returns a line of the table: rates, arithmetic, and its shares."""
    best = max(rate for rate in found["rates"].values() if rate is not None)
    done = best * found["operations"] / 1e12
    peak = peak_of(found["device"], found["precision"])
    shares = [done / peak if peak else None, done / found["product"]]
    return [found["net"], found["precision"], *(found["rates"][way] for way in RATES), done, *shares]


HEAD = [
    "network", "precision", *(f"{way}, images/s" for way in RATES), "the best, 10¹² operations/s", "of the chip's peak",
    "of a matrix product",
]  # fmt: skip


def networks(nets: Sequence[Net], seconds: float, budget: Budget) -> tuple[list[tuple[str, bool]], bool]:
    """Measures the networks, prints the table; returns what is claimed, and whether an accelerator did it."""
    share = budget.share()
    measuring.progress(f"networks: {share:.0f} s at most")
    words = ["--measure", str(seconds), *([] if nets == NETS else ["small"])]
    lines = in_time(measuring.start(HERE, *words), share).out.splitlines()
    done = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    names = ", ".join(sorted({found["device"] for found in done}))
    measuring.show(f"Networks on {names}", HEAD, [row_of(found) for found in done])
    all_of_them = len(nets) * len(PRECISIONS)
    claims = [(f"{len(done)} of {all_of_them} networks were measured in {share:.0f} s", len(done) == all_of_them)]
    for found in done:
        name = f"{found['net']}, {found['precision']}"
        claims.append((f"{name}: a batch in flight has the bits of one by itself", found["same"]))
        if found["accelerator"]:
            shared = found["rates"]["in flight"] / found["rates"][BARE]
            claims.append((f"{name}: {shared:.2f} of the bare loop, at least {TARGET}", shared >= TARGET))
    return claims, any(found["accelerator"] for found in done)


def jobs(nets: Sequence[Net], count: int, place: Path, budget: Budget) -> list[tuple[str, bool]]:
    """Runs the whole job over made JPEG crops, prints the table; returns what is claimed."""
    named = made_crops(count)
    sources = {"files": measuring.unpack(place / "crops", named)}
    sources["tar"] = measuring.write_tar(place / "crops.tar", named)
    lines, claims = [], []
    for net in nets:
        flags = head_of(net, place, budget) if net.settings else []
        for kind, source in sources.items():
            share = budget.share()
            measuring.progress(f"the job, {net.name}, {kind}: {share:.0f} s at most")
            settings = ["faces.detector=none", *net.settings, f"features.batch_size={net.batch}"]
            settings += ["features.runtime=tensorflow", "write.report=false"]
            output = place / f"{net.name.split()[0]}-{kind}"
            words = measuring.arguments(source, output, *flags, settings=settings)
            ran = in_time(measuring.start("-m", "pipeline", *words, output=output), share)
            claims.append((f"the job, {net.name}, {kind}: done in {share:.0f} s", ran.status == 0))
            if ran.status == 0:
                seconds, images = ran.seconds, ran.record["counts"]["images"]
                cpu_us = 1e6 * seconds["work_cpu"] / images
                lines.append([net.name, kind, images, images / seconds["work"], cpu_us, ran.wall_s])
                claims.append((f"the job, {net.name}, {kind}: every image is in", images == count))
    head = ["network", "fed from", "images", "images/s", "CPU-µs an image", "whole command, s"]
    measuring.show(f"The whole job, JPEG crops of {SIDE}×{SIDE}", head, lines)
    return claims


def head_of(net: Net, place: Path, budget: Budget) -> list[str]:
    """Returns the flags of a head of random numbers for a network."""
    folder = place / "head"
    words = ["faces.detector=none", "features.runtime=tensorflow", *net.settings, "features.batch_size=8"]
    in_time(measuring.start(HERE.with_name("random_head.py"), folder, *words), budget.share())
    return ["--head", str(folder)] if folder.exists() else []


def made_crops(count: int) -> list[tuple[str, bytes]]:
    """Returns names and bytes of JPEG files that all differ: coarse noise, enlarged, as large in bytes as faces are."""
    import cv2

    draw, named = np.random.default_rng(0), []
    for number in range(count):
        coarse = draw.integers(0, 256, (14, 14, 3), np.uint8)
        picture = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        named.append((f"{number:06d}.jpg", cv2.imencode(".jpg", picture)[1].tobytes()))
    return named


def main(words: Sequence[str]) -> int:
    if words and words[0] == "--measure":
        measure_all(SMALL_NETS if "small" in words else NETS, float(words[1]))
        return 0
    made = measuring.parser(__doc__ or "")
    made.add_argument("--seconds", type=float, help="for all of it; default 270, and 900 with --small")
    made.add_argument("--images", type=int, default=20_000, help="of the job (default: %(default)s)")
    options = made.parse_args(words)
    nets, each_s, count = (SMALL_NETS, 0.2, 96) if options.small else (NETS, 3.0, options.images)
    in_jobs = nets[1:]  # a job at 224² would take most of the time, and add nothing to what the others show
    most_s, began = options.seconds or (900.0 if options.small else 270.0), time.monotonic()
    weights = [WEIGHT * len(nets), *(1.0 for net in in_jobs for _ in range(3 if net.settings else 2))]
    with measuring.workplace(options) as place:
        budget = Budget(most_s, weights)
        claims, accelerated = networks(nets, each_s, budget)
        claims += jobs(in_jobs, count, place, budget)
    if not accelerated:
        print("\nNo accelerator: these are figures of the CPU, and say nothing of a GPU.")
    took, most_s = time.monotonic() - began, most_s + AROUND_S
    return measuring.verdict([*claims, (f"all of it took {took:.0f} s, at most {most_s:.0f}", took <= most_s)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
