"""HTTP client of an attempt's Ray head: Ray's Jobs API, and the driver's progress server.

The controller polls the head with it before a reconcile, and the executor submits the driver with it. A head runs
users' code, so its responses are not trusted: every response has a time limit and a size limit, nothing is
decompressed, and redirects are not followed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from http import HTTPStatus

import aiohttp
from pydantic import ValidationError

from ddpm_operator.api.model import JsonValue
from ddpm_operator.manifests.render import PROGRESS_PORT
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.ray.responses import MAX_LOG_BYTES, SAMPLES_KEY, error_message, insecure_reason, log_end, own_jobs
from ddpm_operator.reconcile.observed import HeadResponse, RayJob
from ddpm_operator.reconcile.preview import MAX_PREVIEW_BYTES
from ddpm_operator.reconcile.progress_document import FailedOutcome, ProgressDocument, read_progress

JOBS_PORT = 8265
ENTRYPOINT = "ddpm-sample --json"

_READ_TIMEOUT = aiohttp.ClientTimeout(total=5, connect=2)
# Ray itself waits up to ten seconds for its job agent to start.
_SUBMIT_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=2)
# The driver runs only on the head's own node. If Ray gives that node up, the pod's status soon says why.
_NODE_DIED_MESSAGE = "because its node has died"
_MAX_RESPONSE_BYTES = 1 << 20
# About as much as a pod can send within _READ_TIMEOUT.
_MAX_LOG_DOWNLOAD_BYTES = 64 << 20


class HeadDidNotAnswer(Exception):
    """The head did not answer in time, or not with a valid response."""


class HeadClient:
    """A client of the Ray head of one attempt.

    Args:
        session: as `new_session` creates it.
        dashboard: base URL of Ray's dashboard, without a trailing slash.
        driver: base URL of the driver's progress server, without a trailing slash.
        tokens: the attempt's tokens for both.
    """

    def __init__(self, session: aiohttp.ClientSession, dashboard: str, driver: str, tokens: Tokens) -> None:
        self._session = session
        self._dashboard = dashboard
        self._driver = driver
        self._tokens = tokens

    @classmethod
    def for_pod(cls, session: aiohttp.ClientSession, ip: str, tokens: Tokens) -> HeadClient:
        """Creates a client of the head pod with this IPv4 or IPv6 address."""
        host = f"http://[{ip}]" if ":" in ip else f"http://{ip}"
        return cls(session, f"{host}:{JOBS_PORT}", f"{host}:{PROGRESS_PORT}", tokens)

    async def poll(self, cluster: str) -> HeadResponse:
        """Fetches the operator's own jobs, then the driver's progress, then the log of a last job that has failed.

        Sends at most three requests, however many jobs the head lists.

        Args:
            cluster: name of the attempt's RayCluster.

        Returns:
            the response; its progress is None if the driver does not answer.

        Raises:
            HeadDidNotAnswer: if the jobs cannot be listed, or Ray has declared the head's own node dead.
        """
        jobs, progress = await self._jobs(cluster), await self._progress()
        if jobs and jobs[-1].state == "FAILED" and _NODE_DIED_MESSAGE in jobs[-1].message and not progress:
            raise HeadDidNotAnswer("Ray reports that the head's own node has died")
        driver_failed = progress is not None and isinstance(progress.outcome, FailedOutcome)
        if jobs and (driver_failed or jobs[-1].state == "FAILED"):
            *earlier, last = jobs
            jobs = (*earlier, replace(last, log=await self._log(last.id)))
        return HeadResponse(jobs, progress)

    async def insecure_reason(self) -> str | None:
        """Checks that the head requires its token and that its Ray has no known vulnerabilities.

        Returns:
            why no job may be submitted to it, as a clause; None if it is secure.

        Raises:
            HeadDidNotAnswer: if the head does not answer.
        """
        status, version = await self._get("version", self._tokens.ray)
        if status != HTTPStatus.OK:
            raise HeadDidNotAnswer(error_message(status, version))
        status_without_token, _ = await self._get("jobs/", None)
        try:
            return insecure_reason(version, status_without_token)
        except ValueError as error:
            raise HeadDidNotAnswer(f"the version is not a valid response of Ray: {error}") from error

    async def submit(self, submission_id: str, document: dict[str, JsonValue], samples: int, attempt: str = "") -> None:
        """Submits the driver as a Ray job. Succeeds if a job with this id exists already.

        Args:
            document: the job document for the driver.
            samples: N, stored in the job's metadata.
            attempt: ``uid/number``, by which the driver supersedes those of earlier attempts at its output.

        Raises:
            HeadDidNotAnswer: if Ray did not accept the job. It answers 500 while its job agent starts: retry with
                the same id.
        """
        status, body = await self._jobs_api(
            "POST",
            "",
            {
                "submission_id": submission_id,
                "entrypoint": ENTRYPOINT,
                "runtime_env": {
                    "env_vars": {
                        "DDPM_JOB": json.dumps(document),
                        # The driver stores its log beside the samples under this name.
                        "DDPM_LOG": submission_id,
                        # The templates give head and workers the same image, so the driver need not compare packages.
                        "DDPM_ONE_IMAGE": "1",
                        # Not in the document: drivers of older images, which a resource may name, reject other fields.
                        "DDPM_ATTEMPT": attempt,
                    }
                },
                "metadata": {SAMPLES_KEY: str(samples)},
            },
        )
        if status != HTTPStatus.OK and b"already exists" not in body:
            raise HeadDidNotAnswer(error_message(status, body))

    async def fetch_preview(self) -> bytes | None:
        """Fetches the PNG grid of the samples stored so far; None while there is none.

        Raises:
            HeadDidNotAnswer: if the driver does not answer, or the PNG is larger than MAX_PREVIEW_BYTES.
        """
        status, body = await self._get_from_driver("grid.png", MAX_PREVIEW_BYTES)
        return body if status == HTTPStatus.OK and body.startswith(b"\x89PNG") else None

    async def _jobs(self, cluster: str) -> tuple[RayJob, ...]:
        status, body = await self._jobs_api("GET", "")
        if status != HTTPStatus.OK:
            raise HeadDidNotAnswer(error_message(status, body))
        try:
            return own_jobs(body, cluster)
        except ValueError as error:
            raise HeadDidNotAnswer(f"the list of jobs is not a valid response of Ray: {error}") from error

    async def _progress(self) -> ProgressDocument | None:
        """Returns None if no driver serves a valid progress document."""
        try:
            status, body = await self._get_from_driver("progress", _MAX_RESPONSE_BYTES)
            return read_progress(body) if status == HTTPStatus.OK else None
        except (HeadDidNotAnswer, ValidationError):
            return None

    async def _log(self, submission_id: str) -> str:
        """Fetches the end of a job's log; "" if that fails, or the log is too long to download."""
        try:
            status, body = await self._jobs_api(
                "GET", f"{submission_id}/logs", max_bytes=_MAX_LOG_DOWNLOAD_BYTES, tail_bytes=MAX_LOG_BYTES
            )
        except HeadDidNotAnswer:
            return ""
        return log_end(body) if status == HTTPStatus.OK else ""

    async def _jobs_api(
        self,
        method: str,
        path: str,
        body: dict[str, JsonValue] | None = None,
        max_bytes: int = _MAX_RESPONSE_BYTES,
        tail_bytes: int = _MAX_RESPONSE_BYTES,
    ) -> tuple[int, bytes]:
        url = f"{self._dashboard}/api/jobs/{path}"
        return await self._request(method, url, self._tokens.ray, body, max_bytes, tail_bytes)

    async def _get(self, path: str, token: str | None) -> tuple[int, bytes]:
        url = f"{self._dashboard}/api/{path}"
        return await self._request("GET", url, token, None, _MAX_RESPONSE_BYTES, _MAX_RESPONSE_BYTES)

    async def _get_from_driver(self, path: str, max_bytes: int) -> tuple[int, bytes]:
        url = f"{self._driver}/{path}"
        return await self._request("GET", url, self._tokens.progress, None, max_bytes, max_bytes)

    async def _request(
        self,
        method: str,
        url: str,
        token: str | None,
        body: dict[str, JsonValue] | None,
        max_bytes: int,
        tail_bytes: int,
    ) -> tuple[int, bytes]:
        try:
            async with self._session.request(
                method,
                url,
                json=body,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=_SUBMIT_TIMEOUT if body else _READ_TIMEOUT,
                allow_redirects=False,
            ) as response:
                return response.status, await _read_tail(response, max_bytes, tail_bytes)
        except TimeoutError as error:
            raise HeadDidNotAnswer(f"{url} did not answer in time") from error
        except aiohttp.ClientError as error:
            raise HeadDidNotAnswer(f"{url}: {error}") from error


def new_session() -> aiohttp.ClientSession:
    """Creates the session for all heads. It neither requests nor decompresses compressed responses."""
    return aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}, trust_env=False)


async def _read_tail(response: aiohttp.ClientResponse, max_bytes: int, tail_bytes: int) -> bytes:
    """Returns the last `tail_bytes` bytes of a response.

    Raises:
        HeadDidNotAnswer: if the response is longer than `max_bytes`.
    """
    tail = bytearray()
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > max_bytes:
            raise HeadDidNotAnswer(f"{response.url} answered with more than {max_bytes} bytes")
        tail += chunk
        del tail[:-tail_bytes]
    return bytes(tail)
