"""Opens a source of soft labels, a table of votes or a finished run; `transforms/formats/soft_labels.py` reads it."""

from __future__ import annotations

from contextlib import ExitStack

from pipeline.errors import UsageError
from transforms.formats.soft_labels import SoftLabels, read_predictions, read_votes
from transforms.storage import is_folder, list_folder, open_file


def read_source(path: str) -> SoftLabels:
    """Returns the soft labels of a CSV of votes, or the probabilities of a finished run.

    Raises:
        UsageError: the path is neither.
        FormatError: what is there does not fit.
    """
    if path.endswith(".csv"):
        with open_file(path) as file:
            return read_votes(file, path)
    if not is_folder(f"{path}/predictions"):
        raise UsageError(f"--soft-labels {path} is neither a CSV file nor the folder of a finished run")
    with ExitStack() as opened:
        files = sorted(f.path for f in list_folder(f"{path}/predictions") if f.path.endswith(".parquet"))
        return read_predictions((file, opened.enter_context(open_file(file))) for file in files)
