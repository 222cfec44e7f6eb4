"""Which images are evaluated, and as which classes: from what a run says of each image to rows of probabilities.

Every image of the run ends in exactly one count. Not here: where the run comes from (`evaluate.py`), and the
metrics (`models/evaluation/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.evaluation.tasks import two_classes, two_columns
from models.heads.output_spec import ClassOutput
from pipeline.errors import UsageError
from pipeline.run.rename_classes import class_pairs
from pipeline.run.soft_labels import SAME_SHARE, shares_of
from transforms.formats.label_table import LABELS_COME
from transforms.formats.records import Status
from transforms.formats.results import Results
from transforms.formats.soft_labels import SoftLabels

LEFT_OUT, UNKNOWN = -1, -2  # in place of a class
SHOWN = 8  # names in an error


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, from the flags.

    Attributes:
        rename_classes: other labels, and the class each stands for; None leaves its images out.
        positive: classes of the head that count as positive, together; () asks for the classes as they are.
        positive_labels: labels that are positive; all others are negative.
        possible: labels that may be asked about though no image has them.
    """

    rename_classes: Mapping[str, str | None]
    positive: tuple[str, ...] = ()
    positive_labels: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """n images to evaluate, sorted by image id.

    Attributes:
        classes: names of the columns of `probabilities`.
        ids, digests, stated: (n,) text: image id, SHA-256 in hex, and the label as the input or the votes state it.
        box: (n, 4) int32 of the face, in pixels of the upright image.
        probabilities: (n, k). y: (n,) true class.
        degrees: (n, k) shares of people who would choose each class, as the head states them; None if it does not.
        counts: images in all, and of these duplicate, excluded, without_label, left_out, no_face, rejected, evaluated.
    """

    classes: tuple[str, ...]
    ids: pa.ChunkedArray
    digests: pa.ChunkedArray
    stated: pa.ChunkedArray
    box: np.ndarray
    probabilities: np.ndarray
    y: np.ndarray
    counts: dict[str, int]
    degrees: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)


def question_of(
    *, positive: Sequence[str] = (), positive_labels: Sequence[str] = (), rename_classes: Sequence[str] = ()
) -> Question:
    """Returns the question that the flags put.

    Raises:
        UsageError: flags contradict each other, or a text is not a pair.
    """
    labels = tuple(positive_labels)
    if labels and not positive:
        raise UsageError("--positive-labels needs --positive, the classes of the head that they are to be found by")
    if labels and rename_classes:
        raise UsageError("--positive-labels and --rename-classes exclude each other; give one of them")
    asked = tuple(positive)
    return Question(class_pairs(rename_classes, "smile=happy"), tuple(dict.fromkeys(asked)), labels or asked)


def check_question(question: Question, classes: Sequence[str]) -> None:
    """Raises UsageError if the question names classes that the head does not have; needs no image."""
    for flag, names in (("--positive", question.positive), ("--rename-classes", question.rename_classes.values())):
        unknown = [name for name in names if name is not None and name not in classes]
        if unknown:
            raise UsageError(f"{flag}: {unknown[0]} is no class of the head; it knows {_listed(classes)}")
    if question.positive and set(question.positive) >= set(classes):
        raise UsageError("--positive names every class of the head, which leaves nothing to tell them from")


def check_votes(question: Question, classes: Sequence[str]) -> None:
    """Raises UsageError if the question names classes that the votes do not have; needs no image."""
    positive = () if question.rename_classes else question.positive_labels  # mapped, these are classes of the head
    for flag, names in (("--rename-classes", question.rename_classes), ("--positive-labels", positive)):
        if unknown := [name for name in names if name not in classes]:
            raise UsageError(f"{flag}: {unknown[0]} is no class of --soft-labels; they know {_listed(classes)}")


def labelled_by_votes(results: Results, votes: SoftLabels, question: Question) -> tuple[Results, dict[str, int]]:
    """Returns the images with the class of most votes as label, and how many have votes, and how many no single leader.

    Classes that mean the same to the question are counted together; the label is then the one of them with most votes.
    Where two meanings share the lead, nothing says which is true: such an image has no label, as one without votes.

    Raises:
        UsageError: no image has votes.
    """
    means = [_meaning(name, question) for name in votes.classes]
    different = list(dict.fromkeys(means))
    adding = np.array([[mean == one for one in different] for mean in means], np.float64)
    labels: list[str | None] = []
    known = 0
    for image_id in results.ids.to_pylist():
        shares = votes.of(image_id)
        label = None
        if shares is not None and shares.any():
            known += 1
            sums = shares @ adding
            leaders = np.flatnonzero(sums > sums.max() - SAME_SHARE)
            if len(leaders) == 1:
                label = votes.classes[int((shares * adding[:, leaders[0]]).argmax())]
        labels.append(label)
    if not known:
        like = f", whose ids are like {results.ids[0].as_py()}" if len(results) else ""
        raise UsageError(f"--soft-labels knows none of the images{like}")
    counts = {"images": known, "without_a_leader": known - sum(label is not None for label in labels)}
    return replace(results, labels=pa.chunked_array([pa.array(labels, pa.string())])), counts


def _meaning(name: str, question: Question) -> object:
    """Returns what a class of the votes stands for; what is left out stands for itself, and so does not lead unseen."""
    if question.positive_labels and not question.rename_classes:
        return name in question.positive_labels
    meant = question.rename_classes.get(name, name)
    if meant is None:
        return (name,)
    return meant in question.positive_labels if question.positive else meant


