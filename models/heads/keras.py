"""A user's own Keras model as a head. Keras is loaded when the head is first used."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.heads.folder import HEAD_JSON
from models.heads.output_spec import DECIMALS, ClassOutput
from models.heads.outputs import (
    ROWS_A_CALL,
    HeadError,
    check_classes,
    checked_values,
    digest_of_parts,
    in_fixed_calls,
    softmax,
)

if TYPE_CHECKING:
    import keras


class KerasHead:
    """A Keras model from (n, d) features to classes, with a `head.json` beside it.

    The meaning of its outputs is determined once, on a fixed probe, never from the data. One output for two classes is
    the probability of the second class listed (after a sigmoid if the probe gives values outside 0 … 1). k outputs that
    are all ≥ 0 and sum to 1 are probabilities. All other outputs go through a softmax.

    Args:
        path: path of the `.keras` file.
        output_classes: names in the order of the model's outputs; here columns are sorted alphabetically.
        sha256: digest of the file, hex digits.
    """

    def __init__(
        self,
        path: Path,
        output_classes: tuple[str, ...],
        *,
        feature_space: str,
        features: Mapping[str, Any],
        sha256: str,
    ) -> None:
        check_classes(output_classes, str(path))
        self.path = path
        self.classes = tuple(sorted(output_classes))
        self.reject: tuple[str, ...] = ()
        self.feature_space = feature_space
        self.features = features
        self.sha256 = sha256
        self._output_classes = output_classes
        self._columns = [output_classes.index(name) for name in self.classes]
        self._lock = threading.Lock()  # one model for all threads, loaded only once
        self._model: keras.Model | None = None
        self._as_probabilities: Callable[[np.ndarray], np.ndarray] = softmax

    @property
    def digest(self) -> str:
        """SHA-256 over kind, classes, features and the model file."""
        return digest_of_parts(
            kind="keras", classes=self._output_classes, features=self.feature_space, file=self.sha256
        )

    @property
    def output(self) -> ClassOutput:
        """Returns the meaning of the answers: classes."""
        return ClassOutput(self.classes)

    def prepare(self, width: int) -> None:
        """Loads the model and checks that it takes `width` features and has one output per class of head.json."""
        with self._lock:
            self._loaded(width)

    def _loaded(self, width: int) -> keras.Model:
        model = _load_keras(self.path) if self._model is None else self._model
        shapes = (model.input_shape, model.output_shape)
        if not all(isinstance(shape, tuple) and len(shape) == 2 for shape in shapes):
            raise HeadError(f"{self.path} must map (rows, features) to (rows, classes), not {shapes[0]} to {shapes[1]}")
        if shapes[0][1] not in (width, None):
            raise HeadError(f"{self.path} takes features of width {shapes[0][1]}, not {width}")
        outputs, k = shapes[1][1], len(self.classes)
        if outputs != k and not (outputs == 1 and k == 2):
            raise HeadError(f"{self.path} has {outputs} outputs, but its {HEAD_JSON} lists {k} classes")
        if self._model is None:
            self._as_probabilities = _meaning_of(_outputs_of(model, _probe(width)))
            self._model = model
        return model

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Returns (m, k) float64 rounded to 1e-6, see `Head`."""
        if features.ndim != 2:
            raise HeadError(f"{self.path} takes features of shape (rows, width), not {features.shape}")
        with self._lock:
            model = self._loaded(features.shape[1])
            columns = 1 if model.output_shape[1] == 1 else len(self.classes)
            outputs = in_fixed_calls(features, columns, lambda rows: _outputs_of(model, rows))
        found = self._as_probabilities(checked_values(outputs, str(self.path)))
        return np.round(found[:, self._columns], DECIMALS)

    def answers(self, features: np.ndarray) -> np.ndarray:
        """Returns the probabilities, as a Keras head has no reject classes."""
        return self.probabilities(features)


def _load_keras(path: Path) -> keras.Model:
    import keras

    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, KeyError, zipfile.BadZipFile) as e:
        first_line = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise HeadError(f"{path} is not a Keras model, or one that would run its own code: {first_line}") from e


def _outputs_of(model: keras.Model, rows: np.ndarray) -> np.ndarray:
    """Returns the raw outputs as float64. Not through `predict`: it may use XLA, whose results vary with threads."""
    from keras import ops

    return np.asarray(ops.convert_to_numpy(model(rows.astype(np.float32), training=False)), dtype=np.float64)


def _probe(width: int) -> np.ndarray:
    """Returns (64, width) fixed rows from tiny to large, on which logits do not look like probabilities."""
    sizes = np.logspace(-2, 2, ROWS_A_CALL)[:, None]
    return np.random.default_rng(0).standard_normal((ROWS_A_CALL, width)) * sizes


def _meaning_of(probed: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from a model's outputs to (m, k) probabilities, see `KerasHead`."""
    bounded = bool(((probed >= 0) & (probed <= 1)).all())
    if probed.shape[1] == 1:
        return _two_columns if bounded else _two_columns_of_logit
    if bounded and np.abs(probed.sum(axis=1) - 1).max() < 1e-2:  # sums of float16 models differ from 1 by a few 1e-3
        return _normalised
    return softmax


def _two_columns(second: np.ndarray) -> np.ndarray:
    return np.concatenate([1 - second, second], axis=1)


def _two_columns_of_logit(logit: np.ndarray) -> np.ndarray:
    return softmax(np.concatenate([np.zeros_like(logit), logit], axis=1))


def _normalised(outputs: np.ndarray) -> np.ndarray:
    return np.asarray(outputs / outputs.sum(axis=1, keepdims=True))
