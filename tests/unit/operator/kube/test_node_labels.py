"""Labels of nodes: each node is read once in a while, and without the right to read nodes there are none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from ddpm_operator.kube.node_labels import MAX_AGE_SECONDS, NodeLabels
from ddpm_operator.kube.paths import node
from tests.fakes.api_server import ApiServer

ARCH = {"kubernetes.io/arch": "amd64"}
TIMEOUT = 20.0


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> ApiServer:
    server = ApiServer()
    labels = ARCH | {"zone": "a", "nvidia.com/gpu.product": ""}
    server.put(node("node-a"), {"metadata": {"name": "node-a", "labels": labels}})
    server.put(node("node-b"), {"metadata": {"name": "node-b"}})
    return server


def reading(server: ApiServer, use: Callable[[NodeLabels, Clock], Awaitable[Any]]) -> Any:  # noqa: ANN401
    async def run() -> Any:  # noqa: ANN401
        async with asyncio.timeout(TIMEOUT), server.open() as api:
            clock = Clock()
            return await use(NodeLabels(api, clock), clock)

    return asyncio.run(run())


def test_only_labels_that_decide_hardware_are_read(server: ApiServer) -> None:
    async def use(labels: NodeLabels, _: Clock) -> dict[str, Mapping[str, str]]:
        return await labels.read(["node-a", "node-b", "gone", "node-a"])

    assert reading(server, use) == {"node-a": ARCH, "node-b": {}}
    assert server.requests == 3


def test_a_node_is_read_again_after_ten_minutes(server: ApiServer) -> None:
    async def use(labels: NodeLabels, clock: Clock) -> list[int]:
        requests = []
        for seconds in (0.0, MAX_AGE_SECONDS - 1, 1.0):
            clock.now += seconds
            await labels.read(["node-a", "gone"])
            requests.append(server.requests)
        return requests

    assert reading(server, use) == [2, 2, 4]


@pytest.mark.parametrize(("status", "requests"), [(403, 1), (500, 2)])
def test_without_the_right_to_read_nodes_it_asks_rarely(server: ApiServer, status: int, requests: int) -> None:
    server.unavailable, server.unavailable_status = range(100), status

    async def use(labels: NodeLabels, clock: Clock) -> list[dict[str, Mapping[str, str]]]:
        first = [await labels.read(["node-a"]), await labels.read(["node-a"])]
        assert server.requests == requests
        server.unavailable = range(0)
        clock.now += MAX_AGE_SECONDS
        return [*first, await labels.read(["node-a"])]

    assert reading(server, use) == [{}, {}, {"node-a": ARCH}]
