"""How near each runtime's labels are to TensorFlow's in float32, and what its features cost, on FER2013's test part.

Each runtime and precision computes the features of all images in a process of its own, with the bundled network and
settings; the bundled heads label them. Costs are CPU time, so that other work on the machine distorts them little.

Then what each runtime and precision makes of larger networks, of VGG16 with random weights, on noise: images per
CPU-second, and the arithmetic that this is beside a plain matrix product's in TensorFlow in the same precision. And the
network of the detector in ONNX Runtime, as it is used, and in OpenVINO.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np

REFERENCE = ("tensorflow", "float32")
KINDS = (
    REFERENCE, ("onnx", "float32"), ("openvino", "float32"), ("jax", "float32"),
    ("tensorflow", "bfloat16"), ("openvino", "bfloat16"),
)  # fmt: skip
HEADS = ("bundled/fer2013", "bundled/ferplus")
LABELS_MAY_DIFFER = {"float32": 0.001, "bfloat16": 0.01}  # of the rows
PROBABILITIES_MAY_DIFFER = 1e-3  # in float32
FACE = "face_vgg at 48²"  # as shipped: twice for each face
SIDES = {FACE: 0, "vgg16 at 96²": 96, "vgg16 at 224²": 224}  # 0: the program's own settings
BATCHES = {FACE: 64, "vgg16 at 96²": 8, "vgg16 at 224²": 8}
SEARCHED = (160, 224)  # pixels that a frame of 640 × 480 is searched at by `live`


# --- in a process of its own ------------------------------------------------------------------------------------------


def measure(archive: Path, runtime: str, precision: str, step: int, out: Path) -> dict[str, float]:
    """Writes the probabilities of every head for the images of an archive; returns what computing features cost."""
    import cv2

    from models.heads.registry import BUNDLED_HEADS, load_head
    from models.runtimes.device import Device
    from pipeline.run.identity import feature_settings
    from pipeline.settings.load import load_settings

    chosen = feature_settings(load_settings((), [f"features.runtime={runtime}", f"features.precision={precision}"]))
    images = [
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        for _, data in list(measuring.members(archive))[::step]
    ]
    crops = np.stack(images)[..., None]
    began = time.process_time()
    device = Device(chosen)
    start_s, began = time.process_time() - began, time.process_time()
    batches = [crops[n : n + chosen.batch_size] for n in range(0, len(crops), chosen.batch_size)]
    features = np.concatenate([device.features(batch) for batch in batches])
    cost_s = time.process_time() - began
    np.savez(out, **{head: load_head(BUNDLED_HEADS[head]).probabilities(features) for head in HEADS})
    return {"start_s": start_s, "per_cpu_s": len(crops) / cost_s}


def settings_of(net: str, weights: str, runtime: str, precision: str) -> Any:
    """Returns the settings of a network, `FeatureSettings`."""
    from dataclasses import replace

    from pipeline.run.identity import feature_settings
    from pipeline.settings.load import load_settings

    words = [f"features.runtime={runtime}", f"features.precision={precision}"]
    if side := SIDES[net]:
        words += ["features.backbone=vgg16", f"features.weights={weights}", f"features.input_size={side}"]
        words += ["features.pooling=avg", "features.flip_average=false"]
    return replace(feature_settings(load_settings((), words)), batch_size=BATCHES[net])


def rates(weights: str, runtime: str, precision: str, seconds: float) -> dict[str, float]:
    """Returns images per CPU-second of each network, from the cheapest of several calls."""
    from models.runtimes.device import Device

    found = {}
    for net, batch in BATCHES.items():
        device = Device(settings_of(net, weights, runtime, precision))
        crops = np.random.default_rng(0).integers(0, 256, device.input_shape, np.uint8)
        found[net] = batch / cheapest(lambda device=device, crops=crops: device.features(crops), seconds)
    return found


def cheapest(call: Callable[[], Any], seconds: float) -> float:
    """Returns the CPU-seconds of the cheapest of several calls, after one that warms up."""
    call()
    spent, began = [], time.process_time()
    while len(spent) < 2 or time.process_time() - began < seconds:
        before = time.process_time()
        call()
        spent.append(time.process_time() - before)
    return min(spent)


def arithmetic(weights: str, seconds: float) -> dict[str, Any]:
    """Writes random weights of VGG16; returns the operations of an image by network, and the product's rate a CPU-s."""
    import tensorflow as tf
    from device_rate import SIZE, operations_of

    from models.backbones.features import build_features
    from models.backbones.registry import BACKBONES

    BACKBONES["vgg16"].build(96, 96).save_weights(weights)
    operations = {}
    for net in BATCHES:
        chosen = settings_of(net, weights, "tensorflow", "float32")
        size = (chosen.height, chosen.width)
        network = build_features(chosen.backbone, chosen.weights, pooling=chosen.pooling, size=size)
        operations[net] = operations_of(network) * (2 if chosen.flip_average else 1)
    products = {}
    for precision in ("float32", "bfloat16"):
        one = tf.cast(tf.random.normal((SIZE, SIZE)), precision)
        product = tf.function(tf.matmul, autograph=False).get_concrete_function(one, one)
        call = lambda one=one, product=product: product(one, one)[0, 0].numpy()  # noqa: E731 - waits for the end
        products[precision] = 2 * SIZE**3 / cheapest(call, seconds)
    return {"operations": operations, "products": products}


