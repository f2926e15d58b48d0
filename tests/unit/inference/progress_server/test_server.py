"""Who is answered over HTTP, with what, and that nobody else notices."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import ExitStack, suppress

import pytest

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.progress import Progress
from ddpm_inference.progress_server.run_state import Failure, RunState
from ddpm_inference.progress_server.server import MOST_CONNECTIONS, served
from ddpm_inference.progress_server.settings import Settings
from tests.support.asking import TOKEN, Client
from tests.support.rays import wait_until

FAILURE = Failure(reason="ModelRejected", exitCode=2, message="net.pt is damaged", hint="convert it again")


def test_progress_is_what_was_last_posted(board: RunState, client: Client) -> None:
    assert client.ask().document == Progress().snapshot()
    progress = Progress(phase="sampling", message="2 workers")
    progress.begin(100, 25, 3)
    progress.plan = {"device": "cpu", "batchSize": 32, "shards": 4}
    board.post(progress.snapshot())
    progress.begin(100, 57, 2)
    reply = client.ask()
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert reply.document == {
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


def test_the_picture_is_not_there_until_it_is(board: RunState, client: Client) -> None:
    assert client.ask("/grid.png").status == 404
    board.picture = lambda oldest: b"\x89PNG" if oldest else None
    reply = client.ask("/grid.png")
    assert (reply.status, reply.headers["Content-Type"], reply.body) == (200, "image/png", b"\x89PNG")


@pytest.mark.parametrize("path", ["/progress", "/grid.png", "/", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "BREW"])
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xe9"],
)
def test_without_the_token_nothing_is_told_at_all(
    client: Client, path: str, method: str, authorization: str | None
) -> None:
    reply = client.ask(path, method, authorization)
    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert b"version" not in reply.body
    assert TOKEN.encode() not in reply.body


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_there_is_nothing_to_do_but_to_get(client: Client, method: str) -> None:
    reply = client.ask(method=method)
    assert (reply.status, reply.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/", "/progress/", "/../etc/passwd", "/metrics"])
def test_there_is_nothing_else_to_get(client: Client, path: str) -> None:
    assert client.ask(path).status == 404


def test_an_outcome_counts_as_heard_when_somebody_with_the_token_was_given_it(board: RunState, client: Client) -> None:
    client.ask()
    board.end("failed", FAILURE)
    client.ask(authorization=None)
    client.ask("/grid.png")
    client.ask(method="HEAD")
    assert not board.heard.is_set()
    document = client.ask().document
    assert (document["phase"], document["outcome"]) == ("failed", FAILURE)
    assert board.heard.wait(30)


def test_bad_requests_and_clients_that_go_away_leave_no_line(
    board: RunState, client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    for request in (b"", b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /progress HTTP/9.9\r\n\r\n", b"G" * 70_000):
        with socket.create_connection(("127.0.0.1", client.port), timeout=30) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while connection.recv(65_536):
                    pass
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as connection:
        connection.sendall(b"GET /progress HTTP/1.1\r\n")
        # Closed by a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.ask(method="POST", authorization=None)
    wait_until(lambda: _connections() == 0)
    assert capfd.readouterr() == ("", "")


def test_a_crowd_is_sent_away_and_costs_no_more_than_its_bound(client: Client) -> None:
    # Connections are taken up in order.
    with _crowd(client.port), socket.create_connection(("127.0.0.1", client.port), timeout=30) as one_more:
        assert one_more.recv(1) == b""
    wait_until(client.progress)


def test_a_port_that_is_taken_is_refused(board: RunState) -> None:
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(InvalidSpec, match=f"DDPM_PROGRESS_PORT is {port}, but nothing can listen there"),
            served(board, Settings(port, TOKEN)),
        ):
            pass


def _connections() -> int:
    return sum("process_request" in thread.name for thread in threading.enumerate())


def _crowd(port: int) -> ExitStack:
    """As many silent connections as are waited for at a time."""
    crowd = ExitStack()
    for _ in range(MOST_CONNECTIONS):
        crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
    return crowd
