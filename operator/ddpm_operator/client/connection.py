"""The connection to the API server of the user's kubeconfig: JSON requests, watches, and commands in pods.

It turns every error response and network error into a `ClientError` with a hint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

import urllib3
import websocket
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.stream.ws_client import create_websocket, get_websocket_url

from ddpm_operator.client.errors import ClientError, Conflict, NotAllowed, NotFound, RequestRejected, Unreachable
from ddpm_operator.client.remote_command import RemoteCommand
from ddpm_operator.kube.responses import JSON, Document, ErrorResponse, Method, headers, parse_response

_CONNECT_TIMEOUT, _READ_TIMEOUT, _WATCH_SECONDS = 5.0, 30.0, 60.0
_CHECK_CLUSTER = "check `kubectl cluster-info` and --context"


@dataclass(frozen=True)
class Connection:
    """A connection to one API server, with the rights of one user. Every method raises ClientError.

    Attributes:
        namespace: the default namespace.
    """

    api: ApiClient
    namespace: str

    @classmethod
    def open(cls, namespace: str | None = None, context: str | None = None) -> Self:
        """Loads KUBECONFIG or ~/.kube/config as kubectl does; the namespace defaults to that of the context.

        Sends no request.

        Raises:
            Unreachable: if the file or the context does not exist.
        """
        try:
            contexts, current = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
            chosen = next((it for it in contexts if it["name"] == context), current) if context else current
            if context and chosen["name"] != context:
                raise ConfigException(f"there is no context {context}")
            api = config.new_client_from_config(context=context)  # type: ignore[no-untyped-call]
        except (ConfigException, yaml.YAMLError, OSError) as error:
            raise Unreachable(
                f"cannot load the kubeconfig: {error}", "set KUBECONFIG, or check `kubectl config get-contexts`"
            ) from error
        return cls(api, namespace or chosen["context"].get("namespace") or "default")

    def request(
        self,
        method: Method,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Document | None = None,
        content_type: str = JSON,
    ) -> Document:
        """Sends a request and returns the response document."""
        response = self._send(method, path, query, body, content_type, _READ_TIMEOUT)
        try:
            return _parse(response.status, response.data)
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(error) from error

    def watch(self, path: str, name: str, max_seconds: float | None = None) -> Iterator[Document | None]:
        """Yields an object as it is now, and again after every change; None while it does not exist.

        Args:
            path: of the object's collection.
            max_seconds: ends the watch after about this time; None: it never ends by itself.
        """
        deadline = None if max_seconds is None else time.monotonic() + max_seconds
        selector = {"fieldSelector": f"metadata.name={name}"}
        yielded_version: str | None = None
        while True:
            listed = self.request("GET", path, selector)
            items = listed["items"]
            first = items[0] if isinstance(items, list) and items else None
            current = first if isinstance(first, dict) else None
            if yielded_version is None or resource_version(current) != yielded_version:
                yield current
            yielded_version = resource_version(current)
            remaining = _WATCH_SECONDS if deadline is None else min(_WATCH_SECONDS, deadline - time.monotonic())
            if remaining <= 0:
                return
            query = selector | {
                "resourceVersion": resource_version(listed),
                "timeoutSeconds": str(int(remaining) + 1),
            }
            for changed in self._watch_events(path, query):
                yield changed
                yielded_version = resource_version(changed)

    @contextmanager
    def running(
        self,
        path: str,
        container: str,
        command: Sequence[str],
        silence_timeout: float | None,
        *,
        takes_input: bool = False,
    ) -> Iterator[RemoteCommand]:
        """Runs a command in a pod for the duration of the block.

        Args:
            path: of the pod.
            silence_timeout: seconds without reading or writing after which the connection counts as lost; None: never.
        """
        stdin = [("stdin", "true")] if takes_input else []
        query = [("container", container), ("stdout", "true"), ("stderr", "true"), *stdin]
        request = self.api.param_serialize(
            "GET",
            f"{path}/exec",
            query_params=query + [("command", argument) for argument in command],
            auth_settings=["BearerToken"],
        )
        try:
            url = get_websocket_url(request[1])  # type: ignore[no-untyped-call]
            socket: websocket.WebSocket = create_websocket(self.api.configuration, url, request[2])  # type: ignore[no-untyped-call]
        except websocket.WebSocketBadStatusException as error:
            _parse(error.status_code, error.resp_body or b"")
            raise _unreachable(error) from error
        except (websocket.WebSocketException, OSError) as error:
            raise _unreachable(error) from error
        try:
            socket.settimeout(silence_timeout)
            yield RemoteCommand(socket)
        finally:
            socket.close()

    def _watch_events(self, path: str, query: Mapping[str, str]) -> Iterator[Document | None]:
        """Yields the changed objects of one watch request until it ends; None for a deleted one.

        A watch ends regularly, by timeout or with an expired resourceVersion. The caller then lists again, which
        covers what was missed.
        """
        response = self._send("GET", path, {**query, "watch": "true"}, None, JSON, _WATCH_SECONDS + _READ_TIMEOUT)
        if response.status != HTTPStatus.OK:
            _parse(response.status, response.data)
        incomplete = b""
        try:
            for chunk in response.stream(amt=None):
                *lines, incomplete = (incomplete + chunk).split(b"\n")
                for event in map(json.loads, filter(None, lines)):
                    if event["type"] == "ERROR":
                        return
                    yield None if event["type"] == "DELETED" else event["object"]
        except urllib3.exceptions.HTTPError:
            return
        finally:
            response.close()

    def _send(
        self,
        method: Method,
        path: str,
        query: Mapping[str, str] | None,
        body: Document | None,
        content_type: str,
        read_timeout: float,
    ) -> urllib3.BaseHTTPResponse:
        try:
            request = self.api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers(content_type),
                body=body,
                auth_settings=["BearerToken"],
            )
            result = self.api.call_api(*request, _request_timeout=(_CONNECT_TIMEOUT, read_timeout))
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreachable(error) from error
        response: urllib3.BaseHTTPResponse = result.response
        return response


def resource_version(document: Document | None) -> str:
    """Returns metadata.resourceVersion of an object or a list; "" for None."""
    metadata = (document or {}).get("metadata")
    return str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""


def _parse(status: int, text: bytes) -> Document:
    response = parse_response(status, text)
    if isinstance(response, ErrorResponse):
        raise _client_error(response)
    return response


def _client_error(response: ErrorResponse) -> ClientError:
    status, message = response.status, response.message
    match status:
        case HTTPStatus.NOT_FOUND:
            return NotFound(message, "check --namespace, and whether the ddpm-ray chart is installed")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return NotAllowed(message, "ask the administrator of the namespace for the `edit` role")
        case HTTPStatus.CONFLICT if response.conflicts:
            return Conflict(response.conflicts)
        case HTTPStatus.CONFLICT:
            return RequestRejected(message, "the object was changed in the meantime: check it, and try again")
        case _ if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return RequestRejected(message, "fix what the message names, then try again")
        case _:
            return Unreachable(f"the API server failed: {message}", _CHECK_CLUSTER)


def _unreachable(error: Exception) -> Unreachable:
    cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
    return Unreachable(f"cannot reach the API server: {cause}", _CHECK_CLUSTER)
