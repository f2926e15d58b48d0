"""Uploads the driver's log beside its samples, so that it survives the pod.

Only for a run whose environment names the log (`LOG_VARIABLE`), and only if stdout is a file, as it is in a Ray job.
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
MAX_LOG_BYTES = 1 << 20
UPLOAD_INTERVAL_SECONDS = 60.0


@dataclass(frozen=True)
class LogUpload:
    """The log file and its destination.

    Attributes:
        file: the file that stdout and stderr are written to.
        uri: the output URI.
        name: name of the uploaded file below it.
    """

    file: Path
    uri: str
    name: str

    def upload(self) -> None:
        """Uploads the log as it is now, at most its last MiB. A failure is printed and does not end the run."""
        try:
            backend_for(self.uri).write(self.name, self._tail())
        except (DdpmError, OSError) as error:
            print(f"the log could not be uploaded: {error}", file=sys.stderr, flush=True)

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """Uploads the log at intervals until the block ends, because a process that is killed cannot do it."""
        finished = Event()

        def upload_repeatedly() -> None:
            while not finished.wait(UPLOAD_INTERVAL_SECONDS):
                self.upload()

        thread = Thread(target=upload_repeatedly, name="log-upload", daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()

    def _tail(self) -> bytes:
        with self.file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_LOG_BYTES))
            data = file.read(MAX_LOG_BYTES)
        return data if size <= MAX_LOG_BYTES else data.partition(b"\n")[2]


def log_upload(environment: Mapping[str, str]) -> LogUpload | None:
    """Returns the upload that the environment asks for; None if there is none, or the log is not a file."""
    name, file = environment.get(LOG_VARIABLE, ""), Path("/proc/self/fd/1")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name) or not file.is_file():
        return None
    try:
        job = Job.parse(environment.get(JOB_VARIABLE, ""), JOB_VARIABLE)
    except InvalidSpec:
        return None
    return LogUpload(file.resolve(), job.output.uri, f"logs/{name}.log")