def shares_by_votes(rows: Rows, votes: SoftLabels, question: Question) -> np.ndarray:
    """Returns (n, k) shares of the votes for the classes of the evaluated rows; other votes are left out."""
    means = [_meaning(name, question) for name in votes.classes]
    if question.positive:
        means = [rows.classes[meant] if isinstance(meant, bool) else None for meant in means]
    named = [meant if isinstance(meant, str) else None for meant in means]
    return shares_of(votes, rows.ids.to_pylist(), named, rows.classes)


def select(
    results: Results, question: Question, excluded: Set[bytes], *, source: str, output: ClassOutput | None = None
) -> Rows:
    """Returns the images that have a true label and a face, as the classes that the question asks for.

    Args:
        excluded: SHA-256 of images that are left out.
        source: the flag that the images came by, for errors.
        output: what the head says of a face, if it may say an intensity.

    Raises:
        UsageError: no image has a label, a label is no class, or all images are of one class.
    """
    duplicate = _is(results.status, Status.DUPLICATE)
    held_out = _held_out(results.digests, excluded) & ~duplicate
    labelled = results.labels.is_valid().to_numpy() & ~duplicate & ~held_out
    classes, y = _true_classes(results, labelled, question, source)
    asked = labelled & (y >= 0)
    chosen = asked & _is(results.status, Status.LABELLED)
    if not chosen.any():
        raise UsageError(f"{source}: none of the {int(asked.sum()):,} images with a label shows a face")
    probabilities, degrees = results.probabilities[chosen], None
    if output is not None and output.intensity_exponent:
        degrees = output.shares(probabilities)
    if question.positive:
        probabilities = two_columns(probabilities, results.classes, question.positive)
        degrees = None if degrees is None else two_columns(degrees, results.classes, question.positive)
    counts = {
        "images": len(results),
        "duplicate": duplicate,
        "excluded": held_out,
        "without_label": ~(labelled | duplicate | held_out),
        "left_out": labelled & (y == LEFT_OUT),
        "no_face": asked & _is(results.status, Status.NO_FACE),
        "rejected": asked & _is(results.status, Status.REJECTED),
        "evaluated": chosen,
    }
    mask = pa.array(chosen)
    rows = Rows(
        classes,
        results.ids.filter(mask),
        results.digests.filter(mask),
        results.labels.filter(mask),
        results.box[chosen],
        probabilities,
        y[chosen],
        {name: int(np.sum(value)) for name, value in counts.items()},
        degrees,
    )
    _check_classes(rows, source)
    return rows


def _is(status: pa.ChunkedArray, wanted: Status) -> np.ndarray:
    return np.asarray(pc.equal(status, wanted.value).to_numpy(), bool)


def _held_out(digests: pa.ChunkedArray, excluded: Set[bytes]) -> np.ndarray:
    known = pa.array(sorted(digest.hex() for digest in excluded), pa.string())
    return np.asarray(pc.is_in(digests, value_set=known, skip_nulls=True).to_numpy(), bool)


def _true_classes(
    results: Results, labelled: np.ndarray, question: Question, source: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the classes, and (n,) the index of each image's true one; below 0 where it has none to be judged by."""
    labels = results.labels.combine_chunks().dictionary_encode()
    names = labels.dictionary.to_pylist()
    place = labels.indices.fill_null(0).to_numpy()
    there = np.unique(place[labelled]).tolist()
    if not there:
        if len(labels) > labels.null_count:
            raise UsageError(f"{source}: every image with a label stands in --exclude-copies-of too; give others")
        raise UsageError(f"{source}: no image has a label; {_cure(source)}")
    found = [names[i] for i in there]
    classes, class_of = _classes_of(question, results.classes, found, source)
    of_place = np.full(len(names) + 1, UNKNOWN, np.int64)  # one more: a run without any label has no names
    of_place[there] = [class_of[name] for name in found]
    return classes, np.where(labelled, of_place[place], UNKNOWN)


def _cure(source: str) -> str:
    if source == "--soft-labels":
        return "in none of them does one class lead the votes"
    if source == "--predictions":
        return "a finished run keeps true labels that are classes of its head, so evaluate the images with --input"
    return f"{LABELS_COME}, or from the label column of a Parquet file"


def _classes_of(
    question: Question, classes: tuple[str, ...], found: Sequence[str], source: str
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Returns the classes, and the index of each label that was found."""
    if question.positive_labels and not question.rename_classes:
        if missing := [name for name in question.positive_labels if name not in (*found, *question.possible)]:
            raise UsageError(f"{source}: no image has the label {missing[0]}; there are {_listed(found)}")
        return two_classes(question.positive), {name: int(name in question.positive_labels) for name in found}
    if missing := [name for name in question.rename_classes if name not in (*found, *question.possible)]:
        raise UsageError(f"--rename-classes {missing[0]}=: no image has that label; there are {_listed(found)}")
    means = {name: question.rename_classes.get(name, name) for name in found}
    if strangers := [name for name, meant in means.items() if meant is not None and meant not in classes]:
        raise UsageError(
            f"{source}: {_listed(strangers)} {'is no class' if len(strangers) == 1 else 'are no classes'} of the head, "
            f"which knows {_listed(classes)}; give --rename-classes {strangers[0]}=CLASS, {strangers[0]}= to leave its "
            "images out, or --positive CLASS --positive-labels LABEL"
        )
    if question.positive:
        binary = {n: LEFT_OUT if m is None else int(m in question.positive_labels) for n, m in means.items()}
        return two_classes(question.positive), binary
    return classes, {n: LEFT_OUT if m is None else classes.index(m) for n, m in means.items()}


def _check_classes(rows: Rows, source: str) -> None:
    there = np.unique(rows.y)
    if len(there) < 2:
        raise UsageError(
            f"{source}: all {len(rows):,} labelled faces are of the class {rows.classes[there[0]]!r}; "
            "at least two classes are needed to tell anything"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
