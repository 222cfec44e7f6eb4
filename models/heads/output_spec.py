"""What a head says of a face, stated once: everything after the head follows its `OutputSpec`.

A head gives some numbers a face, its *answers*, and the spec says what they mean: what a part stores, the columns of
`predictions/`, which value is the label of an image and how a submission writes it. There are classes and numbers, and
several heads side by side (`side_by_side.py`).
Not here: Arrow's types of all this (`transforms/output_fields.py`), and how answers are computed (`outputs.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

Kind = Literal["classes", "number"]
Shown = Literal["string", "int32", "float64"]
DECIMALS = 6  # of a probability, rounded before any arg-max: coarser than float64 noise, finer than any meaning
PROBABILITY = "p_"  # a column of `predictions/` begins with it; the name of a class follows


@dataclass(frozen=True, slots=True)
class Field:
    """A value that a part stores for each face.

    Attributes:
        name: in the part.
        dtype: of numpy.
        size: of an array of fixed size; 0 for a single number.
    """

    name: str
    dtype: Literal["int32", "float64"] = "float64"
    size: int = 0


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `predictions/`: what it shows of a field. It is null for a face without a label.

    Attributes:
        name: in the table.
        doc: its meaning, for the documentation.
        field: name of the field.
        place: index into an array of fixed size; None for a field that is a single number.
        texts: shown in place of the numbers 0, 1, …; () to show the numbers.
    """

    name: str
    doc: str
    field: str
    place: int | None = None
    texts: tuple[str, ...] = ()

    def values(self, stored: np.ndarray) -> list[str | int | float]:
        """Returns what the column shows of (m,) or (m, size) values of its field."""
        shown = (stored if self.place is None else stored[:, self.place]).tolist()
        return [self.texts[index] for index in shown] if self.texts else shown


class OutputSpec(Protocol):
    """The meaning of a head's answers. Frozen and picklable, as it travels to workers.

    Attributes:
        kind: decides which metrics judge the head.
        classes: the names of the labels; () if labels are numbers.
        width: numbers that the head gives a face.
        fields: what a part stores of each face.
        columns: what `predictions/` shows of each face.
        label: name of the field that is the face's label. Of the face that decides, it becomes the image's label.
        confidence: name of the field by which the face policy `confident` chooses; "" to choose the first face.
        none: the label of an image without one.
    """

    @property
    def kind(self) -> Kind: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def width(self) -> int: ...
    @property
    def fields(self) -> tuple[Field, ...]: ...
    @property
    def columns(self) -> tuple[Column, ...]: ...
    @property
    def label(self) -> str: ...
    @property
    def confidence(self) -> str: ...
    @property
    def none(self) -> np.generic: ...

    def stored(self, answers: np.ndarray) -> Mapping[str, np.ndarray]:
        """Returns the values of the fields by name, (m,) or (m, size), for (m, width) finite float64 answers.

        Raises:
            ValueError: the answers are not what the head may give.
        """
        ...

    def texts(self, labels: np.ndarray, *, names: bool) -> Sequence[str]:
        """Returns what a submission writes for (n,) labels, none of them missing.

        Args:
            names: True for the names of classes, False for their indices.
        """
        ...

    def label_of(self, text: str) -> int | float:
        """Returns the label that a text states.

        Raises:
            ValueError: it states none; the message says what it may be.
        """
        ...


