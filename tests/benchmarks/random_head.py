"""Writes a linear head of random numbers for some settings' features, so that nets without a trained head can be run.

    python tests/benchmarks/random_head.py FOLDER [KEY=VALUE ...]

Run by throughput.py with the program's packages to import.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from models.heads.linear import LinearHead
from models.runtimes.device import Device
from models.training.fit_head import Fitted
from pipeline.run.fitting import save_head
from pipeline.run.identity import feature_settings, identity_of
from pipeline.settings.load import load_settings
from transforms.formats.canonical import fingerprint_of

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def main() -> None:
    settings = load_settings((), sys.argv[2:])
    width = Device(feature_settings(settings)).width
    draw = np.random.default_rng(7)
    head = LinearHead(
        classes=CLASSES,
        coef=draw.normal(0, 1, (len(CLASSES), width)).astype(np.float32),
        intercept=np.zeros(len(CLASSES)),
        mean=np.zeros(width),
        scale=np.ones(width),
    )
    space = identity_of(settings, None).feature_space
    save_head(Path(sys.argv[1]), Fitted(head, sweep=(), split={}, metrics={}), fingerprint_of(space), space)


if __name__ == "__main__":
    main()
