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

OPEN_CALL = "/ray.rpc.NodeInfoGcsService/CheckAlive"
HANGING_CALL = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intruder, "TIMEOUT", 1.0)
    monkeypatch.setattr(intruder, "RETRY_TIMEOUT", 1.0)


def probe(port: int, *only: str) -> tuple[set[tuple[object, object]], bool]:
    """Probes a local port; returns (request, status) of every response, and whether the protocol is known."""
    request = {"ports": {"127.0.0.1": [port]}, "tokens": {"none": None}, "secrets": [], "only": only}
    found = intruder.probe(request)
    return {(sent, status) for _, _, _, sent, status, _ in found["answers"]}, found["unknown"] == []


@contextmanager
def http_server(answer: Callable[[str], int]) -> Iterator[int]:
    """Serves each "METHOD /path" with a status; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(1 << 16)
            if self.parse_request():
                self.send_response(answer(f"{self.command} {self.path}"))
                self.send_header("Content-Length", "0")
                self.end_headers()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def grpc_server(answer: Callable[[str], grpc.StatusCode]) -> Iterator[int]:
    """Serves every gRPC call with an error of a status; yields the port."""

    class Services(grpc.GenericRpcHandler):  # type: ignore[misc] - grpc has no types
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def handle(body: bytes, context: grpc.ServicerContext) -> bytes:
                context.abort(answer(details.method), "no")
                return body

            return grpc.unary_unary_rpc_method_handler(handle)

    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, (Services(),))
        port: int = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield port
        server.stop(None)


def test_refusals_are_not_reported() -> None:
    with http_server(lambda _: 401) as port:
        assert probe(port) == (set(), True)
    with grpc_server(lambda _: grpc.StatusCode.UNAUTHENTICATED) as port:
        assert probe(port) == (set(), True)


@pytest.mark.parametrize("status", [200, 404, 405, 500])
def test_one_open_route_is_found_for_any_status(status: int) -> None:
    open_route = "POST /api/jobs/x/stop"
    with http_server(lambda request: status if request == open_route else 401) as port:
        assert probe(port) == ({(open_route, str(status))}, True)


def test_a_static_file_is_requested() -> None:
    with http_server(lambda request: 200 if request.startswith("GET /static/js/") else 401) as port:
        assert probe(port) == ({("GET /static/…", "200")}, True)


@pytest.mark.parametrize("status", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE])
def test_one_open_call_is_found_for_any_status(status: grpc.StatusCode) -> None:
    with grpc_server(lambda call: status if call == OPEN_CALL else grpc.StatusCode.UNAUTHENTICATED) as port:
        assert probe(port) == ({(OPEN_CALL, status.name)}, True)


def test_a_hanging_call_is_found_and_the_next_one_is_sent() -> None:
    released = threading.Event()

    def answer(call: str) -> grpc.StatusCode:
        if call == HANGING_CALL:
            released.wait()
        return grpc.StatusCode.UNAUTHENTICATED if call == HANGING_CALL else grpc.StatusCode.OK

    with grpc_server(answer) as port:
        found, _ = probe(port, HANGING_CALL, OPEN_CALL)
        released.set()
    assert {call for call, _ in found} == {HANGING_CALL, OPEN_CALL}


def test_a_port_with_an_unknown_protocol_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert probe(silent.getsockname()[1]) == (set(), False)
