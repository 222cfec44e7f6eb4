"""Lists the finished parts of a run, in a local folder or in an object store."""

from __future__ import annotations

from transforms.formats.parts import StoredPart, is_part_name, stored_part
from transforms.storage.paths import is_object
from transforms.storage.stores import store_of

PART = ".parquet"


def stored_parts(parts: str) -> tuple[dict[str, StoredPart], list[str]]:
    """Returns the parts in an object store by the key of their block, and the names of surplus ones, by one LIST.

    A block that was done twice may have two parts, if one of them has an internal_error. The better one is kept.
    """
    best: dict[str, StoredPart] = {}
    surplus: list[str] = []
    for listed in store_of(parts).list():
        found = stored_part(listed.name)
        if found is None:
            continue
        other = best.get(found.key)
        if other is not None:
            found, other = min(found, other), max(found, other)
            surplus.append(other.name)
        best[found.key] = found
    return best, surplus


def finished_blocks_of(parts: str, stream: str) -> set[str]:
    """Returns the keys of the finished blocks of a streamed archive."""
    keys: set[str] = set()
    if not is_object(parts):
        names = (found.name for found in store_of(parts).list())
        return {name.removesuffix(PART) for name in names if is_part_name(name) and name.startswith(stream)}
    for listed in store_of(parts).list(after=stream):  # names are sorted: those of the archive come first
        found = stored_part(listed.name)
        if not listed.name.startswith(stream):
            break
        if found is not None:
            keys.add(found.key)
    return keys
