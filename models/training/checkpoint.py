"""The files of a training: a checkpoint that resumes exactly, the best weights, and the curves."""

from __future__ import annotations

import csv
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.npyio import NpzFile

if TYPE_CHECKING:
    import keras

CHECKPOINT = "checkpoint.npz"
BEST = "best.npz"
HISTORY = "history.csv"

History = list[dict[str, float]]


class TrainingError(ValueError):
    """A training cannot start or resume; the message says why."""


def _all_variables(model: keras.Model) -> list[Any]:
    """Weights, normalisation statistics, random states and the optimiser's, in a stable order."""
    seen: dict[int, Any] = {}
    for variable in [*model.variables, *model.optimizer.variables]:
        seen.setdefault(id(variable), variable)
    return list(seen.values())


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays atomically: under a temporary name, flushed, then renamed."""
    temporary = path.with_name(path.name + ".tmp")
    named: dict[str, Any] = dict(arrays)  # Any, as `savez` has named parameters; no array has their names
    with open(temporary, "wb") as out:
        np.savez(out, **named)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, path)


def save_checkpoint(
    path: Path, model: keras.Model, epoch: int, history: History, state: Mapping[str, np.ndarray] = MappingProxyType({})
) -> None:
    """Writes everything that the next epoch depends on."""
    arrays = {f"v{i:04d}": np.asarray(v.value) for i, v in enumerate(_all_variables(model))}
    for key in history[0] if history else []:
        arrays[f"history_{key}"] = np.asarray([row[key] for row in history], dtype=np.float64)
    arrays |= {f"state_{name}": array for name, array in state.items()}
    arrays["epoch"] = np.asarray(epoch)
    save_arrays(path, arrays)


@contextmanager
def stored_arrays(path: Path) -> Iterator[NpzFile]:
    """Yields the arrays of a file written here; raises a TrainingError with the cure if it is damaged."""
    try:
        with np.load(path) as stored:
            yield stored
    except TrainingError:
        raise
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(
            f"{path} is damaged (not a valid .npz file); remove its folder to start again, or use another --output"
        ) from error


def load_checkpoint(path: Path, model: keras.Model, state: dict[str, np.ndarray] | None = None) -> tuple[int, History]:
    """Restores a checkpoint into `model` and `state`; returns the epochs done and the history so far.

    Raises:
        TrainingError: the checkpoint belongs to another network, or is damaged.
    """
    with stored_arrays(path) as stored:
        variables = _all_variables(model)
        names = sorted(k for k in stored.files if k[0] == "v" and k[1:].isdigit())
        if len(names) != len(variables):
            raise TrainingError(f"{path}: {len(names)} arrays, this network has {len(variables)}; use another --output")
        for name, variable in zip(names, variables, strict=True):
            if stored[name].shape != tuple(variable.shape):
                raise TrainingError(
                    f"{path}: {variable.path} has shape {stored[name].shape}, this network {tuple(variable.shape)}; "
                    "use another --output"
                )
            variable.assign(stored[name])
        if state is not None:
            state.update({name: stored[f"state_{name}"] for name in state})
        epoch = int(stored["epoch"])
        keys = [k.removeprefix("history_") for k in stored.files if k.startswith("history_")]
        history = [{k: float(stored[f"history_{k}"][i]) for k in keys} for i in range(epoch)]
    return epoch, history


def read_history(path: Path) -> History:
    """Returns the curves from a file of `write_history`."""
    with open(path, newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def write_history(path: Path, history: History) -> None:
    """Writes the curves as CSV, one row per epoch, atomically."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(history[0]) if history else ["epoch"])
        writer.writeheader()
        writer.writerows(history)
    os.replace(temporary, path)
