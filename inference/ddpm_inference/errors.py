"""The errors of this program: each has a reason from the closed list, an exit code, a message and a hint.

The reasons are those of ``status.failure.reason`` of a DDPMSampling. The exit codes are part of the command's contract:
2 bad usage or input, 3 resources unavailable, 4 failed, with the samples stored so far kept, 130 interrupted.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import ClassVar

MAX_CAUSE_LENGTH = 300

RESUME = "run the same command again"
"""In hints and notes. `driver` adds that --overwrite must be left out, where it was given."""


class DdpmError(Exception):
    """An error that the user can act on.

    Args:
        message: what was wrong, and where.
        hint: what to do about it; printed on a line of its own.
        other_hardware_ips: addresses of the Ray nodes on which the error is due to their hardware, see `OtherHardware`.
            The operator keeps later attempts away from them.
    """

    reason: ClassVar[str] = "DriverFailed"
    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, *, hint: str = "", other_hardware_ips: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.other_hardware_ips = tuple(other_hardware_ips)

    def __reduce__(self) -> tuple[object, ...]:
        # Ray pickles errors between processes; the default way would lose the keyword arguments.
        return (_rebuild, (type(self), self.message, self.hint, self.other_hardware_ips))


def _rebuild(kind: type[DdpmError], message: str, hint: str, other_hardware_ips: Sequence[str]) -> DdpmError:
    return kind(message, hint=hint, other_hardware_ips=other_hardware_ips)


class InvalidSpec(DdpmError):
    """A flag or a Job document is invalid, or they contradict each other."""

    reason, exit_code = "InvalidSpec", 2


class ModelNotFound(DdpmError):
    """The checkpoint does not exist at its URI, or cannot be read."""

    reason, exit_code = "ModelNotFound", 2


class ModelRejected(DdpmError):
    """The checkpoint is damaged or unsafe, or does not match the network it is declared to be."""

    reason, exit_code = "ModelRejected", 2


class OutputConflict(DdpmError):
    """The output URI holds the samples of another job."""

    reason, exit_code = "OutputConflict", 2


class OutputInUse(OutputConflict):
    """Another driver is at work at the output URI."""


class Superseded(DdpmError):
    """Another driver has taken over the output URI; whole shards are stored."""

    reason, exit_code = "OutputConflict", 4


class StorageFailed(DdpmError):
    """The output URI cannot be read or written: full, read-only, forbidden or unreachable."""

    reason, exit_code = "StorageFailed", 4


class UnwritableOutput(StorageFailed):
    """The output URI cannot be written, which was found before anything was drawn."""

    exit_code = 2


class ResourcesUnavailable(DdpmError):
    """The Ray cluster, or what a worker needs of it, was not available in time."""

    reason, exit_code = "Unschedulable", 3


class OtherHardware(ResourcesUnavailable):
    """A worker is on other hardware than the job's identity, so that its samples would have other bits."""


class OutOfMemory(DdpmError):
    """A worker exceeded its memory."""

    reason, exit_code = "OutOfMemory", 4


class WorkerLost(DdpmError):
    """Workers died more often than they are retried, or the cluster went away."""

    reason, exit_code = "WorkerLost", 4


class Incomplete(DdpmError):
    """Some shards failed permanently; the others are stored."""

    reason, exit_code = "DriverFailed", 4


class Interrupted(DdpmError):
    """A signal of the user or the platform stopped the run; whole shards are stored."""

    reason, exit_code = "DriverFailed", 130


def shortened(text: str) -> str:
    """Returns another program's error message on one line, cut after a whole word at `MAX_CAUSE_LENGTH` characters."""
    return textwrap.shorten(text, MAX_CAUSE_LENGTH, placeholder=" …")
