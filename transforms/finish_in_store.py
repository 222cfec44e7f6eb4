"""The last stage of a run whose output is an object store: parts are fetched, merged here, and the results are sent.

What is in the store is whole at any time, and `run.json` is sent last. A second attempt sends the same bytes.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass, replace
from typing import Any

from transforms.formats.parts import DamagedPart
from transforms.merge_request import MergeRequest
from transforms.standing_parts import PART, stored_parts
from transforms.storage.stopping import check
from transforms.storage.stores import FETCHED_AT_ONCE, Store, fetch, store_of
from transforms.stream_marks import MARK_SUFFIX

RECORD = "run.json"
TABLES = ("predictions", "images")
_TABLE = re.compile(r"(predictions|images)/part-[0-9]{5,}-of-[0-9]{5,}\.parquet", re.ASCII)
SUBMISSION = "submission.csv"
SCRATCH = "facelabel-"  # of the name of a folder among the machine's temporary files


def as_json(record: Mapping[str, Any]) -> bytes:
    """Returns the text of `run.json`."""
    return (json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n").encode()


def finish_in_store(request: MergeRequest, finish: Callable[[MergeRequest], dict[str, Any]]) -> dict[str, int]:
    """Fetches the parts, has them merged in a local folder, and sends the results, `run.json` last; returns the counts.

    Args:
        request: with an object store as output.
        finish: does what is asked in local folders, and returns `run.json`.

    Raises:
        DamagedPart: a part is damaged; it is removed from the store, so that the same command does its block again.
        StorageError, InputFault: the store cannot be reached.
    """
    store, parts = store_of(request.output), store_of(request.parts)
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        here = _moved(request, scratch)
        names = _fetched(parts, request.parts, here.parts)
        try:
            record = finish(here)
        except DamagedPart:
            parts.delete(
                name for key, name in names.items() if not os.path.exists(os.path.join(here.parts, key + PART))
            )
            raise
        written = [file["path"] for file in (*record["parts"], *record.get("report", {}).get("files", ()))]
        _send(store, scratch, written)
        _remove_stale(store, written)
        store.put_bytes(RECORD, as_json(record))
    counts: dict[str, int] = record["counts"]
    return counts


def _moved(request: MergeRequest, scratch: str) -> MergeRequest:
    """Returns the request with local folders in place of the store."""
    report: Any = request.report
    if is_dataclass(report) and not isinstance(report, type):  # a page is written beside the tables that it reads
        report = replace(report, output=scratch)
    return replace(request, output=scratch, parts=os.path.join(scratch, "parts"), report=report)


def _fetched(store: Store, parts: str, folder: str) -> dict[str, str]:
    """Copies the parts and marks of a run into a local folder, under the names of local runs; returns their names."""
    found, _ = stored_parts(parts)
    marks = [listed.name for listed in store.list() if listed.name.endswith(MARK_SUFFIX)]
    names = {key: part.name for key, part in found.items()}
    fetch(store, {name: key + PART for key, name in names.items()} | {name: name for name in marks}, folder)
    return names


def _send(store: Store, folder: str, names: Iterable[str]) -> None:
    with ThreadPoolExecutor(FETCHED_AT_ONCE, "send") as pool:
        for _ in pool.map(lambda name: store.put(name, os.path.join(folder, name)), names):
            check()


def _remove_stale(store: Store, written: Iterable[str]) -> None:
    """Removes the tables of an earlier merge, and its submission if there is none now."""
    kept = set(written)
    standing = [found.name for folder in TABLES for found in store.list(folder) if _TABLE.fullmatch(found.name)]
    store.delete(name for name in (*standing, SUBMISSION) if name not in kept)
