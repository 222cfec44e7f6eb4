"""Cross-validation: groups stay whole, every row is judged once by a head that has not seen its group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training.fit_head import Fitted, fit_linear_head
from models.training.folds import cross_validated
from models.training.groups import dealt, joined
from models.training.head_data import FitError, Rows


def test_rows_that_share_any_key_belong_together() -> None:
    assert joined([1, 1, 2, 3], ["a", "b", "b", "c"]).tolist() == [0, 0, 0, 1]
    assert joined([5, 4, 5]).tolist() == [0, 1, 0]
    assert joined(["x", "y"], ["y", "x"]).tolist() == [0, 1], "keys of different sequences are different keys"


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_groups_are_the_closure_of_sharing_a_key(pairs: list[tuple[int, int]]) -> None:
    groups = joined([a for a, _ in pairs], [b for _, b in pairs])
    wanted = np.arange(len(pairs))
    changed = True
    while changed:
        changed = False
        for i, one in enumerate(pairs):
            for j, other in enumerate(pairs):
                if (one[0] == other[0] or one[1] == other[1]) and wanted[i] != wanted[j]:
                    wanted[i] = wanted[j] = min(wanted[i], wanted[j])
                    changed = True
    assert len(set(zip(groups.tolist(), wanted.tolist(), strict=True))) == len(set(groups.tolist()))
    assert len(set(groups.tolist())) == len(set(wanted.tolist()))


def test_folds_keep_groups_whole_and_share_the_classes() -> None:
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 40, 400)
    y = (groups + draw.integers(0, 2, 400)) % 2
    fold = dealt(y, groups, 5, seed=1)
    assert set(fold.tolist()) == set(range(5))
    assert all(len(set(fold[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    assert all(0.35 < y[fold == number].mean() < 0.65 for number in range(5))
    assert (dealt(y, groups, 5, seed=1) == fold).all()


@pytest.mark.parametrize(
    "y, groups, folds, words",
    [
        ([0, 1, 0, 1], [0, 0, 1, 1], 3, "there are 2 groups"),
        ([0, 1, 0, 1], [0, 1, 2, 3], 1, "2 or more"),
        ([0, 0, 1, 1], [0, 1, 2, 2], 2, "without a class"),
    ],
)
def test_rows_that_cannot_be_dealt_are_refused(y: list[int], groups: list[int], folds: int, words: str) -> None:
    with pytest.raises(FitError, match=words):
        dealt(np.asarray(y), np.asarray(groups), folds, seed=0)


def test_every_row_is_judged_by_a_head_that_has_not_seen_its_group() -> None:
    draw = np.random.default_rng(3)
    labels = np.repeat(["cat", "dog"] * 15, 4).tolist()
    groups = np.repeat(np.arange(30), 4)
    features = draw.normal(0, 1, (120, 4)).astype(np.float32)
    features[:, 0] += [0 if label == "cat" else 3 for label in labels]
    features[:, 3] = groups  # tells which rows a head has seen
    seen: list[set[int]] = []

    def fit(rows: Rows, names: Sequence[str], of: np.ndarray) -> Fitted:
        seen.append(set(rows[:][:, 3].astype(int).tolist()))
        assert seen[-1] == set(of.tolist())
        return fit_linear_head(rows, names, groups=of, holdout=0.25, cs=(0.1,))

    found = cross_validated(fit, Rows(features), labels, groups, folds=3, seed=0)
    assert len(seen) == 3
    for number in range(3):
        assert not seen[number] & set(groups[found.fold == number].tolist())
    assert np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    summary = found.summary()
    assert summary["all_rows"]["accuracy"]["value"] > 0.8
    assert [row["rows"] for row in summary["folds"]] == np.bincount(found.fold).tolist()


def test_labels_that_say_nothing_about_the_features_score_by_chance() -> None:
    """A head that had seen the rows that it judges would score far above chance on 50 features of noise."""
    draw = np.random.default_rng(5)
    labels = np.asarray(["a", "b"] * 60)
    draw.shuffle(labels)
    rows = Rows(draw.normal(0, 1, (120, 50)).astype(np.float32))

    def fit(rows: Rows, names: Sequence[str], of: np.ndarray) -> Fitted:
        return fit_linear_head(rows, names, groups=of, cs=(1.0,))

    found = cross_validated(fit, rows, labels.tolist(), np.arange(120), folds=4, seed=0)
    assert 0.3 < found.summary()["accuracy_mean"] < 0.65