@dataclass(frozen=True, slots=True)
class ClassOutput:
    """One of several classes, by probability.

    The answers are the probabilities of the classes, followed by the reject score if there is one.

    Args:
        classes: names, alphabetical.
        rejecting: the head also gives the probability that the face has none of these classes.
        intensity_exponent: above 0 for a head that also says how strongly a face shows its label, as the share of
            people who would choose it: probabilities to this power, made to sum to 1, are such shares.

    >>> ClassOutput(("happy", "sad")).stored(np.array([[0.25, 0.75]]))["label_index"].tolist()
    [1]
    """

    classes: tuple[str, ...]
    rejecting: bool = False
    intensity_exponent: float = 0.0

    kind: ClassVar[Kind] = "classes"
    label: ClassVar[str] = "label_index"
    confidence: ClassVar[str] = "confidence"
    intensity: ClassVar[str] = "intensity"
    no_label_score: ClassVar[str] = "no_label_score"
    none: ClassVar[np.generic] = np.int32(-1)

    @property
    def width(self) -> int:
        """Returns the number of classes, and one more with a reject score."""
        return len(self.classes) + self.rejecting

    @property
    def fields(self) -> tuple[Field, ...]:
        """Returns index and probability of the most likely class, all probabilities, intensity and reject score."""
        more = (self.intensity,) * bool(self.intensity_exponent) + (self.no_label_score,) * self.rejecting
        probabilities = Field("p", size=len(self.classes))
        return (Field(self.label, "int32"), Field(self.confidence), probabilities, *map(Field, more))

    @property
    def columns(self) -> tuple[Column, ...]:
        """Returns the name of the most likely class beside the fields, and a column for each probability."""
        most = "the most likely class; ties go to the first in the alphabet"
        degree = Column(self.intensity, "share of people who would choose the label, 0 to 1", self.intensity)
        reject = Column(self.no_label_score, "probability that the face has no label, 0 to 1", self.no_label_score)
        return (
            Column("label", most, self.label, texts=self.classes),
            Column(self.label, "its index in the alphabetical list of classes, from 0", self.label),
            Column(self.confidence, "its probability, 0 to 1", self.confidence),
            *((degree,) if self.intensity_exponent else ()),
            *((reject,) if self.rejecting else ()),
            *(
                Column(PROBABILITY + name, f"probability of {name}, 0 to 1", "p", place=place)
                for place, name in enumerate(self.classes)
            ),
        )

    def stored(self, answers: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the values of the fields, see `OutputSpec`."""
        k = len(self.classes)
        p = answers[:, :k]
        index = most_likely(p)
        rows = np.arange(len(p))
        stored = {self.label: index, self.confidence: p[rows, index], "p": p}
        if self.intensity_exponent:
            stored[self.intensity] = self.shares(p)[rows, index]
        if self.rejecting:
            scores = answers[:, k]
            if not ((scores >= 0) & (scores <= 1)).all():
                raise ValueError("reject scores must be numbers from 0 to 1")
            stored[self.no_label_score] = scores
        return stored

    def shares(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns (m, k) shares of people who would choose each class, for (m, k) probabilities; rounded to 1e-6.

        >>> ClassOutput(("no", "yes"), intensity_exponent=0.5).shares(np.array([[0.1, 0.9]])).tolist()
        [[0.25, 0.75]]
        """
        powers = (probabilities / probabilities.max(axis=1, keepdims=True)) ** self.intensity_exponent  # never all 0
        return np.asarray(np.round(powers / powers.sum(axis=1, keepdims=True), DECIMALS))

    def texts(self, labels: np.ndarray, *, names: bool) -> Sequence[str]:
        """Returns the names or the alphabetical indices of (n,) classes."""
        texts = self.classes if names else [str(index) for index in range(len(self.classes))]
        return list(np.asarray(texts, object)[labels])

    def label_of(self, text: str) -> int:
        """Returns the index of the class that a text states by its name, or else by its index."""
        if text in self.classes:
            return self.classes.index(text)
        if text.isascii() and text.isdigit() and int(text) < len(self.classes):
            return int(text)
        raise ValueError(f"is not a class; choose one of {', '.join(self.classes)}")


@dataclass(frozen=True, slots=True)
class NumberOutput:
    """One number, such as a rating.

    Args:
        name: of the number, and so of its field and its column.
    """

    name: str

    kind: ClassVar[Kind] = "number"
    classes: ClassVar[tuple[str, ...]] = ()
    width: ClassVar[int] = 1
    confidence: ClassVar[str] = ""
    none: ClassVar[np.generic] = np.float64(np.nan)

    @property
    def label(self) -> str:
        """Returns the name of the number."""
        return self.name

    @property
    def fields(self) -> tuple[Field, ...]:
        """Returns the number."""
        return (Field(self.name),)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Returns the number."""
        return (Column(self.name, "the number that the head gives, on the scale of its training labels", self.name),)

    def stored(self, answers: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the number by its name, see `OutputSpec`."""
        return {self.name: answers[:, 0]}

    def texts(self, labels: np.ndarray, *, names: bool) -> Sequence[str]:
        """Returns (n,) numbers in as few digits as state them."""
        return [f"{label:.12g}" for label in labels.tolist()]

    def label_of(self, text: str) -> float:
        """Returns the number that a text states; errors as of `number_in`."""
        return number_in(text)


def number_in(text: str) -> float:
    """Returns the finite number that a text states.

    Raises:
        ValueError: it states none; the message is a clause.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("is not a number")
    return value


def types_shown(spec: OutputSpec) -> dict[str, Shown]:
    """Returns the type of each column of `predictions/` that shows what the head says, by name, in order."""
    dtypes: dict[str, Shown] = {field.name: field.dtype for field in spec.fields}
    return {column.name: "string" if column.texts else dtypes[column.field] for column in spec.columns}


def most_likely(probabilities: np.ndarray) -> np.ndarray:
    """Returns the (m,) column of the largest probability; ties go to the first in the alphabet."""
    return np.asarray(probabilities.argmax(axis=1))
