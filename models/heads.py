"""The small trained classifier that turns features into probabilities of classes.

A head is a folder with `head.json` (classes, what features it was made for) and its weights: `head.npz`, plain arrays,
for a linear head and for dense layers; a `.keras` file for a Keras head. Only the latter loads Keras, and only when it
is first used.

A head may know *reject classes*: answers such as "no face" that are no label. They take no column of the probabilities,
which are those of the other classes given that it is one of them, and their share becomes a score of its own.

Not here: how a head is trained (`training/fit_head.py`, `training/fit_mlp.py`), and which features are computed
(`backbones.py`).
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import keras

REVISION = 2  # part of every head's digest: raise it when the same head gives other probabilities
FORMAT_VERSION = 1
# One shape for every product: what a row gets must not depend on how many rows come with it. And a small one: from a
# million multiplications on BLAS shares a product among threads, which then spin for the next (90 CPU-us an image).
ROWS_A_CALL = 64
DECIMALS = 6  # of a probability, rounded before any arg-max: far above float64 noise, far below meaning
BUNDLED_HEAD = Path(__file__).parent / "weights" / "fer2013"
BUNDLED_HEADS = {  # words of `head.path` that are no paths
    "bundled": BUNDLED_HEAD,
    "bundled/fer2013": BUNDLED_HEAD,
    "bundled/ferplus": BUNDLED_HEAD.with_name("ferplus"),
}
HEAD_JSON = "head.json"
HEAD_NPZ = "head.npz"
ARRAYS = ("coef", "intercept", "mean", "scale")
SHORT_FINGERPRINT = 16  # hex digits: as caches are named; 64 bits tell any two feature spaces apart


class HeadError(ValueError):
    """A head cannot be used; the message names it, the fault, and the cure."""


class HeadMismatch(HeadError):
    """A head was made for other features than those at hand."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a head says of rows of features.

    Attributes:
        probabilities: (m, k) float64, rounded to 1e-6; a row sums to 1 but for the rounding.
        reject_score: (m,) float64 in [0, 1], rounded to 1e-6: the probability of the reject classes together; None
            where the head has none.
    """

    probabilities: np.ndarray
    reject_score: np.ndarray | None = None


class Head(Protocol):
    """What every head offers.

    Attributes:
        classes: names, alphabetical: column i of the probabilities is classes[i].
        reject: names of the reject classes, alphabetical; () for most heads.
        features_fingerprint: of the features it was made for, hex digits.
        features: the same in words, {} where the head does not say.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def reject(self) -> tuple[str, ...]: ...
    @property
    def features_fingerprint(self) -> str: ...
    @property
    def features(self) -> Mapping[str, Any]: ...

    @property
    def digest(self) -> str:
        """SHA-256, hex, over all that can change a probability: for the run fingerprint."""
        ...

    def prepare(self, width: int) -> None:
        """Loads what is loaded lazily, and checks that the head takes features of this width.

        Raises:
            HeadError: it does not, or its model cannot be loaded.
        """
        ...

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Returns (m, k) float64, rounded to 1e-6, for (m, d) features; the same bytes however rows are split.

        Raises:
            HeadError: the width is not the head's, or a row holds values that are not finite.
        """
        ...

    def scores(self, features: np.ndarray) -> Scores:
        """Returns the probabilities, and the reject score where the head has one; raises as `probabilities` does."""
        ...


def most_likely(probabilities: np.ndarray) -> np.ndarray:
    """Returns the (m,) column of the largest probability; of equal ones the first in the alphabet."""
    return np.asarray(probabilities.argmax(axis=1))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns (m, k) probabilities of (m, k) logits, row by row."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _in_fixed_calls(features: np.ndarray, columns: int, call: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns (m, columns) float64: `call` on (64, d) float64 rows at a time, the last ones padded with zeros."""
    out = np.empty((len(features), columns))
    rows = np.zeros((ROWS_A_CALL, features.shape[1]))
    for start in range(0, len(features), ROWS_A_CALL):
        count = min(ROWS_A_CALL, len(features) - start)
        rows[:count] = features[start : start + count]
        rows[count:] = 0
        out[start : start + count] = call(rows)[:count]
    return out


