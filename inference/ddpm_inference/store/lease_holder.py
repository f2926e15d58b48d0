"""The holder of a lease: what a driver writes about itself, and whether its process is known to have ended.

`lease` stores the record. It may be written by another version of this program or by another user, so it is read with
limits, and nothing in it is trusted beyond the question of who holds the place.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

ATTEMPT_VARIABLE = "DDPM_ATTEMPT"
MAX_HOLDER_BYTES = 4096

Line = Annotated[str, Field(max_length=255, pattern=r"^[ -~]*$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]

_PROC_SELF = Path("/proc/self")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_TIME_FIELD = 22  # of /proc/<pid>/stat, counted from 1
_ENDED_STATES = frozenset("ZX")


@dataclass(frozen=True)
class Attempt:
    """The attempt of a DDPMSampling that a driver belongs to.

    Attributes:
        uid: of the resource.
        number: counts its attempts from 1.
    """

    uid: str
    number: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Attempt | None:
        """Returns the attempt in `ATTEMPT_VARIABLE` (``uid/number``); None if there is none, or it is invalid.

        Older operators do not set the variable; their drivers take over like any other, once the holder is dead.
        """
        uid, _, number = environment.get(ATTEMPT_VARIABLE, "").partition("/")
        if not uid.isascii() or not uid.isprintable() or not 0 < len(uid) <= 255 or not number.isdecimal():
            return None
        return cls(uid, int(number)) if len(number) < 10 else None


class Holder(BaseModel):
    """One driver that holds, or held, a place.

    Attributes:
        token: random; no two drivers have the same.
        host: its host name, for messages.
        pid: in its own PID namespace.
        kernel: identifies the boot of the kernel and the namespaces that `pid` and `started` are counted in; empty if
            unknown.
        started: start time of the process in clock ticks since boot; 0 if unknown.
        since: when the driver took the place, by its own clock; for messages only.
        uid: of the DDPMSampling that it works for; empty if there is none.
        attempt: the number of the attempt.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    host: Line
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    kernel: Line = ""
    started: Count = 0
    since: Line
    uid: Line = ""
    attempt: Count = 0

    @classmethod
    def of_this_process(cls, attempt: Attempt | None) -> Holder:
        """Describes this process, with a new token."""
        pid = os.getpid()
        stat = _process_stat(pid)
        return cls(
            token=secrets.token_hex(16),
            host=_printable(socket.gethostname()),
            pid=pid,
            kernel=_kernel(),
            started=stat.started if stat else 0,
            since=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
            uid=attempt.uid if attempt else "",
            attempt=attempt.number if attempt else 0,
        )

    @classmethod
    def parse(cls, data: bytes) -> Holder | None:
        """Returns the holder, or None if the record is invalid, as one is that is being written."""
        if len(data) > MAX_HOLDER_BYTES:
            return None
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            return None

    def to_json(self) -> bytes:
        return (self.model_dump_json(indent=1) + "\n").encode()

    @property
    def description(self) -> str:
        """Names the process, its host, its attempt and its time, for messages."""
        of_attempt = f", attempt {self.attempt} of the sampling {self.uid}" if self.uid else ""
        return f"process {self.pid} on {self.host}{of_attempt}, since {self.since}"

    def is_newer_attempt(self, other: Holder) -> bool:
        """Whether both work for the same DDPMSampling, and this one for a later attempt."""
        return self.uid != "" and self.uid == other.uid and self.attempt > other.attempt

    def has_ended(self) -> bool:
        """Whether its process is known to have ended. False if that cannot be known from here.

        A PID says something only in its own PID namespace, and a start time only in its own time namespace. Containers
        may share a host name, so the boot of the kernel and both namespaces must be those of this process.
        """
        if not self.kernel or not self.started or self.kernel != _kernel():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # The process exists, and belongs to another user.
        stat = _process_stat(self.pid)
        return stat is not None and (stat.started != self.started or stat.state in _ENDED_STATES)


@dataclass(frozen=True)
class _ProcessStat:
    """State letter of a process, and its start time in clock ticks since boot."""

    state: str
    started: int


def _process_stat(pid: int) -> _ProcessStat | None:
    """Reads ``/proc/<pid>/stat``; None if there is no such file, as where /proc hides the processes of other users."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    # The name of the program, in parentheses, may contain anything.
    fields = text.rpartition(")")[2].split()
    try:
        return _ProcessStat(fields[0], int(fields[_START_TIME_FIELD - 3]))
    except (IndexError, ValueError):
        return None


def _kernel() -> str:
    """Returns what PIDs and start times of this process are relative to; empty where it cannot be determined."""
    try:
        if str(_PROC_SELF.readlink()) != str(os.getpid()):
            return ""  # This /proc belongs to another PID namespace.
        namespaces = [str((_PROC_SELF / "ns" / kind).readlink()) for kind in ("pid", "time")]
        parts = [_BOOT_ID.read_text().strip(), *namespaces]
    except OSError:
        return ""
    return _printable(" ".join([*parts, socket.gethostname()])) if all(parts) else ""


def _printable(text: str) -> str:
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)[:255]
