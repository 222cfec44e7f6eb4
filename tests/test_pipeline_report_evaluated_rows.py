"""Which images are evaluated, and as which classes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.report.evaluated_rows import Question, check_question, check_votes, labelled_by_votes, question_of, select
from transforms.formats.results import Results
from transforms.formats.soft_labels import SoftLabels

CLASSES = ("happy", "neutral", "sad")
PLAIN = Question({})


def results(*rows: tuple[str, str | None]) -> Results:
    """Returns images of (status, true label); image i has the digest i and, if labelled, p_happy 0.5."""
    status = [row[0] for row in rows]
    seen = np.asarray([s == "labelled" for s in status])
    return Results(
        CLASSES,
        pa.chunked_array([pa.array([f"{i}.png" for i in range(len(rows))], pa.string())]),
        pa.chunked_array([pa.array(status, pa.string())]),
        pa.chunked_array([pa.array([f"{i:064x}" for i in range(len(rows))], pa.string())]),
        pa.chunked_array([pa.array([row[1] for row in rows], pa.string())]),
        np.zeros((len(rows), 4), np.int32),
        np.where(seen[:, None], [[0.5, 0.3, 0.2]], 0.0),
    )


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


MIXED = [
    ("labelled", "happy"),
    ("labelled", "sad"),
    ("labelled", None),
    ("no_face", "sad"),
    ("rejected", "happy"),
    ("duplicate", "happy"),
    ("labelled", "happy"),
    ("no_face", None),
]


def test_every_image_ends_in_one_count() -> None:
    rows = select(results(*MIXED), PLAIN, {digest(6)}, source="--input")
    assert rows.counts == {
        "images": 8, "duplicate": 1, "excluded": 1, "without_label": 2, "left_out": 0, "no_face": 1, "rejected": 1,
        "evaluated": 2,
    }  # fmt: skip
    assert rows.ids.to_pylist() == ["0.png", "1.png"]
    assert rows.classes == CLASSES
    assert rows.y.tolist() == [0, 2]
    assert rows.probabilities.tolist() == [[0.5, 0.3, 0.2]] * 2


def votes(classes: tuple[str, ...], **rows: tuple[float, ...]) -> SoftLabels:
    """Returns shares by image id, `a0` for the id 0.png."""
    return SoftLabels(classes, {f"{name[1:]}.png": np.asarray(row, np.float32) for name, row in rows.items()})


def test_the_class_of_most_votes_is_the_truth_whatever_the_label() -> None:
    rows = results(*[("labelled", "happy")] * 4, ("no_face", None))
    shares = votes(("sad", "NF", "happy"), a0=(0.6, 0.4, 0), a1=(0.5, 0, 0.5), a2=(0.2, 0.5, 0.3), a4=(0, 0, 1))
    found, reported = labelled_by_votes(rows, shares, PLAIN)
    assert found.labels.to_pylist() == ["sad", None, "NF", None, "happy"]  # a tie has none, nor what nobody voted on
    assert reported == {"images": 4, "without_a_leader": 1}
    assert rows.labels.to_pylist()[0] == "happy"  # what was handed in stays


def test_a_class_of_the_votes_may_be_left_out_though_it_never_leads() -> None:
    rows = results(*[("labelled", None)] * 3)
    shares = votes(("sad", "NF", "happy"), a0=(1, 0, 0), a1=(0, 0, 1), a2=(0.2, 0.8, 0))
    question = Question({"NF": None}, possible=shares.classes)
    found, _ = labelled_by_votes(rows, shares, question)
    assert select(found, question, set(), source="--soft-labels").counts["left_out"] == 1
    never, _ = labelled_by_votes(results(*[("labelled", None)] * 2), shares, question)
    assert select(never, question, set(), source="--soft-labels").y.tolist() == [2, 0]
    with pytest.raises(UsageError, match="NF is no class of the head"):
        select(found, Question({}, possible=shares.classes), set(), source="--soft-labels")


def test_votes_for_classes_that_mean_the_same_are_added_before_one_leads() -> None:
    rows = results(*[("labelled", None)] * 3)
    shares = votes(
        ("sad", "grin", "smile", "odd"), a0=(0.4, 0.3, 0.3, 0), a1=(0.3, 0.1, 0.2, 0.4), a2=(0.5, 0.1, 0.4, 0)
    )
    happy = question_of(rename_classes=("grin=happy", "smile=happy", "odd="))
    found, reported = labelled_by_votes(rows, shares, happy)
    assert found.labels.to_pylist() == ["grin", "odd", None]  # 0.6 of 1; what is left out may lead; a tie of sums
    assert reported["without_a_leader"] == 1

    smiles = question_of(positive=("happy",), positive_labels=("grin", "smile"))
    found, _ = labelled_by_votes(rows, shares, smiles)
    assert found.labels.to_pylist() == ["grin", "odd", None]  # odd and sad, 0.7, are both negative
    mapped = question_of(positive=("happy",), rename_classes=("grin=happy", "smile=happy", "odd="))
    found, _ = labelled_by_votes(rows, shares, mapped)
    assert found.labels.to_pylist() == ["grin", "odd", None]


def test_votes_that_do_not_know_what_is_asked_are_refused_at_once() -> None:
    classes = ("happy", "sad", "NF")
    check_votes(question_of(rename_classes=("NF=",), positive=("happy",)), classes)
    check_votes(question_of(positive=("happy",)), classes)
    for question, said in (
        ({"rename_classes": ("nf=",)}, "--rename-classes: nf is no class of --soft-labels; they know NF, happy, sad"),
        ({"positive": ("happy",), "positive_labels": ("hapy",)}, "--positive-labels: hapy is no class of"),
        ({"positive": ("glad",)}, "--positive-labels: glad is no class of"),
    ):
        with pytest.raises(UsageError, match=said):
            check_votes(question_of(**question), classes)


def test_votes_that_decide_nothing_are_refused() -> None:
    rows = results(("labelled", "happy"), ("labelled", "sad"))
    with pytest.raises(UsageError, match=r"knows none of the images, whose ids are like 0\.png"):
        labelled_by_votes(rows, votes(("sad", "happy"), a7=(1, 0)), PLAIN)
    with pytest.raises(UsageError, match=r"knows none of the images$"):
        labelled_by_votes(results(), votes(("sad", "happy"), a7=(1, 0)), PLAIN)
    tied, _ = labelled_by_votes(rows, votes(("sad", "happy"), a0=(0.5, 0.5)), PLAIN)
    with pytest.raises(UsageError, match="in none of them does one class lead the votes"):
        select(tied, PLAIN, set(), source="--soft-labels")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["labelled", "no_face", "rejected", "duplicate"]),
            st.sampled_from(["happy", "sad", "odd", None]),
        )
    ),
    st.sets(st.integers(0, 9)),
)
def test_counts_always_add_up(rows: list[tuple[str, str | None]], excluded: set[int]) -> None:
    given_rows = [*rows, ("labelled", "happy"), ("labelled", "sad"), ("labelled", "odd")]
    kept_out = {digest(i) for i in excluded if i < len(rows)}
    counts = select(results(*given_rows), Question({"odd": None}), kept_out, source="--input").counts
    assert counts["images"] == len(given_rows) == sum(counts.values()) - counts["images"]


def test_other_names_stand_for_classes_and_some_are_left_out() -> None:
    question = question_of(rename_classes=("smile=happy", "grin=happy", "contempt="))
    rows = [("labelled", label) for label in ("smile", "sad", "contempt", "happy", "grin")]
    found = select(results(*rows), question, set(), source="--input")
    assert found.y.tolist() == [0, 2, 0, 0]
    assert found.counts["left_out"] == 1
    assert found.stated.to_pylist() == ["smile", "sad", "happy", "grin"]


def test_a_binary_question_with_labels_of_its_own() -> None:
    question = question_of(positive=("happy", "sad"), positive_labels=("smiling", "crying"))
    rows = [("labelled", label) for label in ("smiling", "other", "crying", "happy")]
    found = select(results(*rows), question, set(), source="--input")
    assert found.classes == ("not happy or sad", "happy or sad")
    assert found.y.tolist() == [1, 0, 1, 0]  # any other label is negative, even the name of a class
    assert found.probabilities.tolist() == pytest.approx(np.asarray([[0.3, 0.7]] * 4))


def test_a_binary_question_in_the_words_of_the_head() -> None:
    rows = [("labelled", label) for label in ("happy", "sad", "neutral", "smile")]
    found = select(results(*rows), question_of(positive=("happy",)), set(), source="--input")
    assert found.y.tolist() == [1, 0, 0, 0]
    mapped = question_of(positive=("happy",), rename_classes=("smile=happy", "neutral="))
    assert select(results(*rows), mapped, set(), source="--input").y.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("given_options", "words"),
    [
        ({"positive_labels": ("a",)}, "--positive-labels needs --positive"),
        ({"positive": ("happy",), "positive_labels": ("a",), "rename_classes": ("a=happy",)}, "exclude each other"),
        ({"rename_classes": ("smile",)}, "--rename-classes smile: give OTHER=CLASS"),
        ({"rename_classes": ("=happy",)}, "give OTHER=CLASS"),
        ({"rename_classes": ("a=happy", "a=sad")}, "gives a twice"),
        ({"rename_classes": ("a=joy",)}, "--rename-classes: joy is no class of the head; it knows happy, neutral, sad"),
        ({"positive": ("joy",)}, "--positive: joy is no class"),
        ({"positive": CLASSES}, "every class of the head"),
    ],
)
def test_questions_that_make_no_sense_are_refused_before_any_image(given_options, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_question(question_of(**given_options), CLASSES)


@pytest.mark.parametrize(
    ("rows", "given_options", "words"),
    [
        (["joy", "happy"], {}, r"which knows happy, neutral, sad; give --rename-classes joy"),
        (["joy", "glee"], {}, r"glee, joy are no classes of the head"),
        ([None, None], {}, "no image has a label; labels come from class folders"),
        (["happy", "happy"], {}, r"all 2 labelled faces are of the class 'happy'; at least two"),
        (["happy", "sad"], {"rename_classes": ("smile=happy",)}, r"--rename-classes smile=: no image has that label"),
        (["happy", "sad"], {"positive": ("happy",), "positive_labels": ("yes",)}, "no image has the label yes; there"),
        (["yes", "yes"], {"positive": ("happy",), "positive_labels": ("yes",)}, "of the class 'happy'"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_judged_are_refused(rows, given_options, words: str) -> None:
    images = results(*[("labelled", label) for label in rows])
    with pytest.raises(UsageError, match=words) as caught:
        select(images, question_of(**given_options), set(), source="--input")
    assert "\n" not in str(caught.value)


def test_nothing_left_to_judge_is_said() -> None:
    two = results(("labelled", "happy"), ("labelled", "sad"))
    with pytest.raises(UsageError, match="stands in --exclude-copies-of too"):
        select(two, PLAIN, {digest(0), digest(1)}, source="--input")
    with pytest.raises(UsageError, match="none of the 2 images with a label shows a face"):
        select(results(("no_face", "happy"), ("rejected", "sad")), PLAIN, set(), source="--input")
    with pytest.raises(UsageError, match="evaluate the images with --input"):
        select(results(("labelled", None)), PLAIN, set(), source="--predictions")
    with pytest.raises(UsageError, match="no image has a label"):
        select(results(), PLAIN, set(), source="--input")
