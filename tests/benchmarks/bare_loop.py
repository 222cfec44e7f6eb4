"""The bare loop that throughput.py measures the job against: decode, resize, the net, nothing else.

Prints JSON: images, and wall and CPU seconds, from the second batch on. It is given what the job is given, and less to
do: members are listed before the clock starts and read by their offsets, nothing is checked, hashed, kept or written.

    python tests/benchmarks/bare_loop.py ARCHIVE.tar [KEY=VALUE ...] [--free-net]

Run by throughput.py with the program's packages to import.
"""

from __future__ import annotations

import json
import sys
import tarfile
import time

import cv2
import numpy as np

from models.backbones.registry import backbone
from models.runtimes.device import Device
from pipeline.run.identity import feature_settings
from pipeline.settings.load import load_settings

FREE_WIDTH = 864  # of the features of a net that costs nothing: those of face_vgg
FREE_S = 5e-4  # an image: it lasts, as a net does, or the threads around it would do nothing but wait for each other


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--free-net"]
    archive, settings = words[0], feature_settings(load_settings((), words[1:]))
    channels = backbone(settings.backbone).channels
    size, flag = (settings.width, settings.height), cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE
    cv2.setNumThreads(1)
    net = free_net if "--free-net" in sys.argv else Device(settings).features
    with tarfile.open(archive) as listing:
        spans = [(member.offset_data, member.size) for member in listing if member.isfile()]
    batch, features = [], []
    wall = cpu = 0.0
    with open(archive, "rb") as file:
        for offset, length in spans:
            file.seek(offset)
            image = cv2.imdecode(np.frombuffer(file.read(length), np.uint8), flag)
            if image.shape[1::-1] != size:
                shrinks = image.shape[1] > size[0]
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            batch.append(image)
            if len(batch) == settings.batch_size:
                features.append(net(np.stack(batch).reshape(len(batch), size[1], size[0], channels)))
                batch.clear()
                if len(features) == 1:
                    wall, cpu = time.perf_counter(), time.process_time()
    if batch:
        features.append(net(np.stack(batch).reshape(len(batch), size[1], size[0], channels)))
    measured = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    print(json.dumps({"images": len(spans) - settings.batch_size, **measured}))


def free_net(crops: np.ndarray) -> np.ndarray:
    """Stands in for a net that takes time, but no CPU time."""
    time.sleep(FREE_S * len(crops))
    return np.zeros((len(crops), FREE_WIDTH), np.float16)


if __name__ == "__main__":
    main()
