"""The result of `FaceLabeler`: an image with its faces, readable by code and by people.

The fields have the names and values of the columns of `predictions/` and `images/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from transforms.formats.records import Reason, Status

SHOWN = 3  # faces listed in a line of text


class Box(NamedTuple):
    """A box in whole pixels of the upright image: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Face:
    """A face of an image.

    Attributes:
        box: where it is.
        detection_score: the detector's confidence, 0 to 1.
        label: the most likely class of the first head; None for a face that is too small to be labelled.
        label_index: index of the label among the classes; None without a label.
        confidence: probability of the label, 0 to 1; None without a label.
        probabilities: by class, in alphabetical order; {} without a label.
        no_label_score: probability of the head's reject classes, such as "no face"; None if the head has none.
        more: what further heads say, by the names of their columns in `predictions/`, such as `ferplus_label`; {}
            without a label, or if there is one head.
        intensity: share of people who would choose the label, 0 to 1; None without a label, or if the head has none.
    """

    box: Box
    detection_score: float
    label: str | None
    label_index: int | None
    confidence: float | None
    probabilities: Mapping[str, float]
    no_label_score: float | None = None
    more: Mapping[str, str | int | float] = field(default_factory=dict)
    intensity: float | None = None

    def __repr__(self) -> str:
        return f"<Face {self.words}, detection score {self.detection_score:.2f}>"

    @property
    def words(self) -> str:
        """Label, confidence and place in a few words."""
        text = "too small to label" if self.confidence is None else f"{self.label} {self.confidence:.0%}"
        return f"{text} at ({self.box.x}, {self.box.y}), {self.box.width}×{self.box.height} px"


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image and its faces. A notebook shows the image with boxes and labels.

    Iterating over it, its length and its index give the faces.

    Attributes:
        name: the path as given; "" for an array or bytes.
        width, height: pixels of the upright image, 0 if unknown.
        status: `labelled`, `no_face` or `rejected`.
        reason: why it was rejected, or `too_small_to_label` if it has only such faces; else None.
        faces: best detection first, then from top to bottom, then from left to right.
        classes: all classes of the first head, in alphabetical order.
        picture: the encoded image, or the path to read it from, to show it.
    """

    name: str
    width: int
    height: int
    status: Status
    reason: Reason | None
    faces: tuple[Face, ...]
    classes: tuple[str, ...] = field(repr=False)
    picture: bytes | Path = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.faces)

    def __iter__(self) -> Iterator[Face]:
        return iter(self.faces)

    def __getitem__(self, index: int) -> Face:
        return self.faces[index]

    def __bool__(self) -> bool:
        """True even without a face: an image is never falsy."""
        return True

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<LabelledImage{name} {self.width}×{self.height}: {self.words}>"

    @property
    def words(self) -> str:
        """The findings, in a few words."""
        if self.status is Status.REJECTED:
            return f"rejected, {self.reason}"
        if not self.faces:
            return "no face"
        shown = "; ".join(face.words for face in self.faces[:SHOWN])
        left = len(self.faces) - SHOWN
        return f"{shown}; and {left} more" if left > 0 else shown

    def _repr_html_(self) -> str:
        from pipeline.report.photo import KEPT, Photo
        from pipeline.report.photo import Face as Drawn
        from pipeline.report.photo_figure import photo_figure  # imported when the first page is shown
        from transforms.formats.records import NO_LABEL

        drawn = tuple(
            Drawn(
                number,
                (face.box.x, face.box.y, face.box.width, face.box.height),
                NO_LABEL if face.label_index is None else face.label_index,
                face.confidence or 0.0,
                face.detection_score,
            )
            for number, face in enumerate(self.faces[:KEPT])
        )
        photo = Photo(0, self.name, "", self.width, self.height, None, drawn, len(self.faces))
        faces = "1 face" if len(self.faces) == 1 else f"{len(self.faces)} faces"
        return photo_figure(photo, self.classes, self.picture, faces if self.faces else self.words)
