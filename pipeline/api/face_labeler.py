"""Labels the faces of single images in a notebook, a service or a loop over video frames. Imports no Beam.

It uses the pure functions of the stages, so it gives the same numbers as `label`. Not here: collections,
which `label` handles with a cache, an account of every image, and resuming.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from models.backbones.backbone import BackboneError
from models.heads.output_spec import ClassOutput, OutputSpec
from models.heads.outputs import HeadError
from models.heads.side_by_side import members_of
from models.runtimes.device import Device, get_device
from models.runtimes.registry import runtime
from pipeline.api.faces import Box, Face, LabelledImage
from pipeline.api.given import Paths, SettingsLike, head_settings, settings_from
from pipeline.errors import RejectedImage, UsageError
from pipeline.run.identity import identity_of, min_label_px
from pipeline.run.prepare import check_heads, chosen_heads, make_job
from transforms.block import Block, Faces, Reason, Status, with_features
from transforms.crop_faces import detect_rows, leave_threads_to_the_pool, with_rows
from transforms.label_faces import apply_head, leave_small_unlabelled

Image: TypeAlias = np.ndarray | bytes | bytearray | memoryview | str | os.PathLike[str]

IMAGES_AT_ONCE = 16  # of `label_many`: enough to fill batches, few enough to keep in memory


class FaceLabeler:
    """Finds and labels the faces of images.

    Loads everything once, at construction. Its methods may be called from several threads. All objects with the same
    network settings share one copy of the network. OpenCV is set to one thread in this process, as in `label`.

    Args:
        head: `bundled`, `bundled/ferplus`, `bundled/smile` or the folder of a head; None takes that of the settings.
            Several label each face: the first, which must choose among classes, fills `Face.label` and the like, the
            others `Face.more`.
        settings: as `label` takes them: `Settings`, a mapping such as `{"faces.min_label_px": 0}`, or the path of a
            YAML file.
        batch_size: faces in one call of the network. Changes speed, not results. None takes the fewest that the runtime
            takes, so that a single face does not wait for empty rows: 1 for onnx and openvino, 8 for the others.
        threads: that search one image for faces, where the detector can use several. Changes speed, not results.
        at_once: faces that onnx or openvino label at the same time, for as many threads that call; they share the
            cores. Changes speed, not results.

    Raises:
        UsageError: a setting is wrong, a file is missing, or a head does not fit the features.

    Example:
        >>> labeler = FaceLabeler.bundled()  # doctest: +SKIP
        >>> labeler.label("photo.jpg").faces[0].label  # doctest: +SKIP
        'happy'
    """

    def __init__(
        self,
        head: Paths | None = None,
        settings: SettingsLike = None,
        *,
        batch_size: int | None = None,
        threads: int = 1,
        at_once: int = 1,
    ) -> None:
        chosen = settings_from(settings, **head_settings(head))
        self.settings = chosen
        self._head_path, self._head = chosen_heads(chosen)
        self._first = _class_output(self._head.output)
        identity = identity_of(chosen, self._head)
        job = make_job(chosen, identity, output="", cache="", head=(self._head_path, self._head))
        batch = runtime(job.features.runtime).smallest_batch if batch_size is None else batch_size
        self._job = replace(job, features=replace(job.features, batch_size=batch, at_once=at_once))
        check_heads(self._head, identity)
        try:
            self._detector = job.detecting.detector.load(threads)
            self._device: Device = get_device(self._job.features)
            self._head.prepare(self._device.width)
        except (BackboneError, HeadError, ValueError) as error:
            raise UsageError(str(error)) from error
        leave_threads_to_the_pool()
        self._one_head = threading.Lock()

    @classmethod
    def bundled(cls) -> FaceLabeler:
        """Returns a labeler with the bundled detector, network and head, and default settings."""
        return cls()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the first head, in alphabetical order."""
        return self._first.classes

    @property
    def rejecting(self) -> bool:
        """True if the first head has reject classes, so that faces have a reject score."""
        return self._first.rejecting

    @property
    def first_output(self) -> ClassOutput:
        """What the first head says of a face."""
        return self._first

    @property
    def output(self) -> OutputSpec:
        """What the heads say of a face: the columns of `predictions/`."""
        return self._head.output

    def __repr__(self) -> str:
        heads = ", ".join([self.settings.head.path, *self.settings.head.more])
        return (
            f"<FaceLabeler: detector {self._job.detecting.detector.name}, network {self._job.features.backbone} on "
            f"{self._job.features.runtime}, "
            f"head {heads} ({', '.join(self.classes)})>"
        )

    def label(self, image: Image) -> LabelledImage:
        """Returns an image with its faces.

        Args:
            image: the path of an image file; the bytes of one; or uint8 pixels, (h, w, 3) in the order red, green, blue
                or (h, w) grey, as an array or as anything that numpy turns into one, such as a Pillow image.

        Raises:
            RejectedImage: its content cannot be used; `reason` is the one that `label` would write.
            UsageError: the file cannot be read, or the array has another shape or type.
        """
        return self.label_found(self.find(image))

    def find(self, image: Image) -> FoundFaces:
        """Returns the faces of an image before they are labelled: the first half of `label`, to be timed by itself.

        Args:
            image: as `label` takes it.

        Raises:
            UsageError: the file cannot be read, or the array has another shape or type.
        """
        return self._find([self._read(image, 0)])

    def label_found(self, found: FoundFaces) -> LabelledImage:
        """Returns the image of `find` with its faces labelled: the second half of `label`.

        Raises:
            RejectedImage: its content cannot be used.
        """
        (labelled,) = self._label(found)
        if labelled.status is Status.REJECTED:
            assert labelled.reason is not None
            raise RejectedImage(labelled.name, labelled.reason, labelled.width, labelled.height)
        return labelled

    def label_many(self, images: Iterable[Image]) -> Iterator[LabelledImage]:
        """Yields each image with its faces, in order; one that cannot be used has the status `rejected` and a reason.

        Images are taken a few at a time, so an endless source is fine.

        Args:
            images: as for `label`.

        Raises:
            UsageError: a file cannot be read, or an array has another shape or type.
        """
        numbered = enumerate(images)
        while some := list(islice(numbered, IMAGES_AT_ONCE)):
            yield from self._label(self._find([self._read(image, number) for number, image in some]))

    def _read(self, image: Image, number: int) -> _Encoded:
        return _read(image, number, self._job.reading.limits.max_image_bytes)

    def _find(self, images: Sequence[_Encoded]) -> FoundFaces:
        block = _block_of(images)
        readable = [row for row, image in enumerate(images) if image.reason is None]
        rows = detect_rows(block, readable, self._job.detecting, self._detector)
        return FoundFaces(tuple(images), with_rows(block, [rows]))

    def _label(self, found: FoundFaces) -> Iterator[LabelledImage]:
        block = with_features(found.block, self._features(found.block.fresh.crops))
        with self._one_head:  # Keras models are not guaranteed to be thread-safe
            block = apply_head(block, self._head)
        block = leave_small_unlabelled(block, min_label_px(self.settings))
        faces = _faces_of(block.faces, self._head.output)
        for row, image in enumerate(found.images):
            status = block.status[row]
            assert status is not None
            yield LabelledImage(
                name=image.name,
                width=int(block.width[row]),
                height=int(block.height[row]),
                status=status,
                reason=block.reason[row],
                faces=tuple(face for face, of in zip(faces, block.faces.image, strict=True) if of == row),
                classes=self.classes,
                picture=image.picture,
            )

    def _features(self, crops: np.ndarray | None) -> np.ndarray | None:
        """Returns (m, d) float16 of (m, h, w, c) uint8."""
        if crops is None:
            return None
        batch = self._job.features.batch_size
        starts = range(0, len(crops), batch)
        return np.concatenate([self._device.features(crops[start : start + batch]) for start in starts])


