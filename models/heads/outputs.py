"""The interface of all heads, and how probabilities are computed from logits.

A head may have *reject classes*: answers such as "no face" that are not labels. They have no column in the
probabilities, which are conditional: those of the other classes, given that it is one of them. The total probability
of the reject classes is a separate score.
Not here: what a head's answers mean for tables and files (`output_spec.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from models.heads.output_spec import DECIMALS, ClassOutput, OutputSpec

REVISION = 2  # part of every head's digest; raise it when the same head gives other probabilities
# One shape for every product, as a row's result must not depend on the number of rows. And a small one: above a million
# multiplications, BLAS splits a product among threads, which then spin waiting for the next (90 CPU-us per image).
ROWS_A_CALL = 64


class HeadError(ValueError):
    """A head cannot be used; the message names it, the fault, and the cure."""


class HeadMismatch(HeadError):
    """A head was made for other features than the given ones."""


class Head(Protocol):
    """The interface of all heads.

    Attributes:
        classes: names, alphabetical; column i of the probabilities is classes[i].
        reject: names of the reject classes, alphabetical; () for most heads.
        output: what its answers mean.
        feature_space: the digest of what it was trained for, hex digits.
        features: the same in words, {} where the head does not say.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def reject(self) -> tuple[str, ...]: ...
    @property
    def output(self) -> OutputSpec: ...
    @property
    def feature_space(self) -> str: ...
    @property
    def features(self) -> Mapping[str, Any]: ...

    @property
    def digest(self) -> str:
        """SHA-256, hex, over everything that can change a probability; part of the run fingerprint."""
        ...

    def prepare(self, width: int) -> None:
        """Loads the model if needed, and checks that the head takes features of this width.

        Raises:
            HeadError: the width does not fit, or the model cannot be loaded.
        """
        ...

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Returns the answers of (m, d) features that are probabilities, (m, k); raises as `answers` does."""
        ...

    def answers(self, features: np.ndarray) -> np.ndarray:
        """Returns (m, output.width) float64, rounded to 1e-6, for (m, d) features; equal bytes in any batches.

        Raises:
            HeadError: the width does not fit, or a row has values that are not finite.
        """
        ...


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns (m, k) probabilities of (m, k) logits, row by row."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def in_fixed_calls(features: np.ndarray, columns: int, call: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns (m, columns) float64: the results of `call` on (64, d) float64 rows at a time, zero-padded at the end."""
    out = np.empty((len(features), columns))
    rows = np.zeros((ROWS_A_CALL, features.shape[1]))
    for start in range(0, len(features), ROWS_A_CALL):
        count = min(ROWS_A_CALL, len(features) - start)
        rows[:count] = features[start : start + count]
        rows[count:] = 0
        out[start : start + count] = call(rows)[:count]
    return out


def checked_features(features: np.ndarray, width: int, head: str) -> np.ndarray:
    if features.ndim != 2 or features.shape[1] != width:
        raise HeadError(f"{head} takes features of shape (rows, {width}), not {features.shape}")
    return features


def checked_values(values: np.ndarray, head: str) -> np.ndarray:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise HeadError(
            f"{head}: features of row {row} are not finite (float16 ends at 65504); change pooling or weights"
        )
    return values


def digest_of_parts(**parts: Any) -> str:
    text = json.dumps({"revision": REVISION, **parts}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class LogitsHead:
    """The shared part of heads that give logits: first of their classes, then of their reject classes."""

    classes: tuple[str, ...]
    reject: tuple[str, ...]
    temperature: float
    intensity_temperature: float
    feature_space: str

    def logits(self, features: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    @property
    def output(self) -> ClassOutput:
        """Returns the meaning of the answers: classes, the intensity if it was fitted, a score of reject classes."""
        exponent = self.temperature / self.intensity_temperature if self.intensity_temperature else 0.0
        return ClassOutput(self.classes, rejecting=bool(self.reject), intensity_exponent=exponent)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Returns (m, k) float64 rounded to 1e-6, see `Head`."""
        return self.answers(features)[:, : len(self.classes)]

    def answers(self, features: np.ndarray) -> np.ndarray:
        """Returns probabilities and, with reject classes, their score, see `Head`."""
        logits = self.logits(features) / self.temperature
        k = len(self.classes)
        probabilities = softmax(logits[:, :k])  # over the k classes only, so each row sums to 1
        rejected = [reject_share(logits, k)] if self.reject else []
        return np.round(np.column_stack([probabilities, *rejected]), DECIMALS)


def reject_share(logits: np.ndarray, classes: int) -> np.ndarray:
    """Returns (m,), the total probability of the columns from `classes` on, of (m, classes + r) logits.

    >>> reject_share(np.array([[0.0, 0.0, 0.0, 0.0]]), 3).tolist()
    [0.25]
    """
    return np.asarray(softmax(logits)[:, classes:].sum(axis=1))


def check_outputs(head: LogitsHead, name: str) -> None:
    _check_names(head.classes, head.reject, name)
    if not 0 < head.temperature < np.inf:
        raise HeadError(f"{name}: temperature must be above 0, not {head.temperature}")
    intensity = head.intensity_temperature
    if not 0 <= intensity < np.inf:
        raise HeadError(f"{name}: intensity_temperature must be above 0, or 0 for none, not {intensity}")


def _check_names(classes: tuple[str, ...], reject: tuple[str, ...], head: str) -> None:
    check_classes(classes, head)
    if not all(isinstance(name, str) and name for name in reject) or len({*classes, *reject}) < len(classes + reject):
        raise HeadError(f"{head}: reject classes must be new, distinct names, not {list(reject)}")
    for what, names in (("classes", classes), ("reject classes", reject)):
        if list(names) != sorted(names):
            raise HeadError(f"{head}: {what} must be in alphabetical order, not {', '.join(names)}")


def check_arrays(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], head: str) -> None:
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise HeadError(f"{head}: {name} must be finite floats of shape {shape}, not {array.dtype} {array.shape}")
    if not (arrays["scale"] > 0).all():
        raise HeadError(f"{head}: all values of scale must be above 0")


def digest_of_arrays(kind: str, head: LogitsHead, values: Sequence[np.ndarray]) -> str:
    arrays = hashlib.sha256()
    for value in values:
        arrays.update(np.ascontiguousarray(value, dtype="<f8").tobytes())
    more: dict[str, Any] = {"reject": head.reject} if head.reject else {}  # keeps the digests of heads without them
    if head.intensity_temperature:
        more["intensity_temperature"] = head.intensity_temperature
    return digest_of_parts(
        kind=kind,
        classes=head.classes,
        features=head.feature_space,
        temperature=head.temperature,
        arrays=arrays.hexdigest(),
        **more,
    )


def check_classes(classes: tuple[str, ...], head: str) -> None:
    if not all(isinstance(c, str) and c for c in classes) or len(classes) < 2 or len(set(classes)) != len(classes):
        raise HeadError(f"{head}: classes must be two or more different names, not {list(classes)}")
