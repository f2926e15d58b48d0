"""The head of an attempt over HTTP: Ray's Jobs API, and what the driver says of itself.

A head runs what users bring, so nothing it answers is trusted: every answer has a longest time and a largest size,
nothing is unpacked, and no redirect is followed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Literal

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ddpm_operator.api.model import JsonValue
from ddpm_operator.observed import Answer, Job, JobState
from ddpm_operator.progress_document import Broken, ProgressDocument, read_progress
from ddpm_operator.render import PROGRESS_PORT
from ddpm_operator.tokens import Tokens

JOBS_PORT = 8265
ENTRYPOINT = "ddpm-sample --json"
LARGEST_PREVIEW = 48 * 1024

_SAMPLES = "samples"
_ASK = aiohttp.ClientTimeout(total=5, connect=2)
# Ray's own patience with its agent, while that starts, is ten seconds.
_SUBMIT = aiohttp.ClientTimeout(total=15, connect=2)
_LARGEST_ANSWER = 1 << 20
_LARGEST_LOG = 4 << 20
_LONGEST_TAIL = 4096


class HeadSilent(Exception):
    """The head did not answer in time, or not in the form it should."""


class _Details(BaseModel):
    """Ray's JobDetails; a driver that nobody submitted is of another type and has no submission id."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["SUBMISSION", "DRIVER"]
    status: JobState
    submission_id: Annotated[str, Field(max_length=128)] | None = None
    message: str | None = None
    metadata: dict[str, str] | None = None


class _Log(BaseModel):
    logs: str


_JOBS = TypeAdapter(list[_Details])


class RayHead:
    """The head of one attempt.

    Args:
        session: as `new_session` makes it.
        dashboard, driver: where Ray's dashboard and the driver answer, without a slash at the end.
    """

    def __init__(self, session: aiohttp.ClientSession, dashboard: str, driver: str, tokens: Tokens) -> None:
        self._session = session
        self._dashboard = dashboard
        self._driver = driver
        self._tokens = tokens

    @classmethod
    def of_pod(cls, session: aiohttp.ClientSession, ip: str, tokens: Tokens) -> RayHead:
        """The head in a pod of this address."""
        host = f"http://[{ip}]" if ":" in ip else f"http://{ip}"
        return cls(session, f"{host}:{JOBS_PORT}", f"{host}:{PROGRESS_PORT}", tokens)

    async def ask(self) -> Answer:
        """The cluster's jobs, then the driver's progress.

        Raises:
            HeadSilent: if the jobs cannot be listed. A driver that does not answer has no progress.
        """
        jobs, progress = await self.jobs(), await self.progress()
        if progress and isinstance(progress.outcome, Broken):
            jobs = tuple([replace(one, log=one.log or await self._log(one.id)) for one in jobs])
        return Answer(jobs, progress)

    async def jobs(self) -> tuple[Job, ...]:
        """All jobs that were submitted to the cluster; of a failed one the end of its log as well.

        Raises:
            HeadSilent: if they cannot be listed.
        """
        status, body = await self._jobs_api("GET", "")
        if status != HTTPStatus.OK:
            raise HeadSilent(_words(status, body))
        try:
            listed = _JOBS.validate_json(body)
        except ValidationError as error:
            raise HeadSilent(f"the list of jobs is not what Ray answers: {error.errors()[0]['msg']}") from error
        return tuple([await self._job(one, one.submission_id) for one in listed if one.submission_id])

    async def submit(self, submission_id: str, document: dict[str, JsonValue], samples: int) -> None:
        """Submits the driver, or finds a job of this id there.

        Args:
            samples: N, which the job keeps in its metadata.

        Raises:
            HeadSilent: if it was not taken. Ray answers 500 while its agent starts: try the same id again.
        """
        status, body = await self._jobs_api(
            "POST",
            "",
            {
                "submission_id": submission_id,
                "entrypoint": ENTRYPOINT,
                # It keeps its log beside the samples, under this name.
                "runtime_env": {"env_vars": {"DDPM_JOB": json.dumps(document), "DDPM_LOG": submission_id}},
                "metadata": {_SAMPLES: str(samples)},
            },
        )
        if status != HTTPStatus.OK and b"already exists" not in body:
            raise HeadSilent(_words(status, body))

    async def progress(self) -> ProgressDocument | None:
        """What the driver says; None if there is no driver that says something it could have said."""
        try:
            status, body = await self._ask_driver("progress", _LARGEST_ANSWER)
            return read_progress(body) if status == HTTPStatus.OK else None
        except (HeadSilent, ValidationError):
            return None

    async def grid(self) -> bytes | None:
        """A PNG of what is stored so far, at most 48 KiB; None while there is none.

        Raises:
            HeadSilent: if the driver does not answer.
        """
        status, body = await self._ask_driver("grid.png", LARGEST_PREVIEW)
        return body if status == HTTPStatus.OK and body.startswith(b"\x89PNG") else None

    async def _job(self, details: _Details, submission_id: str) -> Job:
        samples = (details.metadata or {}).get(_SAMPLES, "")
        return Job(
            submission_id,
            details.status,
            samples=int(samples) if samples.isdecimal() and len(samples) < 16 else 0,
            message=(details.message or "")[-20_480:],
            log=await self._log(submission_id) if details.status == "FAILED" else "",
        )

    async def _log(self, submission_id: str) -> str:
        """The end of a job's log; "" if it cannot be had, or is too long to be fetched."""
        try:
            status, body = await self._jobs_api("GET", f"{submission_id}/logs", most=_LARGEST_LOG)
            return _Log.model_validate_json(body).logs[-_LONGEST_TAIL:] if status == HTTPStatus.OK else ""
        except (HeadSilent, ValidationError):
            return ""

    async def _jobs_api(
        self, method: str, path: str, body: dict[str, JsonValue] | None = None, most: int = _LARGEST_ANSWER
    ) -> tuple[int, bytes]:
        return await self._request(method, f"{self._dashboard}/api/jobs/{path}", self._tokens.ray, body, most)

    async def _ask_driver(self, path: str, most: int) -> tuple[int, bytes]:
        return await self._request("GET", f"{self._driver}/{path}", self._tokens.progress, None, most)

    async def _request(
        self, method: str, url: str, token: str, body: dict[str, JsonValue] | None, most: int
    ) -> tuple[int, bytes]:
        try:
            async with self._session.request(
                method,
                url,
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                timeout=_SUBMIT if body else _ASK,
                allow_redirects=False,
            ) as response:
                return response.status, await _read(response, most)
        except TimeoutError as error:
            raise HeadSilent(f"{url} did not answer in time") from error
        except aiohttp.ClientError as error:
            raise HeadSilent(f"{url}: {error}") from error


def new_session() -> aiohttp.ClientSession:
    """A session for all heads, which does not unpack what they send."""
    return aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}, trust_env=False)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > most:
            raise HeadSilent(f"{response.url} answered with more than {most} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _words(status: int, body: bytes) -> str:
    """An answer that is no success, short; Ray sends whole tracebacks, whose last line says what it was."""
    lines = body.decode(errors="replace").strip().splitlines()
    return f"Ray answered {status}: {lines[-1][:512] if lines else ''}"
