"""Near-duplicates: what a comparison of every pair would find, for any order of batches, with crowds and copies."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation import near_duplicates
from models.evaluation.near_duplicates import Sketches, candidate_pairs, centred_cosine, groups_of_pairs

LEAST = 0.94


def made(count: int, width: int = 64, *, planted: int, seed: int = 0) -> np.ndarray:
    """Returns features that are all positive on average, with pairs planted at cosines from `LEAST` to 1."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((count, width))
    one, other = np.split(draw.permutation(count)[: 2 * planted], 2)
    across = draw.standard_normal((planted, width))
    across -= (across * x[one]).sum(1, keepdims=True) / (x[one] ** 2).sum(1, keepdims=True) * x[one]
    across *= np.linalg.norm(x[one], axis=1, keepdims=True) / np.linalg.norm(across, axis=1, keepdims=True)
    cosine = draw.uniform(LEAST, 1, (planted, 1))
    x[other] = cosine * x[one] + np.sqrt(1 - cosine**2) * across
    return (x + 2).astype(np.float16)


def found(x: np.ndarray, *, batch: int = 700) -> set[tuple[int, int]]:
    sketches = Sketches()
    for start in range(0, len(x), batch):
        sketches.add(x[start : start + batch])
    some = candidate_pairs(sketches.words(), LEAST)
    assert some.complete and sketches.mean is not None
    assert (some.one < some.other).all() and (np.diff(some.differing) >= 0).all()
    alike = centred_cosine(x[some.one], x[some.other], sketches.mean) >= LEAST
    return set(zip(some.one[alike].tolist(), some.other[alike].tolist(), strict=True))


def every_pair(x: np.ndarray) -> set[tuple[int, int]]:
    centred = x.astype(np.float64) - x[:4_096].mean(axis=0, dtype=np.float64).astype(np.float32)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    one, other = np.nonzero(np.triu(centred @ centred.T >= LEAST, 1))
    return set(zip(one.tolist(), other.tolist(), strict=True))


def test_nearly_all_pairs_are_found_and_no_others() -> None:
    x = made(6_000, planted=500)
    true, got = every_pair(x), found(x)
    assert len(true) >= 480
    assert got <= true
    assert len(got) >= 0.99 * len(true)


def test_batches_do_not_matter() -> None:
    x = made(5_000, planted=100)
    assert found(x, batch=17) == found(x, batch=5_000)


@pytest.mark.parametrize("count", [0, 2, 3, 40])
def test_few_vectors_are_compared_as_well(count: int) -> None:
    x = made(40, planted=5)[:count]
    if count:
        x = np.concatenate([x, x[:1]])
        assert (0, count) in found(x)
    else:
        assert len(candidate_pairs(Sketches().words(), LEAST)) == 0


def test_a_crowd_of_equal_vectors_ends_soon_and_is_one_group() -> None:
    x = made(3_000, planted=0)
    x[500:2_500] = x[500]
    pairs = np.array(sorted(found(x)))
    groups = groups_of_pairs(pairs[:, 0], pairs[:, 1])
    assert len(pairs) <= 32 * 32 * 3_000
    assert len(groups[0]) == 2_000


def test_more_pairs_than_are_kept_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_MOST_PAIRS", 50)
    sketches = Sketches()
    sketches.add(made(2_000, planted=200))
    some = candidate_pairs(sketches.words(), LEAST)
    assert len(some) == 50 and not some.complete
    assert some.differing.max() < 60  # the most alike are kept


def test_groups_are_connected_whatever_the_order_of_the_pairs() -> None:
    draw = np.random.default_rng(0)
    chain = np.stack([np.arange(200), np.arange(1, 201)], axis=1)
    other = np.array([[300, 301], [301, 305]])
    pairs = draw.permutation(np.concatenate([chain, other]))
    groups = groups_of_pairs(pairs[:, 0], pairs[:, 1])
    assert [group.tolist() for group in groups] == [list(range(201)), [300, 301, 305]]
    assert groups_of_pairs(np.zeros(0, np.int64), np.zeros(0, np.int64)) == []
