"""One text for one value, and its digest."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.formats.canonical import canonical_json, digest_of_canonical, fingerprint_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.randoms())
def test_canonical_json_does_not_know_the_order_of_keys(tree, random) -> None:
    keys = list(tree)
    random.shuffle(keys)
    assert canonical_json({key: tree[key] for key in keys}) == canonical_json(tree)
    assert "\n" not in canonical_json(tree)


def test_canonical_json_is_literal() -> None:
    assert canonical_json({"b": [1, 2.5, None, True], "a": {"é": "x"}}) == '{"a":{"é":"x"},"b":[1,2.5,null,true]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {"a": {1: 2}}, {"a": object()}, [{None: 1}]])
def test_canonical_json_refuses_what_has_no_one_text(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical_json(value)


def test_a_fingerprint_is_the_digest_of_the_text() -> None:
    text = '{"a":"é"}'
    assert fingerprint_of({"a": "é"}) == digest_of_canonical(text) == hashlib.sha256(text.encode()).hexdigest()


def test_names_that_are_no_utf_8_have_a_digest_too() -> None:
    assert digest_of_canonical(canonical_json({"a": "x\udcff"})) == hashlib.sha256(b'{"a":"x\xff"}').hexdigest()
