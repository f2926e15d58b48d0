"""How the operator starts: with patience, and with no look before it knows what there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import kopf
import pytest

from ddpm_operator import main
from ddpm_operator.controller import metrics
from ddpm_operator.kube import client
from ddpm_operator.kube.client import PAGE, ApiError, KubeApi
from ddpm_operator.manifests.render import OperatorPods
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.limits import Limits
from ddpm_operator.settings import Settings
from tests.fakes.api_server import ApiServer
from tests.unit.operator.controller.test_controller import put_sampling
from tests.unit.operator.controller.test_leftovers import orphaned

WITHIN = 20.0
SETTINGS = Settings(
    pods=OperatorPods("ddpm-ray", {"app": "operator"}),
    key_secret="key",
    worker=WorkerImage("worker:1", "2.60.0"),
    namespaces=(),
    limits=Limits(at_once=1),
    metrics_host="127.0.0.1",
    templates=None,
)

Start = Callable[[ApiServer], int]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts an operator against a server; returns how many requests that took when its watches were to begin."""

    def run(server: ApiServer) -> int:
        taken: list[int] = []

        @asynccontextmanager
        async def connected(_: object) -> AsyncIterator[KubeApi]:
            async with server.open() as api:
                yield api

        async def watches_begin(**_: object) -> None:
            taken.append(server.requests)

        monkeypatch.setattr(main, "connected", connected)
        monkeypatch.setattr(kopf, "operator", watches_begin)
        asyncio.run(asyncio.wait_for(main.run(SETTINGS), WITHIN))
        return taken[0]

    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(metrics, "PORT", 0)
    return run


@pytest.mark.parametrize("away_with", [0, 500])
def test_an_api_server_that_is_away_for_a_while_is_waited_for_whenever_it_goes(start: Start, away_with: int) -> None:
    undisturbed = start(ApiServer())
    for first in range(undisturbed):
        away = range(first, first + 3)
        assert start(ApiServer(away=away, away_with=away_with)) > undisturbed


def test_an_api_server_that_is_away_for_longer_ends_the_start(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "STARTUP_TIMEOUT", 0.1)
    with pytest.raises(ApiError, match="500"):
        start(ApiServer(away=range(1_000)))


def test_no_sampling_is_looked_at_before_all_of_them_are_known(start: Start) -> None:
    server, _ = orphaned()
    for number in range(5 * PAGE):
        put_sampling(server, f"other-{number}")
    lists = start(ApiServer(objects=dict(server.objects)))
    # The key is read, made and read; pods, clusters and samplings are listed.
    assert lists == 3 + 2 + 5
