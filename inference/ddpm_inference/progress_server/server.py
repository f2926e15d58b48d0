"""A board over HTTP: ``GET /progress`` and ``GET /grid.png``, for one who has the token.

The library's own server is enough for the one client there is. What it lacks, beside a run that must not suffer
from it, is here: a bound on connections and on how long each may dawdle, and silence.
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

EVERYWHERE = "0.0.0.0"  # noqa: S104 - the one who asks is on another machine; hence the token
MOST_CONNECTIONS = 8
DAWDLE_SECONDS = 5.0
PICTURE_SECONDS = 5.0
STOPS_WITHIN = 0.1


class HttpResponse(NamedTuple):
    """What a request gets.

    Attributes:
        final: whether it says how the run ended.
    """

    status: HTTPStatus
    kind: str
    body: bytes
    final: bool = False


@dataclass(frozen=True)
class RequestHandler:
    """Who may ask, and what is answered."""

    board: RunState
    token: str

    def answer(self, method: str, path: str, authorization: str) -> HttpResponse:
        if not self._admits(authorization):
            return _refusal(HTTPStatus.UNAUTHORIZED, "send the header Authorization: Bearer <the run's token>")
        if path not in ("/progress", "/grid.png"):
            return _refusal(HTTPStatus.NOT_FOUND, "there are /progress and /grid.png")
        if method != "GET":
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "there is nothing to do here but GET")
        if path == "/progress":
            document = self.board.document()
            return HttpResponse(HTTPStatus.OK, "application/json", json.dumps(document).encode(), "outcome" in document)
        png = self.board.picture(PICTURE_SECONDS)
        if png is None:
            return _refusal(HTTPStatus.NOT_FOUND, "no sample is stored yet, or there can be no picture just now")
        return HttpResponse(HTTPStatus.OK, "image/png", png)

    def _admits(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), self.token.encode())


@contextmanager
def served(board: RunState, settings: Settings) -> Iterator[int]:
    """Answers questions about a board, from threads that die with the process; yields the port.

    Raises:
        InvalidSpec: if the port cannot be listened on.
    """
    try:
        server = _Server((EVERYWHERE, settings.port), RequestHandler(board, settings.token))
    except OSError as error:
        raise InvalidSpec(
            f"{PORT_VARIABLE} is {settings.port}, but nothing can listen there: {error.strerror}",
            hint="give a port that is free, or unset it",
        ) from error
    with server:
        Thread(target=server.serve_forever, args=(STOPS_WITHIN,), name="beacon", daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    server_address: tuple[str, int]

    def __init__(self, address: tuple[str, int], desk: RequestHandler) -> None:
        self.desk = desk
        self._free = BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(address, _Connection)

    def process_request(self, request: _Request, client_address: object) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads
            self._free.release()
            raise

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: _Request, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    """One request, whatever its method; the connection ends with it."""

    server: _Server
    timeout = DAWDLE_SECONDS

    def parse_request(self) -> bool:
        # The base class would go on to a do_X of the method X, and answer where there is none by itself.
        if super().parse_request():
            answer = self.server.desk.answer(self.command, self.path, self.headers.get("Authorization", ""))
            self._send(answer)
            if answer.final:
                self.server.desk.board.heard.set()
        return False

    def _send(self, answer: HttpResponse) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def version_string(self) -> str:
        return "ddpm-sample"

    def log_message(self, format: str, *args: object) -> None:
        pass


_Request = socket | tuple[bytes, socket]


def _refusal(status: HTTPStatus, sentence: str) -> HttpResponse:
    return HttpResponse(status, "text/plain", f"{status.phrase}: {sentence}\n".encode())
