"""The kinds of heads. Loads a head from its folder and checks it against the features in use.

A head is a folder with `head.json` (its classes and its features) and its weights: `head.npz`, plain arrays, for a
linear head and for dense layers; a `.keras` file for a Keras head. Only that one loads Keras, and only when first used.

Not here: training (`training/fit_head.py`, `training/fit_mlp.py`), and computing features (`backbones/`).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.heads.folder import HEAD_JSON, HEAD_NPZ, SHORT_FINGERPRINT, read_head_json, read_verified
from models.heads.keras import KerasHead
from models.heads.linear import ARRAYS, LinearHead
from models.heads.mlp import MlpHead
from models.heads.number import NumberHead
from models.heads.outputs import Head, HeadError, HeadMismatch

BUNDLED_HEAD = Path(__file__).parents[1] / "weights" / "fer2013"
BUNDLED_HEADS = {  # values of `head.path` that are not paths
    "bundled": BUNDLED_HEAD,
    "bundled/fer2013": BUNDLED_HEAD,
    "bundled/ferplus": BUNDLED_HEAD.with_name("ferplus"),
    "bundled/smile": BUNDLED_HEAD.with_name("smile"),
}


def portable_head(path: str) -> str:
    """Returns a head's path as every machine understands it: the name of a bundled head, any other path unchanged."""
    return next((name for name, place in reversed(BUNDLED_HEADS.items()) if str(place) == path), path)


def files_of_head(path: str | Path) -> tuple[Path, tuple[str, ...], str]:
    """Returns the folder of a head's files, their names, and the name of the `.keras` file that stands for the head.

    That name is "" where the folder does.

    Raises:
        HeadError: the path does not exist or is not a head.
    """
    path = Path(BUNDLED_HEADS.get(str(path), path))
    if path.suffix == ".keras" and not path.is_dir():
        return path.parent, (HEAD_JSON, path.name), path.name
    about = read_head_json(path / HEAD_JSON)
    weights = HEAD_NPZ if about.get("kind") in STORED_KINDS else _keras_file(path, about).name
    return path, (HEAD_JSON, weights), ""


StoredHead = LinearHead | MlpHead  # plain arrays, as `train-head` writes them


def load_head(path: str | Path) -> Head:
    """Returns a bundled head, the head in a folder with a `head.json`, or of a `.keras` file with one beside it.

    A Keras head's `head.json` needs `classes` (in the order of the outputs) and `feature_space`; `features`,
    `sha256` and, in a folder with several models, `file` are optional. The model itself is loaded when first used.

    Raises:
        HeadError: the path does not exist, is not a head, or is damaged.
    """
    path = Path(BUNDLED_HEADS.get(str(path), path))
    is_file = path.suffix == ".keras" and not path.is_dir()
    folder = path.parent if is_file else path
    about = read_head_json(folder / HEAD_JSON)
    kind = about.get("kind", "keras")
    if kind in STORED_KINDS and not is_file:
        return _stored_head(folder, about)
    if kind == "keras":
        return _keras_head(path if is_file else _keras_file(folder, about), about)
    known = "keras, to go with that file" if is_file else "linear, mlp, number or keras"
    raise HeadError(f"{path}: the kind in {HEAD_JSON} must be {known}, not {kind!r}")


STORED_KINDS = ("linear", "mlp", "number")


def _stored_head(folder: Path, about: dict[str, Any]) -> StoredHead | NumberHead:
    kind = about["kind"]
    data, sha256 = read_verified(folder / HEAD_NPZ, about.get("sha256", ""))
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        rest: dict[str, Any] = {
            "feature_space": about["feature_space"],
            "features": about.get("features", {}),
            "sha256": sha256,
            "metrics": about.get("metrics", {}),
            "split": about.get("split", {}),
        }
        if kind == "number":
            return NumberHead(str(about["number"]), **{name: arrays[name] for name in ARRAYS}, **rest)
        rest |= {"temperature": float(about.get("temperature", 1.0)), "reject": tuple(about.get("reject", ()))}
        rest["intensity_temperature"] = float(about.get("intensity_temperature", 0.0))
        if kind == "linear":
            return LinearHead(tuple(about["classes"]), **{name: arrays[name] for name in ARRAYS}, **rest)
        count = sum(name.startswith("kernel") for name in arrays)
        kernels, biases = (tuple(arrays[f"{part}{i}"] for i in range(count)) for part in ("kernel", "bias"))
        return MlpHead(tuple(about["classes"]), kernels, biases, arrays["mean"], arrays["scale"], **rest)
    except (KeyError, ValueError, TypeError, IndexError, zipfile.BadZipFile) as e:
        raise HeadError(f"{folder} is damaged, or not a head of kind {kind}: {e}; train the head again") from e


def _keras_file(folder: Path, about: dict[str, Any]) -> Path:
    if isinstance(about.get("file"), str):
        return folder / Path(about["file"]).name
    found = sorted(folder.glob("*.keras"))
    if len(found) != 1:
        cure = f"give the path of one, or name it as file in {HEAD_JSON}"
        raise HeadError(f"{folder} holds {len(found)} .keras files; {cure}")
    return found[0]


def _keras_head(path: Path, about: dict[str, Any]) -> KerasHead:
    _, sha256 = read_verified(path, about.get("sha256"))
    return KerasHead(
        path,
        tuple(about["classes"]),
        feature_space=about["feature_space"],
        features=about.get("features", {}),
        sha256=sha256,
    )


def check(head: Head, fingerprint: str, describe: Mapping[str, Any] | None = None) -> None:
    """Raises HeadMismatch if a head was made for other features.

    Fingerprints are equal if one is the start of the other and has at least 16 digits, as names of caches do.

    Args:
        fingerprint: of the features in use, hex digits.
        describe: their settings, as nested mappings; used to name differences.

    Raises:
        HeadMismatch: names both fingerprints, and the settings that differ if both sides state them.
    """
    made_for = head.feature_space
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
