"""A finished block as the rows of its part: sorted images with their faces nested, built from whole columns.

Not here: the file (`formats/parts.py`), publishing it (`write_parts.py`), and joining parts (`merge_parts.py`).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.heads.output_spec import OutputSpec
from transforms.block import Block, Faces, PartInfo, Reason, Status
from transforms.formats.exif_columns import exif_columns
from transforms.formats.parts import PartMetadata, faces_type, part_schema, storable, text_array
from transforms.output_fields import part_fields, part_values


def part_table(block: Block, *, spec: OutputSpec, known_labels: Collection[str] | None = None) -> pa.Table:
    """Returns the rows of a block's part, sorted by image id (UTF-8 bytes), then position.

    Args:
        spec: what the answers of the head mean.
        known_labels: labels of the input that count as classes, others become null; None keeps all.

    Raises:
        ValueError: an image is undecided, its status and its faces contradict each other, or answers are wrong.
    """
    ids = block.ids if "".join(block.ids).isascii() else [storable(name) for name in block.ids]
    order = np.asarray(sorted(range(len(ids)), key=ids.__getitem__), np.intp)  # stable: positions rise within an id
    rows = order.tolist()
    status = [block.status[row] for row in rows]
    reasons = [block.reason[row] for row in rows]
    labels = [block.labels[row] for row in rows]
    _check_outcomes(block)
    faces = _faces_column(block.faces, order, spec)
    columns = [
        pa.array([ids[row] for row in rows], pa.string()),
        pa.array(block.position + order.astype(np.int64)),
        text_array([block.sources[row] for row in rows]),
        _digest_column(block.digests[order]),
        pa.array(block.sizes[order].astype(np.int64, copy=False)),
        pa.array(block.width[order].astype(np.int32, copy=False)),
        pa.array(block.height[order].astype(np.int32, copy=False)),
        pa.array(status, pa.string()),
        pa.array([None if r is None else r.stage.value for r in reasons], pa.string()),
        pa.array([None if r is None else r.value for r in reasons], pa.string()),
        text_array([name if known_labels is None or name in known_labels else None for name in labels]),
        pa.array(block.cached[order].astype(bool, copy=False)),
        *([] if block.exif is None else exif_columns([block.exif[row] for row in rows])),
        faces,
    ]
    schema = part_schema(part_fields(spec), exif=block.exif is not None)
    return pa.Table.from_arrays(columns, schema=schema)


def part_info_of(table: pa.Table, name: str, *, reused: bool = False) -> PartInfo:
    """Returns what the graph passes on for the part that holds `table`."""
    ids = table["image_id"]
    return PartInfo(
        name=name,
        first_id=ids[0].as_py() if len(ids) else "",
        last_id=ids[-1].as_py() if len(ids) else "",
        images=table.num_rows,
        faces=pc.sum(pc.list_value_length(table["faces"])).as_py() or 0,
        cached=pc.sum(table["cached"]).as_py() or 0,
        reused=reused,
    )


def part_metadata(info: PartInfo, *, block_key: str, run_fingerprint: str) -> PartMetadata:
    """Returns what the part's footer says."""
    return PartMetadata(
        block_key=block_key,
        run_fingerprint=run_fingerprint,
        first_id=info.first_id,
        last_id=info.last_id,
        images=info.images,
        faces=info.faces,
        cached=info.cached,
    )


def _faces_column(faces: Faces, order: np.ndarray, spec: OutputSpec) -> pa.Array:
    """Returns the nested column: the faces of each sorted row."""
    answers = _answers(faces, spec.width)
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    row = place[faces.image]
    counts = np.bincount(row, minlength=len(order))
    chosen = np.argsort(row, kind="stable")  # the order of an image's faces stays
    box = faces.box[chosen].astype(np.int32, copy=False)
    kind = faces_type(part_fields(spec))
    values = [pa.array(np.ascontiguousarray(box[:, column])) for column in range(4)]
    values += [
        pa.array(faces.score[chosen].astype(np.float32, copy=False)),
        pa.array(_labelled(faces)[chosen]),
        *part_values(spec, answers[chosen]),
    ]
    structs = pa.StructArray.from_arrays(values, fields=list(kind.value_type))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), structs, type=kind)


def _answers(faces: Faces, width: int) -> np.ndarray:
    """Returns one row of answers a face."""
    if faces.answers is None and len(faces):
        raise ValueError("faces have no answers: a part is written after the head was applied")
    answers = np.zeros((0, width)) if faces.answers is None else faces.answers
    if len(answers) != len(faces):
        raise ValueError(f"{len(answers)} rows of answers are not one for each of {len(faces)} faces")
    return answers


def _labelled(faces: Faces) -> np.ndarray:
    """Returns (m,) bool."""
    return np.ones(len(faces), bool) if faces.labelled is None else faces.labelled


def _check_outcomes(block: Block) -> None:
    found, labelled = (
        np.bincount(block.faces.image[rows], minlength=len(block)).tolist()
        for rows in (slice(None), _labelled(block.faces))
    )
    for row, (status, reason) in enumerate(zip(block.status, block.reason, strict=True)):
        if not _fits(status, reason, found[row], labelled[row]):
            raise ValueError(
                f"image {block.ids[row]!r} of block {block.key}: {status}, {reason}, {found[row]} faces, "
                f"{labelled[row]} of them labelled"
            )


def _fits(status: Status | None, reason: Reason | None, faces: int, labelled: int) -> bool:
    """True if a label, and a reason for having none, are there exactly where the status says so."""
    if status is Status.LABELLED:
        return labelled > 0 and reason is None
    if status is Status.NO_FACE:
        return labelled == 0 and reason is (Reason.TOO_SMALL_TO_LABEL if faces else None)
    return status is Status.REJECTED and faces == 0 and reason not in (None, Reason.TOO_SMALL_TO_LABEL)


def _digest_column(digests: np.ndarray) -> pa.Array:
    """Returns (n,) binary(32), null where the digest is all zeros: there were no bytes."""
    present = digests.any(axis=1)
    validity = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little").tobytes())
    values = pa.py_buffer(np.ascontiguousarray(digests, np.uint8).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(digests), [validity, values])
