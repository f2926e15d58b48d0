"""The intruder of the cluster tests finds a single open endpoint among many closed ones."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc  # type: ignore[import-untyped]
import pytest

from tests.cluster import intruder

HEALTH = "/ray.rpc.NodeInfoGcsService/CheckAlive"
HANGS = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intruder, "PATIENCE", 1.0)
    monkeypatch.setattr(intruder, "MORE_PATIENCE", 1.0)


def told(port: int, *only: str) -> tuple[set[tuple[object, object]], bool]:
    """Of one port of this machine: (what, status) of all that was answered; whether its language was known."""
    asked = {"ports": {"127.0.0.1": [port]}, "tokens": {"none": None}, "secrets": [], "only": only}
    heard = intruder.told(asked)
    return {(what, status) for _, _, _, what, status, _ in heard["answers"]}, heard["strange"] == []


@contextmanager
def http_server(answer: Callable[[str], int]) -> Iterator[int]:
    """A server that answers each "METHOD /path" with a status; yields its port."""

    class Door(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(1 << 16)
            if self.parse_request():
                self.send_response(answer(f"{self.command} {self.path}"))
                self.send_header("Content-Length", "0")
                self.end_headers()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def grpc_server(answer: Callable[[str], grpc.StatusCode]) -> Iterator[int]:
    """A server of every call that there is, refused with a status; yields its port."""

    class Doors(grpc.GenericRpcHandler):  # type: ignore[misc] - grpc has no types
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def handle(body: bytes, context: grpc.ServicerContext) -> bytes:
                context.abort(answer(details.method), "no")
                return body

            return grpc.unary_unary_rpc_method_handler(handle)

    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, (Doors(),))
        port: int = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield port
        server.stop(None)


def test_where_all_is_refused_nothing_is_told() -> None:
    with http_server(lambda _: 401) as port:
        assert told(port) == (set(), True)
    with grpc_server(lambda _: grpc.StatusCode.UNAUTHENTICATED) as port:
        assert told(port) == (set(), True)


@pytest.mark.parametrize("status", [200, 404, 405, 500])
def test_one_route_that_needs_no_token_is_told_whatever_it_says(status: int) -> None:
    open_door = "POST /api/jobs/x/stop"
    with http_server(lambda asked: status if asked == open_door else 401) as port:
        assert told(port) == ({(open_door, str(status))}, True)


def test_a_file_that_the_page_loads_is_asked_for() -> None:
    with http_server(lambda asked: 200 if asked.startswith("GET /static/js/") else 401) as port:
        assert told(port) == ({("GET /static/…", "200")}, True)


@pytest.mark.parametrize("status", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE])
def test_one_call_that_needs_no_token_is_told_whatever_it_says(status: grpc.StatusCode) -> None:
    with grpc_server(lambda it: status if it == HEALTH else grpc.StatusCode.UNAUTHENTICATED) as port:
        assert told(port) == ({(HEALTH, status.name)}, True)


def test_a_call_that_hangs_is_told_and_the_next_one_is_asked() -> None:
    gone = threading.Event()

    def answer(call: str) -> grpc.StatusCode:
        if call == HANGS:
            gone.wait()
        return grpc.StatusCode.UNAUTHENTICATED if call == HANGS else grpc.StatusCode.OK

    with grpc_server(answer) as port:
        got, _ = told(port, HANGS, HEALTH)
        gone.set()
    assert {what for what, _ in got} == {HANGS, HEALTH}


def test_a_port_that_speaks_something_else_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        assert told(deaf.getsockname()[1]) == (set(), False)
