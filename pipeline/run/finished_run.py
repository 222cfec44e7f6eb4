"""The results of a finished run of `label`, checked against its `run.json`: for evaluation, or as teacher.

Not here: the tables themselves (`transforms/formats/results.py`), and taking up an unfinished run (`output_folder.py`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import UsageError
from pipeline.run.output_folder import OutputFolder
from transforms.formats.results import Results, ResultsError, read_results


def finished_run(path: str, *, flag: str) -> tuple[OutputFolder, dict[str, Any]]:
    """Returns the folder of a finished run and its `run.json`, after checking the digest of every listed file.

    Args:
        flag: the flag that gave the path, for errors.

    Raises:
        UsageError: the path is not the folder of a finished run.
    """
    folder = OutputFolder(path)
    if not os.path.isdir(folder.path):
        raise UsageError(f"{flag} {path}: no such folder")
    record = folder.record()
    if record is None:
        raise UsageError(f"{flag} {path} has no run.json; give the output folder of a finished run")
    classes = record.get("head", {}).get("classes")
    if not isinstance(classes, list) or "parts" not in record:
        raise UsageError(f"{flag} {path}: its run.json was not written by label; label again")
    if not folder.is_whole(record) or not all(_is_unchanged(folder, part) for part in record["parts"]):
        raise UsageError(f"{flag} {path}: files that its run.json lists are missing or changed; label again")
    return folder, record


def _is_unchanged(folder: OutputFolder, part: Mapping[str, Any]) -> bool:
    """True if a file has the digest in `run.json`: Parquet itself does not detect every flipped bit."""
    with open(os.path.join(folder.path, part["path"]), "rb") as file:
        return bool(hashlib.file_digest(file, "sha256").hexdigest() == part["sha256"])


def results_of(folder: str, classes: Sequence[str], prefix: str = "") -> Results:
    """Returns one row per image, with its largest face.

    Raises:
        UsageError: the tables do not match.
    """
    try:
        return read_results(folder, classes, prefix)
    except ResultsError as error:
        raise UsageError(str(error)) from error
