"""The classifier that a network was trained with, as a head for the features of that network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from models.heads.linear import LinearHead
from models.training.fit_head import Fitted
from pipeline.run.fitting import save_head
from pipeline.run.identity import feature_space
from pipeline.settings.schema import Settings
from transforms.formats.canonical import fingerprint_of


def settings_for(settings: Settings, backbone: str, weights: Path, size: tuple[int, int]) -> Settings:
    """Returns the settings under which the pipeline computes what the network's own classifier saw."""
    features = {
        "backbone": backbone,
        "weights": str(weights),
        "pooling": "avg",
        "input_size": size,
        "flip_average": False,
        "flip_cut": 0.0,
    }
    return settings.model_copy(update={"features": settings.features.model_copy(update=features)})


def flags_for(settings: Settings, head: Path) -> str:
    """Returns the words for a command line that labels with the network and its head."""
    chosen = settings.features
    height, width = chosen.input_size or (0, 0)
    return (
        f"--head {shlex.quote(str(head))} --set features.backbone={chosen.backbone} "
        f"{shlex.quote(f'features.weights={chosen.weights}')} "
        f"features.pooling=avg features.input_size={height}x{width} features.flip_average=false features.flip_cut=0"
    )


def save_network_head(
    folder: Path, network: Any, task: str, classes: tuple[str, ...], settings: Settings, metrics: dict[str, Any]
) -> None:
    """Writes a head with the kernel and the bias of the classifier of a task.

    Args:
        settings: from `settings_for`; the weights are there already.
        metrics: of the network on validation.

    Raises:
        StorageError: the folder cannot be written.
    """
    kernel, bias = network.get_layer(task).get_weights()
    width = len(kernel)
    head = LinearHead(
        classes,
        coef=np.ascontiguousarray(kernel.T, np.float32),
        intercept=bias.astype(np.float64),
        mean=np.zeros(width),
        scale=np.ones(width),
    )
    space = feature_space(settings)
    save_head(folder, Fitted(head, kind="network", metrics=metrics), fingerprint_of(space), space)
