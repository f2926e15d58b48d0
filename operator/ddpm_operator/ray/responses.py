"""What Ray's dashboard answers, out of bytes that nobody trusts. Pure.

A head runs what users bring, and lists what it likes: only jobs that the operator has submitted are looked at.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from ddpm_operator.manifests.naming import job_id
from ddpm_operator.reconcile.observed import JobState, RayJob
from ddpm_operator.text import printable

SAMPLES = "samples"
# Ray has tokens since 2.52, and before this release lets requests without one stop what runs.
OLDEST_RAY = (2, 54)
# A driver is submitted once, and once more for every growth of its sampling.
MAX_JOBS = 100
# Bytes of JSON, in which a letter may take twelve: enough for all that `log_end` gives.
MAX_LOG_BYTES = 64 * 1024

_LONGEST_TAIL = 4096
_LONGEST_MESSAGE = 20_480
# Two halves of a letter beyond 16 bits, such as \ud83d\ude00.
_LONGEST_ESCAPE = 12


class _Details(BaseModel):
    """Ray's JobDetails of a job that was submitted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["SUBMISSION"]
    status: JobState
    submission_id: Annotated[str, Field(max_length=128)]
    message: str | None = None
    metadata: dict[str, str] | None = None

    def fact(self) -> RayJob:
        samples = (self.metadata or {}).get(SAMPLES, "")
        return RayJob(
            self.submission_id,
            self.status,
            samples=int(samples) if samples.isdecimal() and len(samples) < 16 else 0,
            message=(self.message or "")[-_LONGEST_MESSAGE:],
        )


class _Version(BaseModel):
    ray_version: Annotated[str, Field(max_length=64)]


class _Log(BaseModel):
    logs: str


_TEXT = TypeAdapter(str)


def own_jobs(body: bytes, cluster: str) -> tuple[RayJob, ...]:
    """The operator's own among the jobs that a head lists, by their number; without logs.

    Args:
        cluster: name of the RayCluster, from which the ids of its jobs follow.

    Raises:
        ValueError: if it is no such list, or has more than `MOST_JOBS` of them.
    """
    listed = from_json(body)
    if not isinstance(listed, list):
        raise ValueError("it is no list")
    jobs = [one for one in listed if isinstance(one, dict)]
    by_id = {name: one for one in jobs if isinstance(name := one.get("submission_id"), str)}
    found: list[RayJob] = []
    while (details := by_id.get(job_id(cluster, len(found) + 1))) is not None:
        if len(found) == MAX_JOBS:
            raise ValueError(f"it has more than {MAX_JOBS} jobs of {cluster}")
        try:
            found.append(_Details.model_validate(details).fact())
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"]) from error
    return tuple(found)


def objection_to(version: bytes, without_token: int) -> str | None:
    """Why nothing may be run on a head, in words; None if it asks for its token and has no known holes.

    A Ray that knows no tokens starts all the same, and lets in whoever reaches it.

    Args:
        version: Ray's document of its version.
        without_token: the status that a request without a token is answered with.

    Raises:
        ValueError: if it is no such document.
    """
    try:
        said = _Version.model_validate_json(version).ray_version
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from error
    if _release(said) < OLDEST_RAY:
        oldest = ".".join(map(str, OLDEST_RAY))
        return f"the image has Ray {said}, which is older than {oldest} and has known holes"
    if without_token != HTTPStatus.UNAUTHORIZED:
        return f"the image's Ray {said} answers whoever asks without the token ({without_token} instead of 401)"
    return None


def _release(version: str) -> tuple[int, int]:
    """(2, 54) of ``2.54.0rc1``; (0, 0) of what is no version."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def log_end(body: bytes) -> str:
    """The end of a job's log, at most 4 KiB; "" if there is none.

    Args:
        body: Ray's document, or its last `KEPT_OF_LOG` bytes.
    """
    try:
        return _Log.model_validate_json(body).logs[-_LONGEST_TAIL:]
    except ValidationError:
        inside = body.decode(errors="ignore").rstrip().removesuffix("}").rstrip()
    # It may begin in the middle of an escape.
    for first in range(min(_LONGEST_ESCAPE, len(inside))):
        try:
            return _TEXT.validate_json(f'"{inside[first:]}')[-_LONGEST_TAIL:]
        except ValidationError:
            continue
    return ""


def words(status: int, body: bytes) -> str:
    """A refusal, short; Ray sends whole tracebacks, whose last line says what it was."""
    lines = printable(body.decode(errors="replace")).strip().splitlines()
    return f"Ray answered {status}: {lines[-1][:512] if lines else ''}"
