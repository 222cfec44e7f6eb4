"""The files of a trained head: `head.npz` with its arrays, `head.json` with what is known about it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.heads.folder import FORMAT_VERSION, HEAD_JSON, HEAD_NPZ
from models.heads.linear import LinearHead
from models.training.fit_head import Fitted


def head_files(fitted: Fitted, fingerprint: str, features_description: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns the files of a head by name, in the order in which they are to be published: `head.npz`, `head.json`.

    After a kill between the two, the digest in head.json does not match, so the head is refused as damaged and never
    read as a mixture.

    Args:
        fingerprint: of the feature space, hex digits. `features_description`: the same in words, nested mappings.
    """
    head = fitted.head
    arrays = npz_bytes(head.arrays)
    about = {
        "format_version": FORMAT_VERSION,
        "kind": "linear" if isinstance(head, LinearHead) else "mlp",
        "fitted_by": fitted.kind,
        "classes": list(head.classes),
        "feature_space": fingerprint,
        "features": features_description,
        "temperature": head.temperature,
        "split": fitted.split,
        "metrics": fitted.metrics,
        "sweep": list(fitted.sweep),
        "sha256": hashlib.sha256(arrays).hexdigest(),
    }
    if head.reject:
        about["reject"] = list(head.reject)
    if fitted.recipe:
        about["recipe"] = fitted.recipe
    text = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    return {HEAD_NPZ: arrays, HEAD_JSON: text.encode()}


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of an .npz; numpy dates its members 1980, so equal arrays give equal bytes."""
    out = io.BytesIO()
    np.savez(out, **dict(sorted(arrays.items())))  # type: ignore[arg-type]
    return out.getvalue()
