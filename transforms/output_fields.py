"""A head's output as Arrow has it: the fields of a part, and the columns of `predictions/` that show them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from models.heads.output_spec import Column, Field, OutputSpec

_TYPES = {"int32": pa.int32(), "float64": pa.float64()}


def part_fields(spec: OutputSpec) -> tuple[pa.Field, ...]:
    """Returns the fields that a part has for each face; none is null."""
    return tuple(pa.field(field.name, _type(field), nullable=False) for field in spec.fields)


def part_values(spec: OutputSpec, answers: np.ndarray) -> list[pa.Array]:
    """Returns the values of `part_fields` for (m, width) answers.

    Raises:
        ValueError: they are not of this width, not finite, or not what the head may give.
    """
    if answers.ndim != 2 or answers.shape[1] != spec.width or not np.isfinite(answers).all():
        raise ValueError(f"answers of shape {answers.shape} are not finite rows of {spec.width} numbers")
    stored = spec.stored(answers)
    return [_values(field, stored[field.name]) for field in spec.fields]


def shown_fields(spec: OutputSpec) -> list[pa.Field]:
    """Returns the columns of `predictions/`; all are null for a face without a label."""
    dtypes = {field.name: _TYPES[field.dtype] for field in spec.fields}
    return [pa.field(column.name, pa.string() if column.texts else dtypes[column.field]) for column in spec.columns]


def shown_values(spec: OutputSpec, stored: Mapping[str, pa.Array]) -> list[pa.Array]:
    """Returns the values of `shown_fields` from those of `part_fields`, by name."""
    return [_shown(column, stored[column.field]) for column in spec.columns]


def _type(field: Field) -> pa.DataType:
    one = _TYPES[field.dtype]
    return pa.list_(pa.field("element", one, nullable=False), field.size) if field.size else one


def _values(field: Field, values: np.ndarray) -> pa.Array:
    numbers = np.ascontiguousarray(values, field.dtype)
    if not field.size:
        return pa.array(numbers)
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), type=_type(field))


def _shown(column: Column, values: pa.Array) -> pa.Array:
    if column.place is not None:
        rows = values.flatten().to_numpy().reshape(-1, values.type.list_size)
        values = pa.array(np.ascontiguousarray(rows[:, column.place]))
    return pa.array(column.texts, pa.string()).take(values) if column.texts else values
