"""What a path alone says about its storage."""

from __future__ import annotations


def is_local(path: str) -> bool:
    """True if the path is on a local file system."""
    return "://" not in path


SCHEMES = {"s3": "s3", "gs": "gcs"}  # of object stores, and the extra of this program that serves each


def is_object(path: str) -> bool:
    """True for the path of an object store that this program reads and writes itself (`objects.py`)."""
    return path.partition("://")[0] in SCHEMES and "://" in path
