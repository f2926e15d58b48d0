"""How long the operator waits, over HTTP, for a head that has stopped answering."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from ddpm_operator.ray.head_client import new_session
from tests.fakes.api_server import PODS, SAMPLINGS, ApiServer, start_heads
from tests.fakes.heads import FakeServer
from tests.fakes.operator import FakeDriver, FakeOperator, connect_to, put_sampling

FIGURES = {"done": 1, "total": 16, "percent": 6.25, "samplesPerSecond": 0.5, "etaSeconds": 30.0}


class SamplingDriver(FakeDriver):
    """A driver that never finishes."""

    async def progress(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/progress" or not self.jobs:
            return web.Response(status=404)
        return web.json_response({"version": 1, "phase": "sampling", **FIGURES, "message": "", "outcome": None})


@dataclass
class Clock:
    """The operator's clock."""

    time: datetime = datetime(2026, 11, 23, 16, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


def set_ready(server: ApiServer, ready: bool) -> None:
    """Sets the head pod's condition Ready, as the kubelet or the node controller does."""
    (pod,) = server.objects_in(PODS)
    conditions = [it for it in pod["status"]["conditions"] if it["type"] != "Ready"]
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": pod["metadata"]["creationTimestamp"]}
    path = f"{PODS}/{pod['metadata']['name']}"
    server.put(path, pod | {"status": pod["status"] | {"conditions": [*conditions, condition]}})


async def status_after_silence(minutes: int, readiness: list[bool]) -> dict[str, Any]:
    """Returns the status after the head of a running sampling has not answered for some minutes.

    Args:
        readiness: the pod's condition Ready in each minute, repeated.
    """
    server, clock, driver = ApiServer(), Clock(), SamplingDriver()
    key = put_sampling(server, "digits")
    async with server.open() as api, new_session() as session:
        async with (
            FakeServer(driver.dashboard).open() as dashboard,
            FakeServer(driver.progress).open() as progress,
        ):
            operator = FakeOperator(api, server, connect_to(session, dashboard, progress), now=clock.now)
            while server.objects[f"{SAMPLINGS}/digits"].get("status", {}).get("phase") != "Running":
                await operator.controller.reconcile_one(key)
                start_heads(server)
                operator.sync_caches()
        for minute in range(minutes + 1):
            set_ready(server, readiness[minute % len(readiness)])
            operator.sync_caches()
            await operator.controller.reconcile_one(key)
            clock.time += timedelta(minutes=1)
    status: dict[str, Any] = server.objects[f"{SAMPLINGS}/digits"]["status"]
    return status


@pytest.mark.parametrize("readiness", [[True], [False], [True, False]], ids=["ready", "not ready", "flapping"])
def test_an_unreachable_head_is_lost_after_five_minutes(readiness: list[bool]) -> None:
    assert asyncio.run(status_after_silence(4, readiness))["phase"] == "Running"
    status = asyncio.run(status_after_silence(5, readiness))
    assert status["failure"]["reason"] == "HeadLost"
    assert status["failure"]["message"].startswith("The head has not answered for 5m00s")
