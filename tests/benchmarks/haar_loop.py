"""A loop as people write it: OpenCV's Haar detector, then a Keras network, an image and a face at a time.

The one that beside_a_loop.py runs beside the job. Prints JSON: images, faces, and wall and CPU seconds without imports
and the loading of the network, with and without its first face, at which Keras compiles.

    python tests/benchmarks/haar_loop.py FOLDER NETWORK.hdf5
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import tf_keras

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # the network's own order


def main() -> None:
    folder, network = Path(sys.argv[1]), sys.argv[2]
    detector = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    model = tf_keras.models.load_model(network, compile=False)
    model.predict(np.zeros((1, 64, 64, 1), np.float32), verbose=0)  # compiles
    began, cpu = time.perf_counter(), time.process_time()
    rows = []
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        image = cv2.imread(str(path))
        if image is None:
            continue
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        smallest = max(1, round(0.1 * min(grey.shape)))  # as the job has it, so that both look for the same faces
        for x, y, width, height in detector.detectMultiScale(grey, 1.1, 5, minSize=(smallest, smallest)):
            face = cv2.resize(grey[y : y + height, x : x + width], (64, 64))
            face = face[None, :, :, None] / 127.5 - 1
            probabilities = model.predict(face, verbose=0)[0]
            rows.append((path.name, int(x), int(y), LABELS[int(probabilities.argmax())], float(probabilities.max())))
    wall, worked = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"images": len(paths), "faces": len(rows), "wall_s": wall, "cpu_s": worked}))


if __name__ == "__main__":
    main()
