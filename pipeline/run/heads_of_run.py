"""The heads of a finished run, as its `run.json` states them: where in the tables each says what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.heads.output_spec import ClassOutput, NumberOutput, OutputSpec
from models.heads.outputs import Head
from models.heads.several import SeveralHeads
from models.heads.side_by_side import prefix_of
from pipeline.errors import UsageError


@dataclass(frozen=True, slots=True)
class RunHead:
    """A head of a run.

    Attributes:
        name: "" for the only head of a run.
        prefix: what its columns in `predictions/` begin with.
        classes: () for a head of numbers.
        path, digest: of the head when the run was made.
        number: name of the number of a head without classes.
        rejecting: it also gives a reject score.
        intensity_exponent: as of `ClassOutput`; 0 if it gives no intensity.
    """

    name: str
    prefix: str
    classes: tuple[str, ...]
    path: str = ""
    digest: str = ""
    number: str = ""
    rejecting: bool = False
    intensity_exponent: float = 0.0

    @property
    def output(self) -> OutputSpec:
        """What it says of a face."""
        if self.number:
            return NumberOutput(self.number)
        return ClassOutput(self.classes, self.rejecting, self.intensity_exponent)

    @property
    def columns(self) -> dict[str, str]:
        """Its columns in `predictions/`, each with the name that it has in a run with this head alone."""
        return {self.prefix + column.name: column.name for column in self.output.columns}


def record_of(path: str, head: Head) -> dict[str, Any]:
    """Returns what `run.json` says of the heads: `head`, the first one; with several also `heads`, all of them."""
    if not isinstance(head, SeveralHeads):
        return {"head": _about(path, head)}
    heads = [{"name": one.name, **_about(one.path, one.head)} for one in head.heads]
    for place, (one, about) in enumerate(zip(head.heads, heads, strict=True)):
        about["columns_begin_with"] = prefix_of(one.name, first=place == 0)
    return {"head": _about(head.heads[0].path, head.heads[0].head), "heads": heads}


def _about(path: str, head: Head) -> dict[str, Any]:
    reject = {"reject": list(head.reject)} if head.reject else {}
    about = {"path": path, "digest": head.digest, "classes": list(head.classes), **reject}
    if isinstance(head.output, ClassOutput):
        exponent = head.output.intensity_exponent
        return {**about, "intensity_exponent": exponent} if exponent else about
    return {**about, "number": head.output.label}


def heads_of(record: Mapping[str, Any]) -> tuple[RunHead, ...]:
    """Returns the heads of a run, the first one first."""
    heads: Sequence[Mapping[str, Any]] = record.get("heads") or [record.get("head", {})]
    return tuple(
        RunHead(
            str(about.get("name", "")),
            str(about.get("columns_begin_with", "")),
            tuple(about.get("classes", ())),
            str(about.get("path") or ""),
            str(about.get("digest") or ""),
            str(about.get("number") or ""),
            bool(about.get("reject")),
            float(about.get("intensity_exponent") or 0.0),
        )
        for about in heads
    )


def head_called(record: Mapping[str, Any], name: str | None, *, flag: str = "--head") -> RunHead:
    """Returns the head of that name; without a name the first one that chooses among classes, or else the first.

    Raises:
        UsageError: the run has no such head.
    """
    heads = heads_of(record)
    if name is None:
        return next((head for head in heads if head.classes), heads[0])
    called = [head for head in heads if head.name == name]
    if not called:
        known = ", ".join(head.name for head in heads) if len(heads) > 1 else "one head, without a name: drop the flag"
        raise UsageError(f"{flag} {name} is not a head of this run; it has {known}")
    return called[0]


def class_head_called(record: Mapping[str, Any], name: str | None, what: str, *, flag: str = "--head") -> RunHead:
    """Returns the head of that name, as `head_called` does.

    Args:
        what: the command, for errors.

    Raises:
        UsageError: the run has no such head, or it gives a number.
    """
    head = head_called(record, name, flag=flag)
    refuse_numbers(head, what)
    return head


def refuse_numbers(head: RunHead, what: str) -> None:
    """Raises UsageError if a head gives numbers, not classes."""
    if not head.classes:
        named = head.name or "that of this run"
        raise UsageError(f"{what} needs a head that chooses among classes, but {named} gives a number")


def about_head(record: Mapping[str, Any], head: RunHead) -> dict[str, Any]:
    """Returns what `run.json` says of one head of the run."""
    found = (about for about in record.get("heads", ()) if about["name"] == head.name)
    return dict(next(found, record["head"]))


def deciding_classes(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the classes of the head whose labels submission.csv states."""
    name = record.get("settings", {}).get("write", {}).get("submission_head")
    return next((head.classes for head in heads_of(record) if head.name == name), heads_of(record)[0].classes)
