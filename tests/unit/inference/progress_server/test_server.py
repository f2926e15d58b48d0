"""The HTTP interface of the progress server: routes, authorization, and its bounds on connections."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import ExitStack, suppress

import pytest

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.progress import Progress
from ddpm_inference.progress_server.run_state import Failure, RunState
from ddpm_inference.progress_server.server import MAX_CONNECTIONS, serve_progress
from ddpm_inference.progress_server.settings import Settings
from tests.support.progress_client import TOKEN, ProgressClient
from tests.support.rays import wait_until

FAILURE = Failure(reason="ModelRejected", exitCode=2, message="net.pt is damaged", hint="convert it again")
TIMEOUT = 30


def test_progress_is_the_last_published_snapshot(run_state: RunState, client: ProgressClient) -> None:
    assert client.request().document == Progress().snapshot()
    progress = Progress(phase="sampling", message="2 workers")
    progress.begin(100, 25, 3)
    progress.plan = {"device": "cpu", "batchSize": 32, "shards": 4}
    run_state.publish(progress.snapshot())
    progress.begin(100, 57, 2)
    response = client.request()
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    assert response.document == {
        "version": 1,
        "phase": "sampling",
        "done": 25,
        "total": 100,
        "percent": 25.0,
        "samplesPerSecond": None,
        "etaSeconds": None,
        "message": "2 workers",
        "plan": {"device": "cpu", "batchSize": 32, "shards": 4},
    }


def test_the_grid_is_not_found_until_samples_are_stored(run_state: RunState, client: ProgressClient) -> None:
    assert client.request("/grid.png").status == 404
    run_state.thumbnail = lambda max_age: b"\x89PNG" if max_age else None
    response = client.request("/grid.png")
    assert (response.status, response.headers["Content-Type"], response.body) == (200, "image/png", b"\x89PNG")


def assert_unauthorized(client: ProgressClient, path: str, method: str, authorization: str | None) -> None:
    response = client.request(path, method, authorization)
    assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert b"version" not in response.body
    assert TOKEN.encode() not in response.body


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xe9"],
)
def test_a_request_without_the_token_is_unauthorized(client: ProgressClient, authorization: str | None) -> None:
    assert_unauthorized(client, "/progress", "GET", authorization)


@pytest.mark.parametrize("method", ["GET", "HEAD", "BREW"])
@pytest.mark.parametrize("path", ["/grid.png", "/nothing"])
def test_authorization_comes_before_route_and_method(client: ProgressClient, path: str, method: str) -> None:
    assert_unauthorized(client, path, method, None)


@pytest.mark.parametrize("method", ["HEAD", "POST", "BREW"])
def test_other_methods_than_get_are_not_allowed(client: ProgressClient, method: str) -> None:
    response = client.request(method=method)
    assert (response.status, response.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/", "/progress/", "/../etc/passwd"])
def test_other_paths_are_not_found(client: ProgressClient, path: str) -> None:
    assert client.request(path).status == 404


def test_the_outcome_is_sent_only_by_an_authorized_get_of_progress(run_state: RunState, client: ProgressClient) -> None:
    client.request()
    run_state.end("failed", FAILURE)
    client.request(authorization=None)
    client.request("/grid.png")
    client.request(method="HEAD")
    assert not run_state.outcome_sent.is_set()
    document = client.request().document
    assert (document["phase"], document["outcome"]) == ("failed", FAILURE)
    assert run_state.outcome_sent.wait(TIMEOUT)


def test_bad_requests_and_disconnects_are_not_logged(client: ProgressClient, capfd: pytest.CaptureFixture[str]) -> None:
    for request in (b"", b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /progress HTTP/9.9\r\n\r\n", b"G" * 70_000):
        with connect(client.port) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while connection.recv(65_536):
                    pass
    with connect(client.port) as connection:
        connection.sendall(b"GET /progress HTTP/1.1\r\n")
        # Without lingering, closing sends a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.request(method="POST", authorization=None)
    wait_until(lambda: open_connections() == 0)
    assert capfd.readouterr() == ("", "")


def test_connections_above_the_maximum_are_closed(client: ProgressClient) -> None:
    # Connections are accepted in order.
    with silent_connections(client.port, MAX_CONNECTIONS), connect(client.port) as one_more:
        assert one_more.recv(1) == b""
    wait_until(client.progress)


def test_a_port_in_use_is_an_invalid_setting(run_state: RunState) -> None:
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(InvalidSpec, match=f"DDPM_PROGRESS_PORT is {port}, but the progress server cannot listen"),
            serve_progress(run_state, Settings(port, TOKEN)),
        ):
            pass


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def open_connections() -> int:
    return sum("process_request" in thread.name for thread in threading.enumerate())


def silent_connections(port: int, count: int) -> ExitStack:
    """Opens connections that send nothing."""
    stack = ExitStack()
    for _ in range(count):
        stack.enter_context(connect(port))
    return stack
