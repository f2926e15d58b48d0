"""The operator's asynchronous client of the Kubernetes API. Objects are plain JSON documents."""

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

# Seconds for one request, or for one page of a list.
REQUEST_TIMEOUT = 20.0
# Objects per page of a list. Users can make each object a megabyte large, so only one page is in memory at a time.
PAGE_SIZE = 50
FIRST_RETRY_DELAY, MAX_RETRY_DELAY = 0.5, 8.0

OnResponse = Callable[[Method, int], object]
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """A request to the API server that failed or got no response.

    Args:
        status: the HTTP status; 0 without a response.
        reason: Kubernetes' reason, such as AlreadyExists.
        message: Kubernetes' message.
        resource: plural of the resource that the error is about, such as `namespaces`; "" if unknown.
    """

    def __init__(self, status: int, reason: str, message: str, resource: str = "") -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.resource = resource

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later: no response, 429 or 5xx."""
        return self.status in (0, HTTPStatus.TOO_MANY_REQUESTS) or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR


async def retry_until(deadline: float, request: Callable[[], Awaitable[Result]]) -> Result:
    """Retries a request with exponential backoff while it fails with a transient error.

    Args:
        deadline: time of the event loop after which no retry starts.

    Raises:
        ApiError: the last error.
    """
    delay = FIRST_RETRY_DELAY
    while True:
        try:
            return await request()
        except ApiError as error:
            if not error.is_transient or asyncio.get_running_loop().time() + delay > deadline:
                raise
            logger.warning("the API server is unavailable, retrying in %.1f s: %s", delay, error)
        await asyncio.sleep(delay)
        delay = min(2 * delay, MAX_RETRY_DELAY)


class KubeApi:
    """Requests to one API server.

    Args:
        client: as `connect` configures it.
        on_response: called after every request with its method and HTTP status; 0 without a response.
    """

    def __init__(self, client: ApiClient, on_response: OnResponse = lambda method, status: None) -> None:
        self._client = client
        self._on_response = on_response

    async def get(self, path: str) -> Document:
        """Reads one object.

        Raises:
            ApiError: if the request fails. So do all other methods.
        """
        return await self._request("GET", path)

    async def list(self, path: str, selector: str) -> AsyncIterator[Document]:
        """Yields every object of a collection that matches the label selector, with one page in memory at a time."""
        query = {"labelSelector": selector, "limit": str(PAGE_SIZE)}
        while True:
            page = await self._request("GET", path, query)
            items, metadata = page.pop("items", None), page.get("metadata")
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict):
                    yield item
            del items  # before the next page arrives
            token = metadata.get("continue") if isinstance(metadata, dict) else None
            if not isinstance(token, str) or not token:
                return
            query = query | {"continue": token}

    async def create(self, path: str, manifest: Document) -> Document:
        """Creates an object. An unknown field in the manifest is an error."""
        return await self._request("POST", path, {"fieldValidation": "Strict"}, manifest)

    async def apply(self, path: str, manifest: Document, manager: str, *, force: bool) -> Document:
        """Server-side applies a manifest.

        Args:
            manager: the field manager.
            force: takes over fields that another field manager owns.
        """
        query = {"fieldManager": manager, "fieldValidation": "Strict", "force": str(force).lower()}
        return await self._request("PATCH", path, query, manifest, APPLY)

    async def delete(self, path: str, preconditions: Mapping[str, str]) -> Document:
        """Deletes one object; the garbage collector deletes its dependents in the background.

        Args:
            preconditions: `uid`, and `resourceVersion` if only that version should be deleted.
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
            self._on_response(method, 0)
            raise ApiError(0, "Timeout", f"the API server did not answer within {REQUEST_TIMEOUT:g} s") from error
        except (aiohttp.ClientError, ApiException, OSError) as error:
            self._on_response(method, 0)
            raise ApiError(0, "Unreachable", str(error)) from error
        self._on_response(method, response.status)
        parsed = parse_response(response.status, text)
        if isinstance(parsed, ErrorResponse):
            raise ApiError(parsed.status, parsed.reason, parsed.message, parsed.resource)
        return parsed


@asynccontextmanager
async def connect(on_response: OnResponse) -> AsyncIterator[KubeApi]:
    """Yields a client with the pod's ServiceAccount; outside a pod, with the current context of the kubeconfig."""
    configuration = Configuration()
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    async with ApiClient(configuration) as client:
        yield KubeApi(client, on_response)
