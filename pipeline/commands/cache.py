"""`cache info|verify|prune`: its flags. `pipeline/actions/cache.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.errors import UsageError
from pipeline.flags import Options, many, one, position

ACTIONS = ("info", "verify", "prune")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions(Options):
    """What to do with a feature cache."""

    action: str = position("|".join(ACTIONS), "what to do")
    folder: str = position("DIR", "folder of the feature cache")
    cache: str | None = one("DIR", "the same, as a flag")
    keep: tuple[str, ...] = many(
        "FINGERPRINT", "prune: keep these (their first digits are enough) and remove all others"
    )

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            given = f", not {self.action!r}" if self.action else ""
            raise UsageError(f"cache needs one of {', '.join(ACTIONS)} and a folder{given}")
        if self.folder and self.cache:
            raise UsageError(f"cache {self.action} takes one folder, but it was given {self.folder} and {self.cache}")
        if not self.place:
            raise UsageError(f"cache {self.action} needs the folder of a feature cache")
        if self.action != "prune" and self.keep:
            raise UsageError(f"--keep is for cache prune, not for cache {self.action}")

    @property
    def place(self) -> str:
        """The folder, from the positional value or the flag."""
        return self.folder or self.cache or ""


COMMAND = Command(
    name="cache",
    summary="inspect (info), verify or prune a feature cache",
    example="cache info out/cache",
    options=CacheOptions,
)
