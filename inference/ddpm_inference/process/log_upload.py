"""The driver's own log, kept beside its samples, so that it outlives the machine that it was written on.

Only a run that is told to keeps it, and only if its stdout is a file, as that of a Ray job is.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from ddpm_inference.errors import DdpmError, InvalidSpec
from ddpm_inference.flags import JOB_VARIABLE
from ddpm_inference.job import Job
from ddpm_inference.store.uri import backend_for

LOG_VARIABLE = "DDPM_LOG"
LARGEST = 1 << 20
EVERY_SECONDS = 60.0


@dataclass(frozen=True)
class LogUpload:
    """Where the log lies, and where it is kept.

    Attributes:
        file: what stdout and stderr are written to.
        uri: of the output place.
        name: of the kept file in it.
    """

    file: Path
    uri: str
    name: str

    def keep(self) -> None:
        """Stores the log as it is now, at most its last MiB. That this fails is said, and harms nothing."""
        try:
            backend_for(self.uri).write(self.name, self._tail())
        except (DdpmError, OSError) as error:
            print(f"the log could not be kept: {error}", file=sys.stderr, flush=True)

    @contextmanager
    def kept_meanwhile(self) -> Iterator[None]:
        """Stores it again and again for the time of the block: whoever is killed cannot do so in the end."""
        over = Event()

        def again() -> None:
            while not over.wait(EVERY_SECONDS):
                self.keep()

        thread = Thread(target=again, name="kept-log", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()

    def _tail(self) -> bytes:
        with self.file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LARGEST))
            data = file.read(LARGEST)
        return data if size <= LARGEST else data.partition(b"\n")[2]


def log_upload(environment: Mapping[str, str]) -> LogUpload | None:
    """The log of the environment's job; None if it is not to be kept, or cannot be."""
    name, file = environment.get(LOG_VARIABLE, ""), Path("/proc/self/fd/1")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name) or not file.is_file():
        return None
    try:
        job = Job.parse(environment.get(JOB_VARIABLE, ""), JOB_VARIABLE)
    except InvalidSpec:
        return None
    return LogUpload(file.resolve(), job.output.uri, f"logs/{name}.log")
