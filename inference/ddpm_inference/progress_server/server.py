"""HTTP server of a `RunState`: ``GET /progress`` and ``GET /grid.png``, authorized by the run's bearer token.

Python's own server suffices for the operator as its only client. Added here is what keeps it from disturbing the run:
a bound on the number of connections and on their duration, and no log lines.
"""

from __future__ import annotations

import hmac
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socket import socket
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import NamedTuple

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.progress_server.run_state import RunState
from ddpm_inference.progress_server.settings import PORT_VARIABLE, Settings

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - the operator connects from another pod; hence the token
MAX_CONNECTIONS = 8
REQUEST_TIMEOUT = 5.0
MAX_THUMBNAIL_AGE = 5.0
SHUTDOWN_POLL_SECONDS = 0.1


class HttpResponse(NamedTuple):
    """A response: its status, content type and body.

    Attributes:
        has_outcome: whether the body contains the outcome of the run.
    """

    status: HTTPStatus
    content_type: str
    body: bytes
    has_outcome: bool = False


@dataclass(frozen=True)
class RequestHandler:
    """Authorizes a request and answers it from the state of the run."""

    run_state: RunState
    token: str

    def respond(self, method: str, path: str, authorization: str) -> HttpResponse:
        """Returns the response to a request, given its Authorization header ("" if it has none)."""
        if not self._is_authorized(authorization):
            return _error(HTTPStatus.UNAUTHORIZED, "send the header Authorization: Bearer <the run's token>")
        if path not in ("/progress", "/grid.png"):
            return _error(HTTPStatus.NOT_FOUND, "use /progress or /grid.png")
        if method != "GET":
            return _error(HTTPStatus.METHOD_NOT_ALLOWED, "use GET")
        if path == "/progress":
            document = self.run_state.document()
            body = json.dumps(document).encode()
            return HttpResponse(HTTPStatus.OK, "application/json", body, has_outcome="outcome" in document)
        png = self.run_state.thumbnail(MAX_THUMBNAIL_AGE)
        if png is None:
            return _error(HTTPStatus.NOT_FOUND, "no sample is stored yet, or the grid cannot be rendered at the moment")
        return HttpResponse(HTTPStatus.OK, "image/png", png)

    def _is_authorized(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), self.token.encode())


@contextmanager
def serve_progress(run_state: RunState, settings: Settings) -> Iterator[int]:
    """Serves the state of a run from daemon threads while the block runs; yields the port.

    Raises:
        InvalidSpec: if the port cannot be listened on.
    """
    try:
        server = _Server((ALL_INTERFACES, settings.port), RequestHandler(run_state, settings.token))
    except OSError as error:
        raise InvalidSpec(
            f"{PORT_VARIABLE} is {settings.port}, but the progress server cannot listen there: {error.strerror}",
            hint="set a free port, or unset it",
        ) from error
    with server:
        Thread(target=server.serve_forever, args=(SHUTDOWN_POLL_SECONDS,), name="progress-server", daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


class _Server(ThreadingMixIn, TCPServer):
    """Accepts connections, one thread each; closes those above `MAX_CONNECTIONS` at once."""

    daemon_threads = True
    allow_reuse_address = True
    server_address: tuple[str, int]

    def __init__(self, address: tuple[str, int], handler: RequestHandler) -> None:
        self.handler = handler
        self._slots = BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Connection)

    def process_request(self, request: _Request, client_address: object) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread could be started
            self._slots.release()
            raise

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: _Request, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # OSError: the client disconnected
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    """Answers one request of any method, then closes the connection."""

    server: _Server
    timeout = REQUEST_TIMEOUT

    def parse_request(self) -> bool:
        # Returning False ends the request here. The base class would dispatch to a method do_<METHOD>, and answer
        # methods without one by itself, before the token is checked.
        if super().parse_request():
            handler = self.server.handler
            response = handler.respond(self.command, self.path, self.headers.get("Authorization", ""))
            self._send(response)
            if response.has_outcome:
                handler.run_state.outcome_sent.set()
        return False

    def _send(self, response: HttpResponse) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Cache-Control", "no-store")
        if response.status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if response.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def version_string(self) -> str:
        return "ddpm-sample"

    def log_message(self, format: str, *args: object) -> None:
        pass


_Request = socket | tuple[bytes, socket]


def _error(status: HTTPStatus, message: str) -> HttpResponse:
    return HttpResponse(status, "text/plain", f"{status.phrase}: {message}\n".encode())
