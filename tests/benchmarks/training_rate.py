"""What a training step of face_vgg costs: Keras's batch normalisation beside ours, and small images beside whole ones.

In one process, in turn, on random pixels: steps of the bundled recipe (`configs/recipes/face_vgg.yaml`) with
`keras.layers.BatchNormalization` and with `models.backbones.normalisation`; then with images that wait in a file
(`models.training.stored_rows`) and in memory; then with images reduced to each side that the recipe names. Wall and CPU
time are given for every turn; the claims are about the medians of the ratios by CPU-second. Last, what the weights are
after the same steps in two processes, by SHA-256: whether steps are repeatable bit for bit here, with all threads.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np

RECIPE = measuring.ROOT / "configs" / "recipes" / "face_vgg.yaml"
TASKS = {"labels": 7, "ferplus": 10}  # classes of each task of the recipe
KERAS, OURS = "Keras's", "ours"
MEMORY, FILE = "in memory", "in a file"
SMALLEST_GAIN = 1.25  # of CPU time, by our normalisation
LEAST_OF_MEMORY = 0.95  # images per CPU-second from a file, as a share of those from memory
HERE = Path(__file__)


# --- in a process of its own, with the program's packages -------------------------------------------------------------


def recipe() -> tuple[Any, Any]:
    """Returns the recipe and the shape of the bundled network."""
    from models.backbones.shape import FaceVggShape
    from pipeline.actions.train_backbone import recipe_of
    from pipeline.settings.load import load_settings

    settings = load_settings([RECIPE], []).train
    return recipe_of(settings), FaceVggShape(tuple(settings.widths), settings.convs)


def steps_of(side: int, steps: int, *, keras_own: bool = False, stored: bool = False) -> tuple[Any, Callable[[], None]]:
    """Returns a network with Keras's normalisation or ours, and what trains it for some steps."""
    from dataclasses import replace

    import keras

    from models.backbones import normalisation
    from models.training.optimisers import optimiser
    from models.training.trainer import Classification, Examples, Task
    from pipeline.actions.train_backbone import _network
    from pipeline.run.labelled_images import Form

    found, shape = recipe()
    found = replace(found, progressive_sizes=(side,))
    draw = np.random.default_rng(0)
    count = steps * found.batch_size
    images = draw.integers(0, 256, (count, 48, 48, 1), np.uint8)
    inputs = in_a_file(images) if stored else images
    targets = {name: draw.dirichlet(np.ones(n), count).astype(np.float32) for name, n in TASKS.items()}
    tasks = [Task(name, tuple(map(str, range(n))), soft=name != "labels") for name, n in TASKS.items()]
    fused = normalisation.FusedBatchNormalization
    normalisation.FusedBatchNormalization = keras.layers.BatchNormalization if keras_own else fused
    try:
        network = _network(tasks, found, "face_vgg", Form((48, 48)), shape)
    finally:
        normalisation.FusedBatchNormalization = fused
    examples = Examples(inputs, targets, {})
    lesson = Classification(examples, examples, tasks, found)
    lesson.compile(network, optimiser(found, found.learning_rate, network.trainable_variables))

    def train() -> None:
        network.fit(lesson.batches(0), epochs=1, shuffle=False, verbose=0)

    return network, train


def in_a_file(images: np.ndarray) -> Any:
    """Returns the images as `train-backbone` keeps them."""
    from models.training.stored_rows import RowsWriter

    writer = RowsWriter(Path(tempfile.gettempdir()))
    for image in images:
        writer.add(image)
    return writer.rows()


