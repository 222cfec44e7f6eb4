"""What a head is fitted on: rows that are fetched when asked for, votes and who leads them, the split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.head_data import Blend, FitError, Rows, Votes, parts_of, standardisation, standardised

TABLE = ("neutral", "happy", "NF", "angry")  # in the order of a file, not of the alphabet


def rows_of(count, width=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float16)


def votes_of(rows, reject=(), classes=TABLE):
    shares = np.asarray(rows, np.float32)
    return Votes(shares / shares.sum(axis=1, keepdims=True), classes, tuple(reject))


def parts(features, labels, **more):
    given = {"validation": None, "holdout": 0.25, "groups": None, "seed": 0, **more}
    return parts_of(features, labels, **given)


class Counted(np.ndarray):
    """An array that keeps how many rows were fetched at one time."""

    most = 0

    def __getitem__(self, rows):
        found = super().__getitem__(rows)
        if isinstance(found, np.ndarray) and found.ndim == 2:
            Counted.most = max(Counted.most, len(found))
        return found


@given(st.lists(st.integers(0, 19), max_size=30), st.lists(st.integers(0, 5), max_size=6))
def test_rows_of_rows_are_the_rows_meant(first, second):
    array = rows_of(20)
    chosen = np.asarray(first, np.int64)
    rows = Rows(array, chosen)
    assert rows.shape == (len(first), 3)
    assert np.array_equal(rows[:], array[chosen])
    assert np.array_equal(np.concatenate([np.zeros((0, 3), np.float16), *rows.steps()]), array[chosen])
    some = np.asarray([s for s in second if s < len(first)], np.int64)
    assert np.array_equal(rows.of(some)[:], array[chosen[some]])
    assert np.array_equal(Rows(array).of(chosen)[:], array[chosen])


def test_nothing_fetches_more_rows_than_a_step():
    array = rows_of(10_000).view(Counted)
    Counted.most = 0
    labels = ["a", "b"] * 5000
    found = parts(Rows(array, np.arange(9_000)), labels[:9_000])
    mean, scale = standardisation(found.train.features)
    standardised(found.train.features, mean, scale)
    assert 0 < Counted.most <= 4096


@pytest.mark.parametrize(("width", "step"), [(1, 4096), (480, 4096), (512, 4096), (8192, 256), (92_160, 64)])
def test_wide_rows_are_fetched_in_fewer(width, step):
    rows = Rows(np.broadcast_to(np.float16(0), (5000, width)))
    assert rows.step == step
    assert len(next(rows.steps())) == step
    assert sum(map(len, rows.steps())) == 5000


def test_a_row_that_is_not_finite_is_named_behind_the_first_step():
    features = rows_of(700, width=8192)
    features[600, 5] = np.inf
    with pytest.raises(FitError, match="row 600 of the features is not finite"):
        parts(features, ["a", "b"] * 350)


def test_standardised_rows_have_mean_0_and_variance_1():
    rows = Rows((rows_of(9000) * 3 + 1).astype(np.float16))
    mean, scale = standardisation(rows)
    x = standardised(rows, mean, scale)
    assert np.abs(x.mean(axis=0)).max() < 1e-3
    assert np.abs(x.std(axis=0) - 1).max() < 1e-3


# votes


def test_the_class_with_most_votes_is_the_truth_and_of_equals_the_first_in_the_table():
    votes = votes_of([[1, 0, 0, 0], [0, 5, 0, 5], [2, 1, 0, 2], [0, 0, 3, 1], [1, 4, 4, 1]], reject=["NF"])
    found = parts(rows_of(5), votes, validation=(rows_of(5), votes)).train.answers
    assert (found.classes, found.reject) == (("angry", "happy", "neutral"), ("NF",))
    names = (*found.classes, *found.reject)
    assert [names[i] for i in found.y] == ["neutral", "happy", "neutral", "NF", "happy"]
    assert found.ordinary.tolist() == [True, True, True, False, True]
    assert found.shares[1].tolist() == [0.5, 0.5, 0, 0]
    assert found.shares[3].tolist() == [0.25, 0, 0, 0.75]
    assert found.targets is found.shares


def test_without_reject_classes_all_are_ordinary():
    votes = votes_of([[1, 1, 3, 1], [4, 0, 0, 0]])
    found = parts(rows_of(2), votes, validation=(rows_of(2), votes)).train.answers
    assert (found.classes, found.reject) == (("NF", "angry", "happy", "neutral"), ())
    assert [found.classes[i] for i in found.y] == ["NF", "neutral"]


@given(st.lists(st.lists(st.integers(0, 10), min_size=4, max_size=4).filter(any), min_size=1, max_size=12))
def test_shares_are_moved_and_never_lost(counts):
    counts = [*counts, [1, 1, 1, 1]]  # neutral leads: there is something to choose by
    votes = votes_of(counts, reject=["NF", "happy"])
    found = parts(rows_of(len(counts)), votes, validation=(rows_of(len(counts)), votes)).train.answers
    for row, own in enumerate(votes.shares):
        named = dict(zip(TABLE, own, strict=True))
        assert found.shares[row].tolist() == [named[name] for name in ("angry", "neutral", "NF", "happy")]
        best = max(counts[row])
        assert (*found.classes, *found.reject)[found.y[row]] == TABLE[counts[row].index(best)]


def test_labels_are_ones():
    found = parts(rows_of(3), ["b", "a", "b"], validation=(rows_of(1), ["a"]))
    assert found.train.answers.targets.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert found.train.answers.ordinary.all()
    assert found.split == {"kind": "given", "train": 3, "held_out": 1}


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        (votes_of([[1, 1, 1, 1]] * 4, reject=["bored"]), "no class bored to reject; known: neutral, happy"),
        (votes_of([[1, 1, 1, 1]] * 4, reject=["NF", "happy", "angry"]), "fewer than two classes"),
        (votes_of([[1, 1, 1, 1]] * 3), r"expected \(4, 4\)"),
        (Votes(np.ones((4, 4), np.float32), TABLE), "sum to 1"),
        (Votes(np.full((4, 4), np.nan, np.float32), TABLE), "sum to 1"),
        (votes_of([[0, 0, 1, 0]] * 4, reject=["NF"]), "so nothing can be chosen"),
        (votes_of([[1, 0, 0, 1]] * 4, reject=["NF"]), "no training row has a vote for happy, NF"),
    ],
)
def test_votes_that_do_not_fit_are_refused(votes, said):
    with pytest.raises(FitError, match=said) as caught:
        parts(rows_of(4), votes, validation=(rows_of(4), votes))
    assert "\n" not in str(caught.value)


# labels with shares beside them


def test_shares_are_blended_into_labels_and_the_truth_stays_the_label():
    shares = np.array([[0.5, 0.5], [0, 0], [1, 0]], np.float32)
    blend = Blend(["b", "a", "c"], shares, ("c", "a"), 0.4)
    found = parts(rows_of(3), blend, validation=(rows_of(2), ["a", "c"]))
    assert found.train.answers.classes == ("a", "b", "c")
    assert np.allclose(found.train.answers.targets, [[0.2, 0.6, 0.2], [1, 0, 0], [0, 0, 1]])
    assert found.train.answers.y.tolist() == [1, 0, 2]
    assert found.held.answers.shares is None
    assert found.held.answers.y.tolist() == [0, 2]


def test_what_is_held_out_of_a_blend_is_measured_by_labels_even_where_shares_say_something_else():
    labels = ["a", "b"] * 20
    against = Blend(labels, np.array([[0, 1], [1, 0]] * 20, np.float32), ("a", "b"), 0.9)
    found, plain = parts(rows_of(40), against), parts(rows_of(40), labels)
    assert np.array_equal(found.held.answers.y, plain.held.answers.y)  # the same split, the same truth
    assert found.held.answers.shares is None
    assert found.train.answers.targets.argmax(1).tolist() == (1 - found.train.answers.y).tolist()


@pytest.mark.parametrize(
    ("blend", "said"),
    [
        (Blend(["a", "b"], np.zeros((2, 2), np.float32), ("a", "z"), 0.5), "no label has: z"),
        (Blend(["a", "b"], np.ones((2, 2), np.float32), ("a", "b"), 0.5), "sum to 1 in every row, or to 0"),
        (Blend(["a", "b"], np.array([[2, -1], [0, 0]], np.float32), ("a", "b"), 0.5), "sum to 1 in every row"),
        (Blend(["a", "b"], np.full((2, 2), np.nan, np.float32), ("a", "b"), 0.5), "sum to 1 in every row"),
        (Blend(["a", "b"], np.zeros((3, 2), np.float32), ("a", "b"), 0.5), r"expected \(2, 2\)"),
        (Blend(["a", "b"], np.zeros((2, 2), np.float32), ("a", "b"), 1.5), "must be from 0 to 1"),
    ],
)
def test_a_blend_that_does_not_fit_is_refused(blend, said):
    with pytest.raises(FitError, match=said):
        parts(rows_of(2), blend, validation=(rows_of(2), ["a", "b"]))


def test_validation_by_another_table_is_refused():
    votes = votes_of([[1, 1, 1, 1]] * 4)
    other = votes_of([[1, 1, 1, 1]] * 4, classes=("neutral", "happy", "sad", "angry"))
    with pytest.raises(FitError, match="other classes than training"):
        parts(rows_of(4), votes, validation=(rows_of(4), other))


# the split


def test_a_class_that_leads_one_row_alone_is_trained_on():
    votes = votes_of([[4, 1, 0], [1, 4, 0]] * 20 + [[0, 1, 2]], classes=("a", "b", "c"))
    found = parts(rows_of(41), votes)
    assert "c" in {found.train.answers.classes[i] for i in found.train.answers.y}
    assert (found.split["train"], found.split["held_out"]) == (31, 10)


def test_groups_of_votes_stay_on_one_side():
    votes = votes_of([[4, 1, 1, 1], [1, 4, 1, 1], [1, 1, 1, 4]] * 20)
    groups = [number // 6 for number in range(60)]
    features = np.arange(60, dtype=np.float16)[:, None]
    found = parts(features, votes, groups=groups)
    sides = [{groups[int(row)] for row in part.features[:][:, 0]} for part in (found.train, found.held)]
    assert not sides[0] & sides[1]
    assert len(found.held) > 0
