"""The operator makes no blocking calls in its event loop."""

from __future__ import annotations

import asyncio
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ddpm_operator
from tests.fakes.api_server import ApiServer
from tests.fakes.operator import FakeDriver, assert_succeeded, run_sampling
from tests.support.blocking import blocking_calls

HERE = Path(__file__).parent
OPERATOR = Path(ddpm_operator.__file__).parent
SAMPLINGS = 5


def connect(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)):
        pass


def http_connect(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    connection.connect()
    connection.close()


@pytest.mark.parametrize(
    ("block", "what"),
    [
        (lambda _: time.sleep(0), "time.sleep"),
        (lambda _: Path(__file__).read_text(), "open"),
        (lambda _: subprocess.run([sys.executable, "-V"], check=True, capture_output=True), "subprocess.Popen"),
        (lambda _: socket.getaddrinfo("localhost", 80), "socket.getaddrinfo"),
        (connect, "socket.connect"),
        (http_connect, "socket.connect"),
    ],
)
def test_blocking_calls_are_detected(block: Callable[[int], object], what: str) -> None:
    async def call(port: int) -> None:
        block(port)

    with socket.create_server(("127.0.0.1", 0)) as server, blocking_calls(HERE) as calls:
        asyncio.run(call(server.getsockname()[1]))
    assert any(it.startswith(f"{what} by {Path(__file__).name}, line ") for it in calls), calls


def test_threads_and_async_calls_are_not_blocking(tmp_path: Path) -> None:
    async def wait(port: int) -> None:
        await asyncio.sleep(0)
        await asyncio.to_thread((tmp_path / "a").write_text, "a")
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()

    with socket.create_server(("127.0.0.1", 0)) as server, blocking_calls(HERE) as calls:
        asyncio.run(wait(server.getsockname()[1]))
    assert not calls


def test_the_operator_blocks_only_to_read_templates() -> None:
    runs = [(ApiServer(), FakeDriver()) for _ in range(SAMPLINGS)]

    async def run_all() -> None:
        await asyncio.gather(*(run_sampling(server, driver) for server, driver in runs))

    with blocking_calls(OPERATOR) as calls:
        asyncio.run(run_all())
    for server, driver in runs:
        assert_succeeded(server, driver)
    # Templates are small local files, and read again only after they have changed.
    assert {it for it in calls if "get_template" not in it} == set()
    assert calls
