"""What a path alone says about its storage."""

from __future__ import annotations


def is_local(path: str) -> bool:
    """True if the path is on a local file system."""
    return "://" not in path