def timed(train: Callable[[], None]) -> tuple[float, float]:
    """Returns wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    train()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(turns: int, steps: int) -> dict[str, Any]:
    """Returns (wall, CPU) milliseconds an image of every turn, by kind of normalisation and by side."""
    found, _ = recipe()
    images = steps * found.batch_size

    def of(trainings: dict[str, Callable[[], None]]) -> dict[str, list[list[float]]]:
        for train in trainings.values():
            train()  # compiles, and warms
        times: dict[str, list[list[float]]] = {name: [] for name in trainings}
        for _ in range(turns):
            for name, train in trainings.items():
                times[name].append([1000 * seconds / images for seconds in timed(train)])
        return times

    kinds = {KERAS: True, OURS: False}
    whole = max(found.progressive_sizes)
    return {
        "normalisation": of({name: steps_of(whole, steps, keras_own=own)[1] for name, own in kinds.items()}),
        "images": of({MEMORY: steps_of(whole, steps)[1], FILE: steps_of(whole, steps, stored=True)[1]}),
        "sides": of({str(side): steps_of(side, steps)[1] for side in sorted(set(found.progressive_sizes))}),
    }


def digest(steps: int) -> str:
    """Returns the SHA-256 of the weights after some steps from the recipe's seed, at each of its sides in turn."""
    found, _ = recipe()
    made = hashlib.sha256()
    for side in found.progressive_sizes:
        network, train = steps_of(side, steps)
        train()
        for weights in network.get_weights():
            made.update(weights.tobytes())
    return made.hexdigest()


# --- tables -----------------------------------------------------------------------------------------------------------


def table(title: str, times: dict[str, list[list[float]]], base: str) -> dict[str, list[float]]:
    """Prints a line for each turn and the medians; returns by column the ratios of CPU time, `base` over it."""
    names = list(times)
    head = ["turn", *(f"{name}: ms an image" for name in names), *(f"{name}: CPU-ms" for name in names)]
    lines: list[list[Any]] = [
        [number, *(wall for wall, _ in turn), *(cpu for _, cpu in turn)]
        for number, turn in enumerate(zip(*times.values(), strict=True), 1)
    ]
    lines.append(["median", *(measuring.median(line[i] for line in lines) for i in range(1, len(head)))])
    measuring.show(title, head, [[line[0], *(f"{value:.2f}" for value in line[1:])] for line in lines])
    return {
        name: [whole[1] / own[1] for whole, own in zip(times[base], turns, strict=True)]
        for name, turns in times.items()
    }


def run(options: Namespace) -> int:
    """Measures, prints, and returns the exit status."""
    turns, steps = (2, 2) if options.small else (options.turns, options.steps)
    measuring.progress(f"{turns} turns of {steps} steps for each column")
    ran = measuring.start(HERE, "--inside", "measure", str(turns), str(steps)).wait().done()
    found = json.loads(ran.out.splitlines()[-1])
    gains = table("Batch normalisation, whole images", found["normalisation"], KERAS)
    streamed = table("Where the images wait", found["images"], MEMORY)
    by_side = table("Sides that images are reduced to, pixels", found["sides"], max(found["sides"], key=int))
    measuring.progress("the same steps in two processes")
    again = [measuring.start(HERE, "--inside", "digest", "0", str(steps)).wait().done().out.split()[-1] for _ in "ab"]
    shares = ", ".join(f"{side}: {measuring.median(1 / one for one in of):.2f}" for side, of in by_side.items())
    print(f"\nCPU time of each side, of the whole image's: {shares}.")
    return measuring.verdict(
        [
            (
                f"Keras's normalisation takes {measuring.spread(gains[OURS])} of the CPU time of ours, "
                f"target {SMALLEST_GAIN}",
                options.small or measuring.median(gains[OURS]) >= SMALLEST_GAIN,
            ),
            (
                f"images in a file: {measuring.spread(streamed[FILE])} of the images per CPU-second in memory, "
                f"target {LEAST_OF_MEMORY}",
                options.small or measuring.median(streamed[FILE]) >= LEAST_OF_MEMORY,
            ),
            (f"two processes train the same weights, bit for bit ({again[0][:12]})", again[0] == again[1]),
        ]
    )


def main(words: Sequence[str]) -> int:
    if words and words[0] == "--inside":
        what, turns, steps = words[1], int(words[2]), int(words[3])
        print(json.dumps(measure(turns, steps)) if what == "measure" else digest(steps))
        return 0
    made = measuring.parser(__doc__ or "")
    made.add_argument("--turns", type=int, default=5)
    made.add_argument("--steps", type=int, default=10, help="of a turn, in each column")
    return run(made.parse_args(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
