"""The operator lives in one event loop: while it waits for one thing, it does not see to any other."""

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
from ddpm_operator.manifests.templating import Templates
from tests.fakes.api_server import ApiServer
from tests.support.blocking import blocking_calls
from tests.unit.operator.controller.test_controller import Driver, assert_all_is_well, live

HERE = Path(__file__).parent
OPERATOR = Path(ddpm_operator.__file__).parent
MANY = 20


def connect(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)):
        pass


def ask(port: int) -> None:
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
        (ask, "socket.connect"),
    ],
)
def test_what_would_hold_up_the_loop_is_caught(block: Callable[[int], object], what: str) -> None:
    async def hold_up(port: int) -> None:
        block(port)

    with socket.create_server(("127.0.0.1", 0)) as server, blocking_calls(HERE) as caught:
        asyncio.run(hold_up(server.getsockname()[1]))
    assert any(it.startswith(f"{what} by {Path(__file__).name}, line ") for it in caught), caught


def test_what_waits_in_a_thread_or_without_blocking_is_not(tmp_path: Path) -> None:
    async def wait(port: int) -> None:
        await asyncio.sleep(0)
        await asyncio.to_thread((tmp_path / "a").write_text, "a")
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()

    with socket.create_server(("127.0.0.1", 0)) as server, blocking_calls(HERE) as caught:
        asyncio.run(wait(server.getsockname()[1]))
    assert not caught


def test_the_operator_holds_up_its_loop_for_nothing_but_its_own_templates() -> None:
    worlds = [(ApiServer(), Driver()) for _ in range(MANY)]

    async def lives() -> None:
        await asyncio.gather(*(live(server, "refused", driver, Templates()) for server, driver in worlds))

    with blocking_calls(OPERATOR) as caught:
        asyncio.run(lives())
    for server, driver in worlds:
        assert_all_is_well(server, driver)
    # A few files of a few KiB on the pod's own disk, read again when they have changed.
    assert {it for it in caught if "get_template" not in it} == set()
    assert caught
