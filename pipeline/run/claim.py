"""One job per output folder: the command that it belongs to, and what its results depend on.

`label` notes that in `run.json` (`output_folder.py`); the other commands note it in `command.json` and follow the same
rule: the same command resumes or repeats the job, another one is refused, and `--overwrite` starts over.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError
from pipeline.flags import Options
from pipeline.run.own_files import IDENTITY, RECORD
from pipeline.settings.differences import differences
from transforms.formats.publish import publish_bytes

COMMAND_FILE = "command.json"
LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A command's job in its output folder.

    Attributes:
        command: its name.
        files: names that it writes there; `--overwrite` removes them.
        identity: all that the results depend on, as JSON; {} for a command that compares its own `proof`.
        proof: a file that only this command writes, in folders of versions without `command.json`.
    """

    command: str
    files: tuple[str, ...]
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    proof: str = COMMAND_FILE


def asked(options: Options, *, besides: Sequence[str]) -> dict[str, Any]:
    """Returns the options that the results depend on, as JSON.

    Args:
        besides: names of those that they do not depend on.
    """
    given: dict[str, Any] = dataclasses.asdict(options)  # type: ignore[call-overload]  # each subclass is a dataclass
    kept = {name: value for name, value in given.items() if name not in {"output", "cache", "overwrite", *besides}}
    return dict(json.loads(json.dumps(kept)))


def refuse_other_command(folder: str, command: str) -> None:
    """Raises UsageError if the folder holds the results of another command, even with `--overwrite`."""
    found = _note(folder).get("command")
    if found is None and any(os.path.lexists(os.path.join(folder, name)) for name in (RECORD, IDENTITY)):
        found = LABEL
    if found not in (None, command):
        raise UsageError(f"--output {folder} holds the results of {found}; give another folder")


def claim(folder: str, work: Work, *, overwrite: bool) -> None:
    """Assigns the folder to this job, and notes that there. The caller holds its lock.

    A job that failed before it wrote any result claims nothing, so the command may follow with other options.

    Raises:
        UsageError: it belongs to another job, or has files of the user where results are written.
    """
    refuse_other_command(folder, work.command)
    present = [name for name in work.files if os.path.lexists(os.path.join(folder, name))]
    if present and not any(os.path.isfile(os.path.join(folder, name)) for name in (COMMAND_FILE, work.proof)):
        raise UsageError(
            f"--output {folder}: {present[0]} is where results are written, but nothing says that {work.command} "
            "wrote it; move it away or give another output folder"
        )
    for name in present:
        if not os.path.isfile(os.path.join(folder, name)) or os.path.islink(os.path.join(folder, name)):
            raise UsageError(f"--output {folder}: {name}, where results go, is not a file; move it away")
    note = {"command": work.command, "identity": dict(work.identity)}
    if overwrite:
        for name in present:
            os.unlink(os.path.join(folder, name))
    elif (
        set(present) - {COMMAND_FILE}
        and COMMAND_FILE in os.listdir(folder)
        and (other := differences(_note(folder), note))
    ):
        raise UsageError(
            f"--output {folder} holds results of {work.command} with other options "
            f"({'; '.join(text.removeprefix('identity.') for text in other[:6])}); give another folder, or "
            "--overwrite to start over"
        )
    os.makedirs(folder, exist_ok=True)
    publish_bytes(os.path.join(folder, COMMAND_FILE), (json.dumps(note, indent=1, sort_keys=True) + "\n").encode())


def _note(folder: str) -> dict[str, Any]:
    """Returns the note of an earlier command; {} if there is none or it is damaged."""
    try:
        with open(os.path.join(folder, COMMAND_FILE), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
