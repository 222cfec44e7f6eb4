"""Labels of a block's images from the table `read.labels`. Without it, labels come from class folders and tables."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from functools import lru_cache

from transforms.block import Block
from transforms.formats.label_table import LabelTable, read_label_table
from transforms.job import Reading
from transforms.provenance import LABELS, Provenance, refuse_another
from transforms.storage.staged_files import local_path


@lru_cache(maxsize=1)  # the workers of a process share the table, which may have a million rows
def label_table(path: str, column: str | None) -> tuple[LabelTable, str]:
    """Returns the table of labels, and the SHA-256 of its file in hex.

    Raises:
        InputFault: the file is missing or cannot be read. FormatError: it is not a table of labels.
    """
    from transforms.storage.store import open_file  # imports Beam, which labelling single images does not need

    with open_file(path) as file:
        data = file.read()
    return read_label_table(io.BytesIO(data), path, column), hashlib.sha256(data).hexdigest()


def labels_of(reading: Reading, begun_with: Provenance) -> LabelTable | None:
    """Returns the table that labels come from, or None if there is none.

    Raises:
        FileChanged: it is not the one that the run started with.
    """
    if not reading.labels:
        return None
    table, digest = label_table(local_path(reading.labels), reading.label_column)
    refuse_another(begun_with, {LABELS: digest})
    return table


def relabelled(block: Block, table: LabelTable | None) -> Block:
    """Returns the block with the table's labels instead of its own; unchanged if there is no table."""
    return block if table is None else replace(block, labels=tuple(table.of(image_id) for image_id in block.ids))
