"""The client of the API server: paged lists, and retries during an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ddpm_operator.kube import client as module
from ddpm_operator.kube.client import PAGE_SIZE, ApiError, KubeApi, retry_until
from tests.fakes.api_server import PODS, ApiServer

TIMEOUT = 20.0


def with_client(server: ApiServer, use: Callable[[KubeApi], Awaitable[Any]]) -> Any:  # noqa: ANN401 - any result
    async def run() -> Any:  # noqa: ANN401
        async with asyncio.timeout(TIMEOUT), server.open() as api:
            return await use(api)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY_DELAY", 0.01)


def test_a_long_list_is_read_in_pages() -> None:
    server = ApiServer()
    names = [f"pod-{number:03}" for number in range(2 * PAGE_SIZE + 1)]
    for name in names:
        server.put(f"{PODS}/{name}", {"metadata": {"name": name, "labels": {"a": "b"}}})
    server.put(f"{PODS}/other", {"metadata": {"name": "other", "labels": {"a": "c"}}})

    async def use(api: KubeApi) -> list[str]:
        return [str(it["metadata"]["name"]) async for it in api.list(PODS, "a=b")]  # type: ignore[index, call-overload]

    assert with_client(server, use) == names
    assert server.requests == 3


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_requests_are_retried_during_an_outage(status: int) -> None:
    server = ApiServer(unavailable=range(3), unavailable_status=status)
    server.put(f"{PODS}/a", {"metadata": {"name": "a"}})

    async def use(api: KubeApi) -> object:
        deadline = asyncio.get_running_loop().time() + TIMEOUT
        return (await retry_until(deadline, lambda: api.get(f"{PODS}/a")))["metadata"]

    assert with_client(server, use)["name"] == "a"
    assert server.requests == 4


@pytest.mark.parametrize(("server", "status"), [(ApiServer(unavailable=range(99)), 500), (ApiServer(), 404)])
def test_retries_end_at_the_deadline_or_a_permanent_error(server: ApiServer, status: int) -> None:
    async def use(api: KubeApi) -> None:
        deadline = asyncio.get_running_loop().time() + (1.0 if status >= 500 else TIMEOUT)
        await retry_until(deadline, lambda: api.get(f"{PODS}/a"))

    with pytest.raises(ApiError) as caught:
        with_client(server, use)
    assert caught.value.status == status
    assert (server.requests > 1) == (status >= 500)
