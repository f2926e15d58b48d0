"""The API server as a person's kubeconfig names it: requests with plain documents, watches, commands in pods."""

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

_CONNECT, _READ, _WATCH = 5.0, 30.0, 60.0
_CHECK = "look at `kubectl cluster-info`, and at --context"


@dataclass(frozen=True)
class Connection:
    """One API server, with one person's rights. Every method raises a ClientFault.

    Attributes:
        namespace: where things are, unless another one is asked for.
    """

    api: ApiClient
    namespace: str

    @classmethod
    def open(cls, namespace: str | None = None, context: str | None = None) -> Self:
        """As kubectl connects: by KUBECONFIG or ~/.kube/config, in the context's own namespace.

        Raises:
            Unreachable: if there is no such file or context. Nothing is sent yet.
        """
        try:
            contexts, current = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
            chosen = next((one for one in contexts if one["name"] == context), current) if context else current
            if context and chosen["name"] != context:
                raise ConfigException(f"there is no context {context}")
            api = config.new_client_from_config(context=context)  # type: ignore[no-untyped-call]
        except (ConfigException, yaml.YAMLError, OSError) as error:
            raise Unreachable(
                f"no cluster is known: {error}", "set KUBECONFIG, or look at `kubectl config get-contexts`"
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
        """One request, and the document that it was answered with."""
        response = self._send(method, path, query, body, content_type, _READ)
        try:
            return _document(response.status, response.data)
        except urllib3.exceptions.HTTPError as error:
            raise _silent(error) from error

    def watch(self, path: str, name: str, longest: float | None = None) -> Iterator[Document | None]:
        """One object as it is, and again whenever it has changed; None when it is not there.

        Args:
            longest: ends after about so many seconds; None: never by itself.
        """
        deadline = None if longest is None else time.monotonic() + longest
        this_one = {"fieldSelector": f"metadata.name={name}"}
        seen: str | None = None
        while True:
            listed = self.request("GET", path, this_one)
            items = listed["items"]
            now = items[0] if isinstance(items, list) and items else None
            current = now if isinstance(now, dict) else None
            if seen is None or version_of(current) != seen:
                yield current
            seen = version_of(current)
            left = _WATCH if deadline is None else min(_WATCH, deadline - time.monotonic())
            if left <= 0:
                return
            since = this_one | {"resourceVersion": version_of(listed), "timeoutSeconds": str(int(left) + 1)}
            for changed in self._changes(path, since):
                yield changed
                seen = version_of(changed)

    @contextmanager
    def running(
        self,
        path: str,
        container: str,
        command: Sequence[str],
        longest_silence: float | None,
        *,
        takes_input: bool = False,
    ) -> Iterator[RemoteCommand]:
        """A command in a pod, for the time of the block.

        Args:
            path: of the pod.
            longest_silence: seconds until a stream that says or takes nothing counts as broken; None: never.
        """
        streams = [("stdin", "true")] if takes_input else []
        query = [("container", container), ("stdout", "true"), ("stderr", "true"), *streams]
        request = self.api.param_serialize(
            "GET",
            f"{path}/exec",
            query_params=query + [("command", word) for word in command],
            auth_settings=["BearerToken"],
        )
        try:
            url = get_websocket_url(request[1])  # type: ignore[no-untyped-call]
            socket: websocket.WebSocket = create_websocket(self.api.configuration, url, request[2])  # type: ignore[no-untyped-call]
        except websocket.WebSocketBadStatusException as error:
            _document(error.status_code, error.resp_body or b"")
            raise _silent(error) from error
        except (websocket.WebSocketException, OSError) as error:
            raise _silent(error) from error
        try:
            socket.settimeout(longest_silence)
            yield RemoteCommand(socket)
        finally:
            socket.close()

    def _changes(self, path: str, query: Mapping[str, str]) -> Iterator[Document | None]:
        """What a watch tells until it ends, as it does from time to time; the next list tells the rest."""
        response = self._send("GET", path, {**query, "watch": "true"}, None, JSON, _WATCH + _READ)
        if response.status != HTTPStatus.OK:
            _document(response.status, response.data)
        rest = b""
        try:
            for chunk in response.stream(amt=None):
                *lines, rest = (rest + chunk).split(b"\n")
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
        read: float,
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
            answer = self.api.call_api(*request, _request_timeout=(_CONNECT, read))
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _silent(error) from error
        response: urllib3.BaseHTTPResponse = answer.response
        return response


def version_of(document: Document | None) -> str:
    """metadata.resourceVersion of an object or a list; "" of what is not there."""
    metadata = (document or {}).get("metadata")
    return str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""


def _document(status: int, text: bytes) -> Document:
    answer = parse_response(status, text)
    if isinstance(answer, ErrorResponse):
        raise _fault(answer)
    return answer


def _fault(refusal: ErrorResponse) -> ClientError:
    status, message = refusal.status, refusal.message
    match status:
        case HTTPStatus.NOT_FOUND:
            return NotFound(message, "look at --namespace; and whether ddpm-ray's chart is installed")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return NotAllowed(message, "ask the administrator of the namespace for the role `edit` in it")
        case HTTPStatus.CONFLICT if refusal.conflicts:
            return Conflict(refusal.conflicts)
        case HTTPStatus.CONFLICT:
            return RequestRejected(message, "somebody else was quicker: look at it, and try again")
        case _ if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return RequestRejected(message, "correct what it names")
        case _:
            return Unreachable(f"the API server failed: {message}", _CHECK)


def _silent(error: Exception) -> Unreachable:
    cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
    return Unreachable(f"the API server does not answer: {cause}", _CHECK)
