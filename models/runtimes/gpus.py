"""NVIDIA GPUs of this machine, found without loading a runtime."""

from __future__ import annotations

import os
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"  # what CUDA lets a process use; read once, when a runtime is loaded
_DEVICES = "/dev"  # the driver makes a file `nvidia<number>` there for each GPU


def visible_gpus() -> tuple[str, ...]:
    """Returns the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; () if there are none."""
    chosen = os.environ.get(VISIBLE)
    if chosen is None:
        return tuple(str(number) for number in range(len(list(Path(_DEVICES).glob("nvidia[0-9]*")))))
    names = [name.strip() for name in chosen.split(",")]
    return tuple(name for name in names if name not in ("", "-1", "NoDevFiles"))


def use_one_gpu(number: int) -> None:
    """Leaves this process one of the visible GPUs, in turn; call it before a runtime is loaded.

    Args:
        number: of the process among those of the run, from 0.
    """
    if gpus := visible_gpus():
        os.environ[VISIBLE] = gpus[number % len(gpus)]


def named(device: str) -> str:
    """Returns the name of a GPU with its number, if this process may use only that one."""
    gpus = visible_gpus()
    return f"{device} (GPU {gpus[0]})" if os.environ.get(VISIBLE) and len(gpus) == 1 else device
