"""Parses responses of Ray's dashboard. Pure.

A head runs users' code and may send anything. Only jobs with the ids that the operator submits are read.
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

# Key of N in the metadata of a job.
SAMPLES_KEY = "samples"
# Ray has token authentication since 2.52; before 2.54, requests without a token can stop jobs.
MIN_RAY_VERSION = (2, 54)
# An attempt has one job, and one more each time spec.samples is raised.
MAX_JOBS = 100
# Bytes of JSON. A character takes at most twelve, so this is enough for what `log_end` returns.
MAX_LOG_BYTES = 64 * 1024

_MAX_TAIL_LENGTH = 4096
_MAX_MESSAGE_LENGTH = 20_480
# A surrogate pair, such as \ud83d\ude00.
_MAX_ESCAPE_LENGTH = 12


class _JobDetails(BaseModel):
    """Ray's JobDetails of a job that was submitted over the Jobs API."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["SUBMISSION"]
    status: JobState
    submission_id: Annotated[str, Field(max_length=128)]
    message: str | None = None
    metadata: dict[str, str] | None = None

    def observed(self) -> RayJob:
        samples = (self.metadata or {}).get(SAMPLES_KEY, "")
        return RayJob(
            self.submission_id,
            self.status,
            samples=int(samples) if samples.isdecimal() and len(samples) < 16 else 0,
            message=(self.message or "")[-_MAX_MESSAGE_LENGTH:],
        )


class _Version(BaseModel):
    ray_version: Annotated[str, Field(max_length=64)]


class _Log(BaseModel):
    logs: str


_TEXT = TypeAdapter(str)


def own_jobs(body: bytes, cluster: str) -> tuple[RayJob, ...]:
    """Parses the list of jobs and returns the operator's own, in the order of submission, without logs.

    Args:
        body: response of Ray's Jobs API.
        cluster: name of the RayCluster, from which the ids of its jobs are derived.

    Raises:
        ValueError: if the body is not a list of jobs, or has more than `MAX_JOBS` of the operator's own.
    """
    listed = from_json(body)
    if not isinstance(listed, list):
        raise ValueError("it is not a list")
    jobs = [one for one in listed if isinstance(one, dict)]
    by_id = {name: one for one in jobs if isinstance(name := one.get("submission_id"), str)}
    own: list[RayJob] = []
    while (details := by_id.get(job_id(cluster, len(own) + 1))) is not None:
        if len(own) == MAX_JOBS:
            raise ValueError(f"it has more than {MAX_JOBS} jobs of {cluster}")
        try:
            own.append(_JobDetails.model_validate(details).observed())
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"]) from error
    return tuple(own)


def insecure_reason(version_body: bytes, status_without_token: int) -> str | None:
    """Checks that a head requires its token and that its Ray has no known vulnerabilities.

    A Ray without token authentication ignores the setting, starts, and accepts every request.

    Args:
        version_body: response to ``/api/version``.
        status_without_token: HTTP status of the response to a request without a token.

    Returns:
        why no job may be submitted to the head, as a clause; None if it is secure.

    Raises:
        ValueError: if the body is not Ray's version document.
    """
    try:
        version = _Version.model_validate_json(version_body).ray_version
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from error
    if _release(version) < MIN_RAY_VERSION:
        minimum = ".".join(map(str, MIN_RAY_VERSION))
        return f"the image has Ray {version}, which is older than {minimum} and has known vulnerabilities"
    if status_without_token != HTTPStatus.UNAUTHORIZED:
        return f"the image's Ray {version} accepts requests without a token ({status_without_token} instead of 401)"
    return None


def _release(version: str) -> tuple[int, int]:
    """Returns (2, 54) for ``2.54.0rc1``, and (0, 0) for text that is not a version."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def log_end(body: bytes) -> str:
    """Returns the last 4,096 characters of a job's log; "" if there is none.

    Args:
        body: Ray's JSON document with the log, or the last `MAX_LOG_BYTES` bytes of it.
    """
    try:
        return _Log.model_validate_json(body).logs[-_MAX_TAIL_LENGTH:]
    except ValidationError:
        tail = body.decode(errors="ignore").rstrip().removesuffix("}").rstrip()
    # The tail may begin in the middle of a JSON escape sequence.
    for first in range(min(_MAX_ESCAPE_LENGTH, len(tail))):
        try:
            return _TEXT.validate_json(f'"{tail[first:]}')[-_MAX_TAIL_LENGTH:]
        except ValidationError:
            continue
    return ""


def error_message(status: int, body: bytes) -> str:
    """Summarizes an error response. Ray sends whole tracebacks, whose last line names the error."""
    lines = printable(body.decode(errors="replace")).strip().splitlines()
    return f"Ray answered {status}: {lines[-1][:512] if lines else ''}"
