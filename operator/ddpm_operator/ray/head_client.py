"""The head of an attempt over HTTP: Ray's Jobs API, and what the driver says of itself.

A head runs what users bring, so nothing it answers is trusted: every answer has a longest time and a largest size,
nothing is unpacked, and no redirect is followed.
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
from ddpm_operator.ray.responses import MAX_LOG_BYTES, SAMPLES, log_end, objection_to, own_jobs, words
from ddpm_operator.reconcile.observed import HeadResponse, RayJob
from ddpm_operator.reconcile.progress_document import FailedOutcome, ProgressDocument, read_progress

JOBS_PORT = 8265
ENTRYPOINT = "ddpm-sample --json"
MAX_PREVIEW_BYTES = 48 * 1024

_ASK = aiohttp.ClientTimeout(total=5, connect=2)
# Ray's own patience with its agent, while that starts, is ten seconds.
_SUBMIT = aiohttp.ClientTimeout(total=15, connect=2)
# The driver runs on the head's own node alone; whoever ended that, the pod tells of it in a moment.
_NODE_DIED = "because its node has died"
_LARGEST_ANSWER = 1 << 20
# As much as comes from a pod in the few seconds that it has.
_LARGEST_LOG = 64 << 20


class HeadDidNotAnswer(Exception):
    """The head did not answer in time, or not in the form it should."""


class HeadClient:
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
    def of_pod(cls, session: aiohttp.ClientSession, ip: str, tokens: Tokens) -> HeadClient:
        """The head in a pod of this address."""
        host = f"http://[{ip}]" if ":" in ip else f"http://{ip}"
        return cls(session, f"{host}:{JOBS_PORT}", f"{host}:{PROGRESS_PORT}", tokens)

    async def ask(self, cluster: str) -> HeadResponse:
        """The operator's own jobs, then the driver's progress; of a last job that has failed the end of its log.

        However much a head lists, it is asked three things at most.

        Args:
            cluster: name of the attempt's RayCluster.

        Raises:
            HeadSilent: if the jobs cannot be listed, or Ray has given its own node up. A driver that does not
                answer has no progress.
        """
        jobs, progress = await self._jobs(cluster), await self._progress()
        if jobs and jobs[-1].state == "FAILED" and _NODE_DIED in jobs[-1].message and not progress:
            raise HeadDidNotAnswer("Ray says that the head's own node has died")
        gave_up = progress is not None and isinstance(progress.outcome, FailedOutcome)
        if jobs and (gave_up or jobs[-1].state == "FAILED"):
            *former, last = jobs
            jobs = (*former, replace(last, log=await self._log(last.id)))
        return HeadResponse(jobs, progress)

    async def objection(self) -> str | None:
        """Why nothing may be run on this head, in words; None if it asks for its token and has no known holes.

        Raises:
            HeadSilent: if it does not answer.
        """
        status, version = await self._get("version", self._tokens.ray)
        if status != HTTPStatus.OK:
            raise HeadDidNotAnswer(words(status, version))
        without_token, _ = await self._get("jobs/", None)
        try:
            return objection_to(version, without_token)
        except ValueError as error:
            raise HeadDidNotAnswer(f"the version is not what Ray answers: {error}") from error

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
                "runtime_env": {
                    "env_vars": {
                        "DDPM_JOB": json.dumps(document),
                        # It keeps its log beside the samples, under this name.
                        "DDPM_LOG": submission_id,
                        # The templates give head and workers one image, and one environment.
                        "DDPM_ONE_IMAGE": "1",
                    }
                },
                "metadata": {SAMPLES: str(samples)},
            },
        )
        if status != HTTPStatus.OK and b"already exists" not in body:
            raise HeadDidNotAnswer(words(status, body))

    async def grid(self) -> bytes | None:
        """A PNG of what is stored so far, at most 48 KiB; None while there is none.

        Raises:
            HeadSilent: if the driver does not answer.
        """
        status, body = await self._ask_driver("grid.png", MAX_PREVIEW_BYTES)
        return body if status == HTTPStatus.OK and body.startswith(b"\x89PNG") else None

    async def _jobs(self, cluster: str) -> tuple[RayJob, ...]:
        status, body = await self._jobs_api("GET", "")
        if status != HTTPStatus.OK:
            raise HeadDidNotAnswer(words(status, body))
        try:
            return own_jobs(body, cluster)
        except ValueError as error:
            raise HeadDidNotAnswer(f"the list of jobs is not what Ray answers: {error}") from error

    async def _progress(self) -> ProgressDocument | None:
        """None if there is no driver that says something it could have said."""
        try:
            status, body = await self._ask_driver("progress", _LARGEST_ANSWER)
            return read_progress(body) if status == HTTPStatus.OK else None
        except (HeadDidNotAnswer, ValidationError):
            return None

    async def _log(self, submission_id: str) -> str:
        """The end of a job's log; "" if it cannot be had, or is too long to be read through."""
        try:
            status, body = await self._jobs_api("GET", f"{submission_id}/logs", most=_LARGEST_LOG, kept=MAX_LOG_BYTES)
        except HeadDidNotAnswer:
            return ""
        return log_end(body) if status == HTTPStatus.OK else ""

    async def _jobs_api(
        self,
        method: str,
        path: str,
        body: dict[str, JsonValue] | None = None,
        most: int = _LARGEST_ANSWER,
        kept: int = _LARGEST_ANSWER,
    ) -> tuple[int, bytes]:
        url = f"{self._dashboard}/api/jobs/{path}"
        return await self._request(method, url, self._tokens.ray, body, most, kept)

    async def _get(self, path: str, token: str | None) -> tuple[int, bytes]:
        url = f"{self._dashboard}/api/{path}"
        return await self._request("GET", url, token, None, _LARGEST_ANSWER, _LARGEST_ANSWER)

    async def _ask_driver(self, path: str, most: int) -> tuple[int, bytes]:
        return await self._request("GET", f"{self._driver}/{path}", self._tokens.progress, None, most, most)

    async def _request(
        self, method: str, url: str, token: str | None, body: dict[str, JsonValue] | None, most: int, kept: int
    ) -> tuple[int, bytes]:
        try:
            async with self._session.request(
                method,
                url,
                json=body,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=_SUBMIT if body else _ASK,
                allow_redirects=False,
            ) as response:
                return response.status, await _read(response, most, kept)
        except TimeoutError as error:
            raise HeadDidNotAnswer(f"{url} did not answer in time") from error
        except aiohttp.ClientError as error:
            raise HeadDidNotAnswer(f"{url}: {error}") from error


def new_session() -> aiohttp.ClientSession:
    """A session for all heads, which does not unpack what they send."""
    return aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}, trust_env=False)


async def _read(response: aiohttp.ClientResponse, most: int, kept: int) -> bytes:
    """The last `kept` bytes of an answer that may be `most` long."""
    end = bytearray()
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > most:
            raise HeadDidNotAnswer(f"{response.url} answered with more than {most} bytes")
        end += chunk
        del end[:-kept]
    return bytes(end)