def _checked_features(features: np.ndarray, width: int, head: str) -> np.ndarray:
    if features.ndim != 2 or features.shape[1] != width:
        raise HeadError(f"{head} takes features of shape (rows, {width}), not {features.shape}")
    return features


def _checked_values(values: np.ndarray, head: str) -> np.ndarray:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise HeadError(
            f"{head}: features of row {row} are not finite (float16 ends at 65504); choose another pooling or weights"
        )
    return values


def _digest_of(**parts: Any) -> str:
    text = json.dumps({"revision": REVISION, **parts}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class _LogitsHead:
    """What heads share that give logits of their classes and then of their reject classes."""

    classes: tuple[str, ...]
    reject: tuple[str, ...]
    temperature: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Returns (m, k) float64 rounded to 1e-6, see `Head`."""
        return self.scores(features).probabilities

    def scores(self, features: np.ndarray) -> Scores:
        """Returns probabilities and, with reject classes, their score, see `Head`."""
        logits = self.logits(features) / self.temperature
        k = len(self.classes)
        probabilities = np.round(softmax(logits[:, :k]), DECIMALS)  # of those k alone: what is left is shared out
        return Scores(probabilities, np.round(reject_share(logits, k), DECIMALS) if self.reject else None)


def reject_share(logits: np.ndarray, classes: int) -> np.ndarray:
    """Returns (m,) the probability of all columns from `classes` on, of (m, classes + r) logits."""
    return np.asarray(softmax(logits)[:, classes:].sum(axis=1))


@dataclass(frozen=True, eq=False)
class LinearHead(_LogitsHead):
    """Multinomial logistic regression on standardised features: softmax(((x - mean) / scale) coefᵀ + intercept).

    Attributes:
        classes: k names, alphabetical.
        coef: (k + r, d) float32. intercept: (k + r,), mean, scale: (d,) float64; scale is above 0.
        temperature: logits are divided by it.
        features_fingerprint, features: what it was made for.
        sha256: of `head.npz`, hex digits, "" before it is saved.
        metrics, split: how good it was, on what; for people.
        reject: r names of reject classes, alphabetical, whose logits stand behind the classes'.

    Raises:
        HeadError: arrays that do not fit each other or are not finite, or classes out of order.
    """

    classes: tuple[str, ...]
    coef: np.ndarray
    intercept: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    temperature: float = 1.0
    features_fingerprint: str = ""
    features: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    reject: tuple[str, ...] = ()
    _weights: np.ndarray = field(init=False, repr=False)  # (d, k + r) and (k + r,): scaling folded in
    _bias: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_outputs(self.classes, self.reject, self.temperature, "linear head")
        k, width = len(self.classes) + len(self.reject), self.coef.shape[-1]
        shapes = {"coef": (k, width), "intercept": (k,), "mean": (width,), "scale": (width,)}
        _check_arrays({name: getattr(self, name) for name in shapes}, shapes, "linear head")
        weights = (self.coef.astype(np.float64) / self.scale).T
        object.__setattr__(self, "_weights", np.ascontiguousarray(weights))
        object.__setattr__(self, "_bias", self.intercept - self.mean @ weights)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What `head.npz` holds, by name."""
        return {name: getattr(self, name) for name in ARRAYS}

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        return self.coef.size + self.intercept.size

    @property
    def digest(self) -> str:
        """SHA-256 over kind, classes, features, temperature and the arrays."""
        return _digest_of_arrays("linear", self, [self.arrays[name] for name in ARRAYS])

    def prepare(self, width: int) -> None:
        """Checks the width: nothing is loaded lazily."""
        if width != len(self.mean):
            raise HeadError(f"linear head takes features of width {len(self.mean)}, not {width}")

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns (m, k + r) float64 before temperature and softmax, for (m, d) features."""
        features = _checked_features(features, len(self.mean), "linear head")
        with np.errstate(invalid="ignore"):  # reported below, with the row
            found = _in_fixed_calls(features, len(self._bias), lambda rows: rows @ self._weights + self._bias)
        return _checked_values(found, "linear head")


@dataclass(frozen=True, eq=False)
class MlpHead(_LogitsHead):
    """Dense layers with relu between them on standardised features, the last one without: float64, in numpy.

    Attributes:
        classes: k names, alphabetical.
        kernels: of each layer (inputs, outputs) float32; the first takes d, the last gives k + r.
        biases: of each layer (outputs,) float32.
        mean, scale: (d,) float64; scale is above 0.
        temperature, features_fingerprint, features, sha256, metrics, split, reject: as of `LinearHead`.

    Raises:
        HeadError: arrays that do not fit each other or are not finite, or classes out of order.
    """

    classes: tuple[str, ...]
    kernels: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    mean: np.ndarray
    scale: np.ndarray
    temperature: float = 1.0
    features_fingerprint: str = ""
    features: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    reject: tuple[str, ...] = ()
    _layers: tuple[tuple[np.ndarray, np.ndarray], ...] = field(init=False, repr=False)  # scaling folded in the first

    def __post_init__(self) -> None:
        _check_outputs(self.classes, self.reject, self.temperature, "mlp head")
        if not self.kernels or len(self.kernels) != len(self.biases):
            raise HeadError(f"mlp head: {len(self.kernels)} kernels and {len(self.biases)} biases make no layers")
        sizes = [self.mean.shape[-1], *(kernel.shape[-1] for kernel in self.kernels)]
        sizes[-1] = len(self.classes) + len(self.reject)
        shapes: dict[str, tuple[int, ...]] = {"mean": (sizes[0],), "scale": (sizes[0],)}
        for i in range(len(self.kernels)):
            shapes |= {f"kernel{i}": (sizes[i], sizes[i + 1]), f"bias{i}": (sizes[i + 1],)}
        _check_arrays(self.arrays, shapes, "mlp head")
        layers = [(k.astype(np.float64), b.astype(np.float64)) for k, b in zip(self.kernels, self.biases, strict=True)]
        first = layers[0][0] / self.scale[:, None]
        layers[0] = (first, layers[0][1] - self.mean @ first)
        object.__setattr__(self, "_layers", tuple(layers))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What `head.npz` holds, by name."""
        layers = {f"kernel{i}": kernel for i, kernel in enumerate(self.kernels)}
        layers |= {f"bias{i}": bias for i, bias in enumerate(self.biases)}
        return {"mean": self.mean, "scale": self.scale, **layers}

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        return sum(kernel.size + bias.size for kernel, bias in zip(self.kernels, self.biases, strict=True))

    @property
    def digest(self) -> str:
        """SHA-256 over kind, classes, features, temperature and the arrays with their shapes."""
        shapes = [np.asarray(kernel.shape, np.float64) for kernel in self.kernels]
        return _digest_of_arrays("mlp", self, [*shapes, *(value for _, value in sorted(self.arrays.items()))])

    def prepare(self, width: int) -> None:
        """Checks the width: nothing is loaded lazily."""
        if width != len(self.mean):
            raise HeadError(f"mlp head takes features of width {len(self.mean)}, not {width}")

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns (m, k + r) float64 before temperature and softmax, for (m, d) features."""
        features = _checked_features(features, len(self.mean), "mlp head")
        with np.errstate(invalid="ignore"):  # reported below, with the row
            found = _in_fixed_calls(features, len(self._layers[-1][1]), self._call)
        return _checked_values(found, "mlp head")

    def _call(self, rows: np.ndarray) -> np.ndarray:
        *hidden, (kernel, bias) = self._layers
        for weights, offset in hidden:
            rows = np.maximum(rows @ weights + offset, 0)
        return np.asarray(rows @ kernel + bias)


StoredHead = LinearHead | MlpHead  # in plain arrays, which `train-head` writes


def _check_outputs(classes: tuple[str, ...], reject: tuple[str, ...], temperature: float, head: str) -> None:
    _check_classes(classes, head)
    if not all(isinstance(name, str) and name for name in reject) or len({*classes, *reject}) < len(classes + reject):
        raise HeadError(f"{head}: reject classes must be names of their own, they are {list(reject)}")
    for what, names in (("classes", classes), ("reject classes", reject)):
        if list(names) != sorted(names):
            raise HeadError(f"{head}: {what} must be in alphabetical order, they are {', '.join(names)}")
    if not 0 < temperature < np.inf:
        raise HeadError(f"{head}: temperature is {temperature}, it must be above 0")


def _check_arrays(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], head: str) -> None:
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise HeadError(f"{head}: {name} must be {shape} finite floats, it is {array.dtype} {array.shape}")
    if not (arrays["scale"] > 0).all():
        raise HeadError(f"{head}: scale holds values that are not above 0")


def _digest_of_arrays(kind: str, head: StoredHead, values: Sequence[np.ndarray]) -> str:
    arrays = hashlib.sha256()
    for value in values:
        arrays.update(np.ascontiguousarray(value, dtype="<f8").tobytes())
    more = {"reject": head.reject} if head.reject else {}  # the digests of heads without are older than this
    return _digest_of(
        kind=kind,
        classes=head.classes,
        features=head.features_fingerprint,
        temperature=head.temperature,
        arrays=arrays.hexdigest(),
        **more,
    )


class KerasHead:
    """A Keras model from (n, d) features to classes, with a `head.json` beside it.

    What its outputs are is found out once, on a fixed probe, never from the data at hand:
    one output for two classes is the probability of the second class listed (through a sigmoid if the probe shows
    values outside 0 … 1); k outputs that are all ≥ 0 and sum to 1 are probabilities; any others go through a softmax.

    Args:
        path: of the `.keras` file.
        output_classes: names in the order of the model's outputs; columns are put in alphabetical order here.
        sha256: of the file, hex digits.
    """

    def __init__(
        self,
        path: Path,
        output_classes: tuple[str, ...],
        *,
        features_fingerprint: str,
        features: Mapping[str, Any],
        sha256: str,
    ) -> None:
        _check_classes(output_classes, str(path))
        self.path = path
        self.classes = tuple(sorted(output_classes))
        self.reject: tuple[str, ...] = ()
        self.features_fingerprint = features_fingerprint
        self.features = features
        self.sha256 = sha256
        self._output_classes = output_classes
        self._columns = [output_classes.index(name) for name in self.classes]
        self._lock = threading.Lock()  # one model for all threads; loading twice would hold it twice
        self._model: keras.Model | None = None
        self._as_probabilities: Callable[[np.ndarray], np.ndarray] = softmax

    @property
    def digest(self) -> str:
        """SHA-256 over kind, classes, features and the model file."""
        return _digest_of(
            kind="keras", classes=self._output_classes, features=self.features_fingerprint, file=self.sha256
        )

    def prepare(self, width: int) -> None:
        """Loads the model and checks that it takes `width` features and gives the classes that head.json lists."""
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
            raise HeadError(f"{self.path} has {outputs} outputs, its {HEAD_JSON} lists {k} classes")
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
            outputs = _in_fixed_calls(features, columns, lambda rows: _outputs_of(model, rows))
        found = self._as_probabilities(_checked_values(outputs, str(self.path)))
        return np.round(found[:, self._columns], DECIMALS)

    def scores(self, features: np.ndarray) -> Scores:
        """Returns the probabilities: a Keras head has no reject classes."""
        return Scores(self.probabilities(features))


def _load_keras(path: Path) -> keras.Model:
    import keras

    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, KeyError, zipfile.BadZipFile) as e:
        first_line = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise HeadError(f"{path} is no Keras model, or one that would run code of its own: {first_line}") from e


def _outputs_of(model: keras.Model, rows: np.ndarray) -> np.ndarray:
    """Returns the raw outputs as float64. A plain call: `predict` may compile through XLA, which differs by threads."""
    from keras import ops

    return np.asarray(ops.convert_to_numpy(model(rows.astype(np.float32), training=False)), dtype=np.float64)


def _probe(width: int) -> np.ndarray:
    """Returns (64, width) fixed rows from tiny to large, on which logits cannot pass for probabilities."""
    sizes = np.logspace(-2, 2, ROWS_A_CALL)[:, None]
    return np.random.default_rng(0).standard_normal((ROWS_A_CALL, width)) * sizes


def _meaning_of(probed: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what makes (m, k) probabilities of a model's outputs, see `KerasHead`."""
    bounded = bool(((probed >= 0) & (probed <= 1)).all())
    if probed.shape[1] == 1:
        return _two_columns if bounded else _two_columns_of_logit
    if bounded and np.abs(probed.sum(axis=1) - 1).max() < 1e-2:  # float16 models miss 1 by a few 1e-3
        return _normalised
    return softmax


def _two_columns(second: np.ndarray) -> np.ndarray:
    return np.concatenate([1 - second, second], axis=1)


def _two_columns_of_logit(logit: np.ndarray) -> np.ndarray:
    return softmax(np.concatenate([np.zeros_like(logit), logit], axis=1))


def _normalised(outputs: np.ndarray) -> np.ndarray:
    return np.asarray(outputs / outputs.sum(axis=1, keepdims=True))


def _check_classes(classes: tuple[str, ...], head: str) -> None:
    if not all(isinstance(c, str) and c for c in classes) or len(classes) < 2 or len(set(classes)) != len(classes):
        raise HeadError(f"{head}: classes must be two or more different names, they are {list(classes)}")


def load_head(path: str | Path) -> Head:
    """Returns the head in a folder that holds `head.json`, or the `.keras` file with a `head.json` beside it.

    A Keras head's `head.json` needs `classes` (in the order of the outputs) and `features_fingerprint`; `features`,
    `sha256` and, in a folder with several models, `file` are optional. The model itself is loaded when first used.

    Raises:
        HeadError: nothing there, no head, or damaged.
    """
    path = Path(path)
    is_file = path.suffix == ".keras" and not path.is_dir()
    folder = path.parent if is_file else path
    about = _read_json(folder / HEAD_JSON)
    kind = about.get("kind", "keras")
    if kind in STORED_KINDS and not is_file:
        return _stored_head(folder, about)
    if kind == "keras":
        return _keras_head(path if is_file else _keras_file(folder, about), about)
    known = "keras, to go with that file" if is_file else "linear, mlp or keras"
    raise HeadError(f"{path}: the kind in {HEAD_JSON} is {kind!r}, it must be {known}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(_read(path))
    except ValueError as e:
        if isinstance(e, HeadError):
            raise
        raise HeadError(f"{path} is damaged: no JSON; train the head again") from e
    if not isinstance(about, dict):
        raise HeadError(f"{path} is damaged: no JSON object; train the head again")
    if about.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise HeadError(f"{path} has format {about['format_version']}, this program reads {FORMAT_VERSION}: update it")
    for key, kind in (("classes", list), ("features_fingerprint", str)):
        if not isinstance(about.get(key), kind):
            raise HeadError(f"{path} lacks {key}: a head states its classes and the fingerprint of its features")
    if not isinstance(about.get("features", {}), dict):
        raise HeadError(f"{path}: features must be an object that describes the features")
    return about


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as e:
        cure = f"give a folder that train-head wrote, or a .keras file with a {HEAD_JSON} beside it"
        raise HeadError(f"no head: there is no {path}; {cure}") from e
    except OSError as e:
        raise HeadError(f"cannot read the head's {path}: {e.strerror or e}") from e


def _read_verified(path: Path, wanted: str | None) -> tuple[bytes, str]:
    data = _read(path)
    found = hashlib.sha256(data).hexdigest()
    if wanted is not None and found != wanted:
        raise HeadError(
            f"{path} is damaged: its SHA-256 is {found[:SHORT_FINGERPRINT]}…, "
            f"{HEAD_JSON} says {str(wanted)[:SHORT_FINGERPRINT]}…; restore it or train the head again"
        )
    return data, found


STORED_KINDS = ("linear", "mlp")


def _stored_head(folder: Path, about: dict[str, Any]) -> StoredHead:
    kind = about["kind"]
    data, sha256 = _read_verified(folder / HEAD_NPZ, about.get("sha256", ""))
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        rest: dict[str, Any] = {
            "temperature": float(about.get("temperature", 1.0)),
            "features_fingerprint": about["features_fingerprint"],
            "features": about.get("features", {}),
            "sha256": sha256,
            "metrics": about.get("metrics", {}),
            "split": about.get("split", {}),
            "reject": tuple(about.get("reject", ())),
        }
        if kind == "linear":
            return LinearHead(tuple(about["classes"]), **{name: arrays[name] for name in ARRAYS}, **rest)
        count = sum(name.startswith("kernel") for name in arrays)
        kernels, biases = (tuple(arrays[f"{part}{i}"] for i in range(count)) for part in ("kernel", "bias"))
        return MlpHead(tuple(about["classes"]), kernels, biases, arrays["mean"], arrays["scale"], **rest)
    except (KeyError, ValueError, TypeError, IndexError, zipfile.BadZipFile) as e:
        raise HeadError(f"{folder} is damaged or no {kind} head: {e}; train the head again") from e


def _keras_file(folder: Path, about: dict[str, Any]) -> Path:
    if isinstance(about.get("file"), str):
        return folder / Path(about["file"]).name
    found = sorted(folder.glob("*.keras"))
    if len(found) != 1:
        cure = f"give the path of one, or name it as file in {HEAD_JSON}"
        raise HeadError(f"{folder} holds {len(found)} .keras files; {cure}")
    return found[0]


def _keras_head(path: Path, about: dict[str, Any]) -> KerasHead:
    _, sha256 = _read_verified(path, about.get("sha256"))
    return KerasHead(
        path,
        tuple(about["classes"]),
        features_fingerprint=about["features_fingerprint"],
        features=about.get("features", {}),
        sha256=sha256,
    )


def check(head: Head, fingerprint: str, describe: Mapping[str, Any] | None = None) -> None:
    """Refuses a head that was made for other features.

    Fingerprints are equal if one is a beginning of the other of at least 16 digits: caches are named so.

    Args:
        fingerprint: of the features at hand, hex digits.
        describe: the same in words, nested mappings; used to say what differs.

    Raises:
        HeadMismatch: names both fingerprints, and the settings that differ where both sides tell them.
    """
    made_for = head.features_fingerprint
    shared = min(len(made_for), len(fingerprint))
    if shared >= SHORT_FINGERPRINT and made_for[:shared] == fingerprint[:shared]:
        return
    differs = _differences(_flat(head.features), _flat(describe or {})) if head.features and describe else []
    raise HeadMismatch(
        f"the head was made for features {made_for[:SHORT_FINGERPRINT]}, these are {fingerprint[:SHORT_FINGERPRINT]}"
        + (f" ({'; '.join(differs)})" if differs else "")
        + "; use the settings it was trained with, or train a head on these features"
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"a.b": value} of nested mappings."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    return [
        f"{key}: head {_shown(there, key)}, here {_shown(here, key)}"
        for key in sorted(there.keys() | here.keys())
        if key not in there or key not in here or there[key] != here[key]
    ]


def _shown(values: dict[str, Any], key: str) -> str:
    if key not in values:
        return "unset"
    text = values[key] if isinstance(values[key], str) else json.dumps(values[key])
    return text if len(text) <= 40 else text[:SHORT_FINGERPRINT] + "…"
