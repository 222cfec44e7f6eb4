"""Trains the landmark network that `face_vgg_attention` and `face_vgg_regions` look through, and judges it.

Every fifth person of ytf68 is held out, with all frames. Errors are means over the 68 points, in pixels of the 48-pixel
crop and as a share of the inter-ocular distance (outer corners of the eyes). Beside it stands the mean shape: what is
had without looking. If interrupted, the same `--work` resumes after the last whole epoch.
"""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import measuring
import numpy as np

EPOCHS = 120


def main() -> None:
    """Trains, and writes `landmarks.npz` and `landmarks.json` into `--out`."""
    parser = measuring.parser(__doc__ or "")
    parser.add_argument("--out", type=Path, help="folder for landmarks.npz and landmarks.json")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    archive, table = (options.data / "landmarks" / f"ytf68.{kind}" for kind in ("tar", "csv"))
    measuring.needed(archive, table)
    from models.runtimes.registry import start_keras

    start_keras(0)
    from models.backbones.landmarks import landmark_arrays, landmark_network
    from models.training.detection.landmarks import Landmarks, held_out, judged_faces, point_error, read_faces
    from models.training.loop import train
    from models.training.recipe import Recipe

    learned, held = held_out(read_faces(archive, table))
    if options.small:
        learned, held = learned.only(np.arange(64)), held.only(np.arange(16))
    recipe = Recipe(
        epochs=2 if options.small else options.epochs,
        batch_size=32,
        optimiser="adam",
        learning_rate=1.5e-3,
        warmup_epochs=1,
        weight_decay=0.0,
        ema_decay=0.98,
    )
    network = landmark_network()
    with measuring.workplace(options, keep=("training",)) as place:
        before = time.process_time()
        train(network, Landmarks(learned, held, recipe), recipe, place / "training", report=print)
        spent = time.process_time() - before
    crops, truth = judged_faces(held)
    error = point_error(np.asarray(network.predict(crops, batch_size=64, verbose=0)), truth)
    mean = point_error(np.broadcast_to(judged_faces(learned)[1].mean(axis=0), truth.shape), truth)
    card = {
        "task": "68 landmarks of a face, 48x48 grey",
        "data": {"set": "ytf68", "faces": len(learned), "people": len(set(learned.groups.tolist()))},
        "held_out": {"faces": len(held), "people": len(set(held.groups.tolist()))},
        "epochs": recipe.epochs,
        "error_px_of_48": round(float(error.pixels.mean()), 3),
        "error_of_interocular_distance": round(float(error.share.mean()), 4),
        "median_error_of_interocular_distance": round(float(np.median(error.share)), 4),
        "faces_above_a_tenth": round(float((error.share > 0.1).mean()), 4),
        "mean_shape_error_of_interocular_distance": round(float(mean.share.mean()), 4),
    }
    print(json.dumps({**card, "cpu_s": round(spent)}, indent=2))
    if options.out is not None:
        out = io.BytesIO()
        np.savez(out, **landmark_arrays(network))
        options.out.mkdir(parents=True, exist_ok=True)
        for name, content in (
            ("landmarks.npz", out.getvalue()),
            ("landmarks.json", json.dumps(card, indent=2).encode() + b"\n"),
        ):
            partial = options.out / f".{name}.new"
            partial.write_bytes(content)
            os.replace(partial, options.out / name)


if __name__ == "__main__":
    main()
