"""`cache info|verify|prune`: shows what a feature cache holds, checks it, and removes fingerprints no longer needed.

Not here: the cache itself (`transforms/formats/cache/feature_cache.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.commands.cache import CacheOptions
from pipeline.commands.command import Context
from pipeline.errors import StoppedError, UsageError

if TYPE_CHECKING:
    from transforms.formats.cache.feature_cache import FeatureCache

Say = Callable[[str], None]  # prints a line, unless --quiet is given
SIZE_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def run(options: CacheOptions, context: Context) -> int:
    """Does what `options.action` names and returns the exit status.

    Raises:
        UsageError: the folder has no cache, or a fingerprint to keep is not in it.
        StoppedError: `verify` found damage, or a folder lacks its description; the other folders were processed.
    """
    say = _say_nothing if context.quiet else print
    if faults := ACTIONS[options.action](_folders(options.place), options, say):
        raise StoppedError("; ".join(faults))
    return 0


def _folders(root: str) -> list[str]:
    """Returns the folders of the fingerprints in `root`, or `root` itself if it is one of them."""
    from transforms.formats.cache.folders import FINGERPRINT_FILE, fingerprint_folders, has_lost_its_fingerprint

    if os.path.isfile(os.path.join(root, FINGERPRINT_FILE)) or has_lost_its_fingerprint(root):
        return [root]
    if found := [os.path.join(root, name) for name in fingerprint_folders(root, lost=True)]:
        return found
    raise UsageError(f"{root} has no feature cache; give the folder that was a run's --cache")


def _opened(folders: list[str], faults: list[str], *, read_only: bool = False) -> Iterator[FeatureCache]:
    """Yields the cache in each folder. One without a description is reported in a line, and as an error in the end."""
    from transforms.formats.cache.feature_cache import FeatureCache
    from transforms.formats.records import FormatError

    unknown = 0
    for folder in folders:
        try:
            cache = FeatureCache.open(folder, read_only=read_only)
        except FormatError as error:
            print(error)
            unknown += 1
        else:
            yield cache
    if unknown:
        faults.append(f"{unknown} of {len(folders)} folders could not be opened")


def _say_nothing(text: str) -> None:
    """Replaces `print` under --quiet."""


def _info(folders: list[str], _options: CacheOptions, _say: Say) -> list[str]:
    faults: list[str] = []
    for cache in _opened(folders, faults, read_only=True):
        print("\n".join(_described(cache.info())))
    return faults


def _described(info: Mapping[str, Any]) -> Iterator[str]:
    yield str(info["folder"])
    yield f"  images      {info['images']:,}"
    yield f"  faces       {info['faces']:,}"
    yield f"  segments    {info['segments']:,}, {size_in_words(info['bytes'])}"
    yield f"  index       {size_in_words(info['index_bytes'])}"
    yield f"  damaged     {info['damaged']:,}"
    yield f"  leftovers   {info['leftovers']:,}"
    yield "  made with"
    yield from (f"    {name}: {value}" for name, value in _leaves(info["settings"]))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in sorted(tree.items()):
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _verify(folders: list[str], _options: CacheOptions, say: Say) -> list[str]:
    faults: list[str] = []
    damaged = in_place = 0
    for cache in _opened(folders, faults):  # building the index may already find damage
        report = cache.verify()
        say(
            f"{cache.folder}: {report.segments:,} segments are intact, {report.images:,} rows "
            f"({report.labelled:,} with faces, {report.no_face:,} without, {report.rejected:,} rejected), "
            f"{report.faces:,} faces"
        )
        for name, why in cache.damaged:
            say(f"  damaged: {name}: {why}")
        damaged += len(cache.damaged)
        in_place += len(report.in_place)
    if damaged:
        moved = f"{damaged} damaged segments were moved aside"
        if in_place:
            moved = f"{damaged} damaged segments, of which {in_place} could not be moved aside"
        faults.append(f"{moved}; the next run computes their images again")
    return faults


def _prune(folders: list[str], options: CacheOptions, say: Say) -> list[str]:
    if options.keep and folders == [options.place]:
        raise UsageError(f"{folders[0]} is one fingerprint of a cache; --keep needs the folder that contains them all")
    keep = [_kept(folders, wanted) for wanted in options.keep]
    others = [os.path.basename(os.path.abspath(kept)) for kept in keep] if keep else None
    faults: list[str] = []
    removed, size = 0, 0
    for cache in _opened(keep or folders, faults):
        pruned = cache.prune(others)
        for path in pruned.paths:
            say(f"removed {path}")
        removed, size = removed + len(pruned.paths), size + pruned.size
    say(f"removed {removed:,} files, {size_in_words(size)}")
    return faults


ACTIONS: dict[str, Callable[[list[str], CacheOptions, Say], list[str]]] = {
    "info": _info,
    "verify": _verify,
    "prune": _prune,
}


def _kept(folders: list[str], wanted: str) -> str:
    """Returns the one folder whose fingerprint begins with `wanted`: a typing error must not remove the wrong ones."""
    found = [folder for folder in folders if os.path.basename(os.path.abspath(folder)).startswith(wanted[:16].lower())]
    if len(found) != 1:
        known = ", ".join(os.path.basename(os.path.abspath(folder)) for folder in folders)
        raise UsageError(f"--keep {wanted} matches {len(found)} of the fingerprints there: {known}")
    return found[0]


def size_in_words(size: int) -> str:
    """Returns bytes in a readable unit: `512 bytes`, `1.5 MB`."""
    if size < 1000:
        return f"{size} bytes"
    power = min((len(str(size)) - 1) // 3, len(SIZE_UNITS) - 1)
    return f"{size / 1000**power:.1f} {SIZE_UNITS[power]}"