@dataclass(frozen=True, slots=True)
class _Encoded:
    """An image as given.

    Attributes:
        name: the path, "" if there is none. `called`: its name in warnings.
        data: bytes of an image file; `reason` says why there are none.
        picture: shows it later.
    """

    name: str
    called: str
    data: bytes | None
    picture: bytes | Path
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class FoundFaces:
    """Images whose faces are found and cropped, but not yet labelled.

    Attributes:
        images: as they were given.
        block: what came of them.
    """

    images: tuple[_Encoded, ...]
    block: Block


def _read(image: Image, number: int, max_bytes: int) -> _Encoded:
    if isinstance(image, str | os.PathLike):
        return _read_file(Path(image).expanduser(), max_bytes)
    data = bytes(image) if isinstance(image, bytes | bytearray | memoryview) else _as_pnm(image)
    if len(data) > max_bytes:
        return _Encoded("", f"image {number}", None, data, Reason.TOO_MANY_BYTES)
    return _Encoded("", f"image {number}", data, data)


def _read_file(path: Path, max_bytes: int) -> _Encoded:
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > max_bytes:
        return _Encoded(str(path), str(path), None, path, Reason.TOO_MANY_BYTES)
    return _Encoded(str(path), str(path), data, path)


def _as_pnm(image: Any) -> bytes:
    """Returns pixels as an uncompressed file, so that an array is processed like every other image."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        what = type(image).__name__ if pixels.dtype == object else f"{pixels.dtype} of shape {pixels.shape}"
        raise UsageError(
            "an image is a path, the bytes of an image file, or uint8 pixels of shape (height, width, 3), RGB, or "
            f"(height, width), grey, not {what}"
        )
    kind = b"P6" if pixels.ndim == 3 else b"P5"
    return b"%s\n%d %d\n255\n" % (kind, pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


def _block_of(images: Sequence[_Encoded]) -> Block:
    """Returns images in memory as a block that is not in a plan."""
    count = len(images)
    return Block(
        key="",
        position=0,
        ids=tuple(image.called for image in images),
        sources=("",) * count,
        labels=(None,) * count,
        sizes=np.asarray([len(image.data or b"") for image in images], np.int64),
        digests=np.zeros((count, 32), np.uint8),
        data=tuple(image.data for image in images),
        same_as=np.arange(count, dtype=np.int32),
        cached=np.zeros(count, bool),
        width=np.zeros(count, np.int32),
        height=np.zeros(count, np.int32),
        status=tuple(None if image.reason is None else Status.REJECTED for image in images),
        reason=tuple(image.reason for image in images),
    )


def _class_output(output: OutputSpec) -> ClassOutput:
    """Returns the output of the first head.

    Raises:
        UsageError: it gives a number.
    """
    first = members_of(output)[0][1]
    if not isinstance(first, ClassOutput):
        raise UsageError(
            f"the first head must choose among classes, but this one gives a number, {first.label}; "
            "put a head of classes first"
        )
    return first


def _faces_of(faces: Faces, output: OutputSpec) -> list[Face]:
    """Returns all faces of a labelled block, in order."""
    assert faces.answers is not None and faces.labelled is not None  # set by the steps before
    predicted, classes = output.stored(faces.answers), _class_output(output).classes
    index, chances = predicted["label_index"].tolist(), predicted["p"].tolist()
    nothing: list[float | None] = [None] * len(faces)
    rejects, degrees = (
        predicted[name].tolist() if name in predicted else nothing for name in ("no_label_score", "intensity")
    )
    places = zip(faces.box.tolist(), faces.score.tolist(), faces.labelled, strict=True)
    said = zip(index, chances, rejects, _of_further_heads(predicted, output, len(faces)), degrees, strict=True)
    return [
        _labelled(Box(*box), score, first, dict(zip(classes, row, strict=True)), more)
        if is_labelled
        else Face(Box(*box), score, None, None, None, {})
        for (box, score, is_labelled), (first, row, *more) in zip(places, said, strict=True)
    ]


def _of_further_heads(predicted: Mapping[str, np.ndarray], output: OutputSpec, count: int) -> list[dict[str, Any]]:
    """Returns for each face the values of the columns of all heads but the first, by name."""
    own = len(_class_output(output).columns)
    columns = {column.name: column.values(predicted[column.field]) for column in output.columns[own:]}
    return [{name: values[row] for name, values in columns.items()} for row in range(count)]


def _labelled(
    box: Box,
    score: float,
    index: int,
    probabilities: Mapping[str, float],
    more: Sequence[Any],
) -> Face:
    """Returns a face with its label; `more` are the fields after its probabilities."""
    label = list(probabilities)[index]
    return Face(box, score, label, index, probabilities[label], probabilities, *more)
