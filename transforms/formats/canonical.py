"""A unique text for each value, and its digest: the base of every fingerprint.

Equal values give equal bytes, in any process and any order of keys. So a fingerprint can be compared, and explained by
the text it is the digest of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> str:
    """Returns the one JSON text of `value`: keys sorted, no spaces, Unicode as it is.

    >>> canonical_json({"b": [1, 2.5], "a": "é"})
    '{"a":"é","b":[1,2.5]}'

    Raises:
        ValueError: a number is not finite.
        TypeError: a value is not of JSON, or a key is not text.
    """
    _refuse_odd_keys(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _refuse_odd_keys(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} is not text, so its JSON would not be the one of its value")
            _refuse_odd_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_odd_keys(inner)


def fingerprint_of(value: Any) -> str:
    """Returns the SHA-256 of `canonical_json(value)`, 64 hex digits."""
    return digest_of_canonical(canonical_json(value))


def digest_of_canonical(text: str) -> str:
    """Returns the SHA-256, 64 hex digits, of a text that `canonical_json` made."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
