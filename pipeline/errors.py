"""What a command raises when it cannot go on: one tree, and the exit status of each kind.

A message is one clause: what is wrong, where, and the cure. `pipeline.cli.main` prints it as one line.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Root of all that ends a command in an orderly way."""

    exit_status = 3


class UsageError(PipelineError):
    """The command or a setting is wrong; nothing was read and nothing was written."""

    exit_status = 2


class StoppedError(PipelineError):
    """Stopped by a limit, by faulty storage, or by nothing to do; the same command may go on later."""

    exit_status = 3


class RejectedImage(PipelineError):
    """The content of one image cannot be used.

    Attributes:
        name: its path, "" where it has none.
        reason: why, in the words of docs/formats.md.
        width, height: pixels of the upright image, 0 where unknown.
    """

    def __init__(self, name: str, reason: str, width: int = 0, height: int = 0) -> None:
        super().__init__(f"{name or 'the image'} cannot be used: {reason}")
        self.name, self.reason, self.width, self.height = name, reason, width, height


class Interrupted(PipelineError):
    """Ended by the user; the message says how to go on."""

    exit_status = 130
