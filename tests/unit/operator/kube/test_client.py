"""Requests to the API server: lists of any length, and a server that is away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ddpm_operator.kube import client as module
from ddpm_operator.kube.client import PAGE, ApiError, KubeApi, patiently
from tests.fakes.api_server import PODS, ApiServer

WITHIN = 20.0


def against(server: ApiServer, use: Callable[[KubeApi], Awaitable[Any]]) -> Any:  # noqa: ANN401 - whatever it asks
    async def run() -> Any:  # noqa: ANN401
        async with asyncio.timeout(WITHIN), server.open() as api:
            return await use(api)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)


def test_a_long_list_comes_page_by_page_and_whole() -> None:
    server = ApiServer()
    names = [f"pod-{number:03}" for number in range(2 * PAGE + 1)]
    for name in names:
        server.put(f"{PODS}/{name}", {"metadata": {"name": name, "labels": {"a": "b"}}})
    server.put(f"{PODS}/other", {"metadata": {"name": "other", "labels": {"a": "c"}}})

    async def use(api: KubeApi) -> list[str]:
        return [str(it["metadata"]["name"]) async for it in api.list(PODS, "a=b")]  # type: ignore[index, call-overload]

    assert against(server, use) == names
    assert server.requests == 3


@pytest.mark.parametrize("away_with", [0, 429, 500, 503])
def test_a_server_that_is_away_is_asked_until_it_is_back(away_with: int) -> None:
    server = ApiServer(away=range(3), away_with=away_with)
    server.put(f"{PODS}/a", {"metadata": {"name": "a"}})

    async def use(api: KubeApi) -> object:
        until = asyncio.get_running_loop().time() + WITHIN
        return (await patiently(lambda: api.get(f"{PODS}/a"), until))["metadata"]

    assert against(server, use)["name"] == "a"
    assert server.requests == 4


@pytest.mark.parametrize(("server", "status"), [(ApiServer(away=range(99)), 500), (ApiServer(), 404)])
def test_patience_has_an_end_and_is_no_answer_to_a_refusal(server: ApiServer, status: int) -> None:
    async def use(api: KubeApi) -> None:
        until = asyncio.get_running_loop().time() + (0.1 if status >= 500 else WITHIN)
        await patiently(lambda: api.get(f"{PODS}/a"), until)

    with pytest.raises(ApiError) as caught:
        against(server, use)
    assert caught.value.status == status
    assert (server.requests > 1) == (status >= 500)
