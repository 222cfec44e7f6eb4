"""Reads and verifies the folder of a head: `head.json` and the file of its weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from models.heads.outputs import HeadError

FORMAT_VERSION = 2
HEAD_JSON = "head.json"
HEAD_NPZ = "head.npz"
OLD_NAME = "features_fingerprint"  # of the feature space, in format 1
_VERSION = f"set format_version to {FORMAT_VERSION}"
SHORT_FINGERPRINT = 16  # hex digits: as caches are named; 64 bits tell any two feature spaces apart


def read_head_json(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(_read(path))
    except ValueError as e:
        if isinstance(e, HeadError):
            raise
        raise HeadError(f"{path} is damaged: it is not JSON; train the head again") from e
    if not isinstance(about, dict):
        raise HeadError(f"{path} is damaged: no JSON object; train the head again")
    if OLD_NAME in about and "feature_space" not in about:
        raise HeadError(f"{path} is of an older format: rename {OLD_NAME} to feature_space in it, and {_VERSION}")
    if about.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise HeadError(f"{path} has format {about['format_version']}, this program reads {FORMAT_VERSION}: update it")
    for key, kind in (("classes", list), ("feature_space", str)):
        if not isinstance(about.get(key), kind):
            raise HeadError(f"{path} lacks {key}: a head states its classes and its feature space")
    if not isinstance(about.get("features", {}), dict):
        raise HeadError(f"{path}: features must be a JSON object that describes the features")
    return about


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as e:
        cure = f"give a folder that train-head wrote, or a .keras file with a {HEAD_JSON} beside it"
        raise HeadError(f"no head: {path} does not exist; {cure}") from e
    except OSError as e:
        raise HeadError(f"cannot read {path} of the head: {e.strerror or e}") from e


def read_verified(path: Path, wanted: str | None) -> tuple[bytes, str]:
    data = _read(path)
    found = hashlib.sha256(data).hexdigest()
    if wanted is not None and found != wanted:
        raise HeadError(
            f"{path} is damaged: its SHA-256 is {found[:SHORT_FINGERPRINT]}…, "
            f"{HEAD_JSON} states {str(wanted)[:SHORT_FINGERPRINT]}…; restore it or train the head again"
        )
    return data, found
