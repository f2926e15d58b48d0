"""The Kubernetes API as the operator uses it: requests with plain documents, and errors that say what they are."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TypeVar

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, ApiException, Configuration

from ddpm_operator.kube.responses import APPLY, JSON, Document, ErrorResponse, Method, headers, parse_response

# Seconds, also of one page of a list.
REQUEST_TIMEOUT = 20.0
# Objects at a time. What a namespace's users put into each may be a megabyte, which only the page at hand keeps.
PAGE = 50
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0

Counted = Callable[[Method, int], object]
Found = TypeVar("Found")

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """A request that the API server refused, or that did not reach it.

    Args:
        status: of HTTP; 0 if there was no answer.
        reason: Kubernetes' own word for it, such as AlreadyExists.
        message: its sentence.
        kind: what it is about, as far as it says so: a plural such as `namespaces`.
    """

    def __init__(self, status: int, reason: str, message: str, kind: str = "") -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.kind = kind

    @property
    def away(self) -> bool:
        """The server did not answer, or not with a word on the matter: the same request may get one later."""
        return self.status in (0, HTTPStatus.TOO_MANY_REQUESTS) or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR


async def patiently(ask: Callable[[], Awaitable[Found]], until: float) -> Found:
    """Asks again, ever later, as long as the API server is away.

    Args:
        until: the time of the event loop after which there is no other try.

    Raises:
        ApiError: the last one.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            return await ask()
        except ApiError as error:
            if not error.away or asyncio.get_running_loop().time() + pause > until:
                raise
            logger.warning("the API server is away, and is asked again in %.1f s: %s", pause, error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


class KubeApi:
    """One API server.

    Args:
        client: connected as `connected` does it.
        counted: is told of every request, and of the status of HTTP that came of it; 0 if there was no answer.
    """

    def __init__(self, client: ApiClient, counted: Counted = lambda method, status: None) -> None:
        self._client = client
        self._counted = counted

    async def get(self, path: str) -> Document:
        """Reads one object.

        Raises:
            ApiError: as every method here.
        """
        return await self._request("GET", path)

    async def list(self, path: str, selector: str) -> AsyncIterator[Document]:
        """Every object below a path that has the labels; no more of them are held than a page."""
        query = {"labelSelector": selector, "limit": str(PAGE)}
        while True:
            page = await self._request("GET", path, query)
            found, metadata = page.pop("items", None), page.get("metadata")
            for item in found if isinstance(found, list) else ():
                if isinstance(item, dict):
                    yield item
            del found
            further = metadata.get("continue") if isinstance(metadata, dict) else None
            if not isinstance(further, str) or not further:
                return
            query = query | {"continue": further}

    async def create(self, path: str, manifest: Document) -> Document:
        """Creates an object; a field that the API does not know is an error."""
        return await self._request("POST", path, {"fieldValidation": "Strict"}, manifest)

    async def apply(self, path: str, manifest: Document, manager: str, *, force: bool) -> Document:
        """Server-side apply.

        Args:
            force: fields that somebody else has set are taken over.
        """
        query = {"fieldManager": manager, "fieldValidation": "Strict", "force": str(force).lower()}
        return await self._request("PATCH", path, query, manifest, APPLY)

    async def delete(self, path: str, preconditions: Mapping[str, str]) -> Document:
        """Deletes one object and, behind it, what it owns.

        Args:
            preconditions: its uid, and its resourceVersion where that matters.
        """
        options: Document = {"preconditions": {**preconditions}, "propagationPolicy": "Background"}
        return await self._request("DELETE", path, None, options)

    async def _request(
        self,
        method: Method,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Document | None = None,
        content_type: str = JSON,
    ) -> Document:
        try:
            request = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers(content_type),
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(
                *request, _request_timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
            )
            text: bytes = await response.read()  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            self._counted(method, 0)
            raise ApiError(0, "Timeout", f"the API server did not answer within {REQUEST_TIMEOUT:g} s") from error
        except (aiohttp.ClientError, ApiException, OSError) as error:
            self._counted(method, 0)
            raise ApiError(0, "Unreachable", str(error)) from error
        self._counted(method, response.status)
        answer = parse_response(response.status, text)
        if isinstance(answer, ErrorResponse):
            raise ApiError(answer.status, answer.reason, answer.message, answer.kind)
        return answer


@asynccontextmanager
async def connected(counted: Counted) -> AsyncIterator[KubeApi]:
    """The API server of the pod's ServiceAccount; outside a pod, the one that kubectl talks to."""
    configuration = Configuration()
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    async with ApiClient(configuration) as client:
        yield KubeApi(client, counted)
