"""The start of the operator: it retries during an outage, and lists everything before the first reconcile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import kopf
import pytest

from ddpm_operator import main
from ddpm_operator.controller import metrics
from ddpm_operator.kube import client
from ddpm_operator.kube.client import PAGE_SIZE, ApiError, KubeApi
from ddpm_operator.manifests.render import OperatorPods
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.limits import Limits
from ddpm_operator.settings import Settings
from tests.fakes.api_server import ApiServer
from tests.fakes.operator import orphaned_cluster, put_sampling

TIMEOUT = 20.0
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
    """Returns a function that starts an operator and returns the number of its requests before kopf starts."""

    def run(server: ApiServer) -> int:
        requests: list[int] = []

        @asynccontextmanager
        async def connect(_: object) -> AsyncIterator[KubeApi]:
            async with server.open() as api:
                yield api

        async def run_kopf(**_: object) -> None:
            requests.append(server.requests)

        monkeypatch.setattr(main, "connect", connect)
        monkeypatch.setattr(kopf, "operator", run_kopf)
        asyncio.run(asyncio.wait_for(main.run(SETTINGS), TIMEOUT))
        return requests[0]

    monkeypatch.setattr(client, "FIRST_RETRY_DELAY", 0.01)
    monkeypatch.setattr(metrics, "PORT", 0)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("status", [0, 500])
def test_startup_survives_an_outage_at_any_request(start: Start, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "validate_all_templates", lambda *_: None)  # takes long, and sends no requests
    undisturbed = start(ApiServer())
    for first in range(undisturbed):
        outage = range(first, first + 3)
        assert start(ApiServer(unavailable=outage, unavailable_status=status)) > undisturbed


def test_startup_fails_after_its_timeout(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "STARTUP_TIMEOUT", 0.1)
    with pytest.raises(ApiError, match="500"):
        start(ApiServer(unavailable=range(1_000)))


def test_everything_is_listed_before_the_first_reconcile(start: Start) -> None:
    server, _ = orphaned_cluster()
    for number in range(5 * PAGE_SIZE):
        put_sampling(server, f"other-{number}")
    requests = start(ApiServer(objects=dict(server.objects)))
    # The signing key: read, create, read. Then lists of pods, of clusters, and five pages of samplings.
    assert requests == 3 + 2 + 5
