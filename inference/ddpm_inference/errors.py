"""What can go wrong, as the user meets it: a reason of the closed list, an exit code, a sentence, a hint.

The reasons are those of ``status.failure.reason`` of a DDPMSampling; the exit codes are the command's contract
(2 bad usage or input, 3 resources not to be had, 4 failed with part done, 130 interrupted).
"""

from __future__ import annotations

import textwrap
from typing import ClassVar

LONGEST_CAUSE = 300


class DdpmError(Exception):
    """An error a user can act on.

    Args:
        message: what was wrong, and where.
        hint: what to do about it; shown on a line of its own.
    """

    reason: ClassVar[str] = "DriverFailed"
    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders on Ray; keyword arguments would be lost by the default pickling.
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[DdpmError], message: str, hint: str) -> DdpmError:
    return kind(message, hint=hint)


class InvalidSpec(DdpmError):
    """A flag, a Job document or a combination of both that cannot be meant."""

    reason, exit_code = "InvalidSpec", 2


class ModelNotFound(DdpmError):
    """The checkpoint is not where the user said it is, or may not be read."""

    reason, exit_code = "ModelNotFound", 2


class ModelRejected(DdpmError):
    """The checkpoint is there, but is damaged, dangerous, or not the network it is said to be."""

    reason, exit_code = "ModelRejected", 2


class OutputConflict(DdpmError):
    """The output place holds the samples of another job."""

    reason, exit_code = "OutputConflict", 2


class StorageFailed(DdpmError):
    """The output place cannot be read or written: full, read-only, forbidden, unreachable."""

    reason, exit_code = "StorageFailed", 4


class ResourcesUnavailable(DdpmError):
    """The Ray cluster, or what a worker needs on it, could not be had in time."""

    reason, exit_code = "Unschedulable", 3


class OutOfMemory(DdpmError):
    """A worker needed more memory than it may have."""

    reason, exit_code = "OutOfMemory", 4


class WorkerLost(DdpmError):
    """Workers died more often than they may."""

    reason, exit_code = "WorkerLost", 4


class Incomplete(DdpmError):
    """Some shards failed for reasons of their own; the others are kept."""

    reason, exit_code = "DriverFailed", 4


class Interrupted(DdpmError):
    """The user or the platform asked the run to stop; whole shards are kept."""

    reason, exit_code = "DriverFailed", 130


def in_short(said: str) -> str:
    """What somebody else's error says, on one line; of one that is longer, whole words of its beginning."""
    return textwrap.shorten(said, LONGEST_CAUSE, placeholder=" …")