def searches(seconds: float) -> dict[str, float]:
    """Returns frames per CPU-second of the detector's network, by what computes it, with one thread."""
    import importlib.util

    from models.detectors.detections import read_model
    from models.detectors.one_shot.detector import NAME, SHIPPED, OneShotNetwork
    from models.detectors.one_shot.export import INPUT, OUTPUTS

    model, _ = read_model(SHIPPED, NAME)
    frame = np.random.default_rng(0).integers(0, 256, (1, 3, *SEARCHED)).astype(np.float32)
    session = OneShotNetwork(model)._session
    found = {"onnx in float32": 1 / cheapest(lambda: session.run(OUTPUTS, {INPUT: frame}), seconds)}
    if importlib.util.find_spec("openvino") is None:
        return found
    import openvino

    for precision, hint in (("float32", "f32"), ("bfloat16", "bf16")):
        read = openvino.Core().read_model(model)
        read.reshape({INPUT: list(frame.shape)})
        chosen = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": "1"}
        request = openvino.Core().compile_model(read, "CPU", chosen).create_infer_request()
        found[f"openvino in {precision}"] = 1 / cheapest(lambda request=request: request.infer([frame]), seconds)
    return found


# --- tables -----------------------------------------------------------------------------------------------------------


def run(options: Namespace, place: Path) -> int:
    """Measures, prints, and returns the exit status."""
    archive = options.data / "fer2013" / "test.tar"
    measuring.needed(archive)
    step = 20 if options.small else 1
    costs: dict[tuple[str, str], dict[str, float]] = {}
    for kind in KINDS:
        measuring.progress(" in ".join(kind))
        words = ["--measure", archive, *kind, str(step), place / f"{'_'.join(kind)}.npz"]
        costs[kind] = json.loads(measuring.start(Path(__file__), *words).wait().done().out.splitlines()[-1])
    reference = np.load(place / f"{'_'.join(REFERENCE)}.npz")
    rows, claims = [], []
    for kind in KINDS:
        found = np.load(place / f"{'_'.join(kind)}.npz")
        row: list[Any] = [*kind, f"{costs[kind]['start_s']:.1f}", f"{costs[kind]['per_cpu_s']:,.0f}"]
        for head in HEADS:
            labels, largest, count = compared(reference[head], found[head])
            row += [f"{labels} of {count:,}", f"{largest:.1e}"]
            claims.append((f"{' in '.join(kind)}, {head}: labels agree", labels <= LABELS_MAY_DIFFER[kind[1]] * count))
            if kind[1] == "float32":
                claims.append((f"{' in '.join(kind)}, {head}: near", largest <= PROBABILITIES_MAY_DIFFER))
        rows.append(row)
    columns = ["runtime", "precision", "start, CPU s", "images/CPU-s"]
    columns += [f"{head}: {what}" for head in HEADS for what in ("labels that differ", "largest difference")]
    measuring.show("Runtimes against TensorFlow in float32", columns, rows)
    compare_rates(place, 0.5 if options.small else 5.0)
    return measuring.verdict(claims)


def compare_rates(place: Path, seconds: float) -> None:
    """Prints what each runtime and precision makes of each network."""
    weights = place / "vgg16.weights.h5"
    base = asked("--arithmetic", weights, seconds)
    rows: list[list[Any]] = []
    for runtime, precision in KINDS:
        measuring.progress(f"larger networks, {runtime} in {precision}")
        found = asked("--rates", weights, runtime, precision, seconds)
        row: list[Any] = [runtime, precision]
        for net, rate in found.items():
            row += [rate, rate * base["operations"][net] / base["products"][precision]]
        rows.append(row)
    shares = [f"{net}: {what}" for net in BATCHES for what in ("images/CPU-s", "of the product")]
    measuring.show("Networks, beside the matrix product in the same precision", ["runtime", "precision", *shares], rows)
    detector = asked("--searches", seconds)
    title = f"The detector's network, {SEARCHED[1]}×{SEARCHED[0]} pixels, one thread"
    measuring.show(title, ["runtime", "frames/CPU-s"], [[name, rate] for name, rate in detector.items()])


def asked(*words: Any) -> Any:
    """Returns what a process of its own prints as JSON."""
    ran = measuring.start(Path(__file__), *map(str, words)).wait().done()
    return json.loads(ran.out.splitlines()[-1])


def compared(reference: np.ndarray, found: np.ndarray) -> tuple[int, float, int]:
    """Returns how many labels differ, the largest difference of a probability, and the number of rows."""
    differ = int((reference.argmax(1) != found.argmax(1)).sum())
    return differ, float(np.abs(reference - found).max()), len(reference)


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] == "--measure":
        archive, runtime, precision, step, out = arguments[1:]
        sys.stdout.write(json.dumps(measure(Path(archive), runtime, precision, int(step), Path(out))) + "\n")
        return 0
    kinds: dict[str, Callable[..., Any]] = {"--rates": rates, "--arithmetic": arithmetic, "--searches": searches}
    if arguments and arguments[0] in kinds:
        *words, seconds = arguments[1:]
        sys.stdout.write(json.dumps(kinds[arguments[0]](*words, float(seconds))) + "\n")
        return 0
    options = measuring.parser(__doc__ or "").parse_args(arguments)
    with measuring.workplace(options) as place:
        return run(options, place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
