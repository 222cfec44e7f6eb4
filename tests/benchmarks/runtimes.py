"""How near each runtime's labels are to TensorFlow's in float32, and what its features cost, on FER2013's test part.

Each runtime and precision computes the features of all images in a process of its own, with the bundled network and
settings; the bundled heads label them. Costs are CPU time, so that other work on the machine distorts them little.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
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
    return measuring.verdict(claims)


def compared(reference: np.ndarray, found: np.ndarray) -> tuple[int, float, int]:
    """Returns how many labels differ, the largest difference of a probability, and the number of rows."""
    differ = int((reference.argmax(1) != found.argmax(1)).sum())
    return differ, float(np.abs(reference - found).max()), len(reference)


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] == "--measure":
        archive, runtime, precision, step, out = arguments[1:]
        sys.stdout.write(json.dumps(measure(Path(archive), runtime, precision, int(step), Path(out))) + "\n")
        return 0
    options = measuring.parser(__doc__ or "").parse_args(arguments)
    with measuring.workplace(options) as place:
        return run(options, place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
