"""What storage raises when a planned file cannot be read. Knows no storage, so that naming a fault imports none."""

from __future__ import annotations


class InputFault(OSError):
    """A planned file cannot be read now. Its content is not at fault, so the run stops and can be resumed.

    Attributes:
        errno: the number of the underlying error, or None.
    """

    def __str__(self) -> str:
        return str(self.args[-1]) if self.args else ""


class FileChanged(InputFault):
    """A file was replaced while it was read, so the bytes read so far do not fit the rest."""

    heals = False  # read by `retrying.may_heal`


class NoSuchStorage(InputFault):
    """A path's kind of storage is unknown, or its package is not installed."""

    heals = False
