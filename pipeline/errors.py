"""What a command raises when it cannot continue: one tree, with an exit status for each kind.

A message is one clause: what is wrong, where, and how to fix it. `pipeline.cli.main` prints it as one line.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Root of all errors that end a command with one line."""

    exit_status = 3


class UsageError(PipelineError):
    """The command or a setting is wrong; nothing was read and nothing was written."""

    exit_status = 2


class StoppedError(PipelineError):
    """Stopped by a limit, by a storage error, or because there is nothing to do; the same command may resume later."""

    exit_status = 3


class RejectedImage(PipelineError):
    """The content of one image cannot be used.

    Attributes:
        name: its path, "" if it has none.
        reason: why, in the words of docs/formats.md.
        width, height: pixels of the upright image, 0 where unknown.
    """

    def __init__(self, name: str, reason: str, width: int = 0, height: int = 0) -> None:
        super().__init__(f"{name or 'the image'} cannot be used: {reason}")
        self.name, self.reason, self.width, self.height = name, reason, width, height


class Interrupted(PipelineError):
    """Stopped by the user; the message says how to resume."""

    exit_status = 130
