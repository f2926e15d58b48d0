"""How long a head that does not answer is waited for, over HTTP and by the operator's own clock."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from ddpm_operator.manifests.templating import Templates
from ddpm_operator.ray.head_client import new_session
from tests.fakes.api_server import PODS, SAMPLINGS, ApiServer, kubelet_moves
from tests.fakes.heads import Door
from tests.unit.operator.controller.test_controller import Driver, Operator, heads_at, put_sampling

FIGURES = {"done": 1, "total": 16, "percent": 6.25, "samplesPerSecond": 0.5, "etaSeconds": 30.0}


class SamplingDriver(Driver):
    """One that samples, and does not come to an end."""

    async def progress(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/progress" or not self.jobs:
            return web.Response(status=404)
        return web.json_response({"version": 1, "phase": "sampling", **FIGURES, "message": "", "outcome": None})


@dataclass
class Clock:
    """The time that the operator goes by."""

    time: datetime = datetime(2026, 11, 23, 16, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


def say_ready(server: ApiServer, ready: bool) -> None:
    """What the kubelet, or whoever sees that its node is gone, says of the head."""
    (pod,) = server.below(PODS)
    conditions = [it for it in pod["status"]["conditions"] if it["type"] != "Ready"]
    said = {"type": "Ready", "status": str(ready), "lastTransitionTime": pod["metadata"]["creationTimestamp"]}
    path = f"{PODS}/{pod['metadata']['name']}"
    server.put(path, pod | {"status": pod["status"] | {"conditions": [*conditions, said]}})


async def silence(minutes: int, readiness: list[bool]) -> dict[str, Any]:
    """The status after a head that samples has been silent for so long, and was said to be ready so, in turn."""
    server, clock, driver = ApiServer(), Clock(), SamplingDriver()
    key = put_sampling(server, "digits")
    dashboard, progress = Door(driver.dashboard), Door(driver.progress)
    async with server.open() as api, new_session() as session:
        async with dashboard.open() as first, progress.open() as second:
            operator = Operator(api, server, heads_at(session, first, second), Templates(), now=clock.now)
            while server.objects[f"{SAMPLINGS}/digits"].get("status", {}).get("phase") != "Running":
                await operator.controller.look(key)
                kubelet_moves(server)
                operator.hears()
        for minute in range(minutes + 1):
            say_ready(server, readiness[minute % len(readiness)])
            operator.hears()
            await operator.controller.look(key)
            clock.time += timedelta(minutes=1)
    status: dict[str, Any] = server.objects[f"{SAMPLINGS}/digits"]["status"]
    return status


@pytest.mark.parametrize(
    "readiness", [[True], [False], [True, False]], ids=["ready", "its node is gone", "now and then"]
)
def test_a_head_that_has_begun_to_sample_is_waited_for_five_minutes_ready_or_not(readiness: list[bool]) -> None:
    assert asyncio.run(silence(4, readiness))["phase"] == "Running"
    status = asyncio.run(silence(5, readiness))
    assert status["failure"]["reason"] == "HeadLost"
    assert status["failure"]["message"].startswith("The head has not answered for 5m00s")
