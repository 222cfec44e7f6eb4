"""Metrics of a head of numbers: a true label that is no number names its image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import UsageError
from pipeline.report.number_evaluation import write_number_evaluation
from transforms.formats.results import Numbers


@pytest.mark.parametrize("label", ["bright", "nan", "inf", ""])
def test_a_true_label_that_is_no_number_names_its_image(tmp_path: Path, label: str) -> None:
    columns = (["a.png", "b.png"], ["labelled"] * 2, [b"1", b"2"], ["1.5", label])
    ids, status, digests, labels = (pa.chunked_array([column]) for column in columns)
    found = Numbers("age", ids, status, digests, labels, np.array([1.0, 2.0]))
    with pytest.raises(UsageError, match=rf"^b\.png: the true label '{label}' is not a number, but the head gives num"):
        write_number_evaluation(str(tmp_path), found, {}, 0)
    assert list(tmp_path.iterdir()) == []
