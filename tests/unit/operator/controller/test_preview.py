"""The picture of a sampling on its way: from the driver to a ConfigMap, and named by the status."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from aiohttp import web

from ddpm_operator.manifests.templating import Templates
from ddpm_operator.ray.head_client import new_session
from tests.fakes.api_server import BEGAN, SAMPLINGS, ApiServer, kubelet_moves
from tests.fakes.heads import Door
from tests.unit.operator.controller.test_controller import Driver, Operator, heads_at, put_sampling

CONFIG_MAPS = "/api/v1/namespaces/research/configmaps"
PNG = b"\x89PNG\r\n\x1a\n"
LARGEST = PNG + bytes(48 * 1024 - len(PNG))


@dataclass
class Painter(Driver):
    """A driver that does not come to an end, and shows what it has."""

    grid: bytes = PNG

    async def progress(self, request: web.Request) -> web.StreamResponse:
        if not self.jobs:
            return web.Response(status=404)
        if request.path == "/grid.png":
            return web.Response(body=self.grid, content_type="image/png")
        figures = {"done": 8, "total": 16, "percent": 50.0, "samplesPerSecond": 1.0, "etaSeconds": 600.0}
        return web.json_response({"version": 1, "phase": "sampling", **figures, "message": ""})


async def watched(server: ApiServer, driver: Painter, seconds: int) -> list[int]:
    """How often the picture was written by each second after the driver was first heard."""
    key = put_sampling(server, "digits")
    clock = [datetime.fromisoformat(BEGAN)]
    dashboard, progress = Door(driver.dashboard), Door(driver.progress)
    written: list[int] = []
    async with (
        server.open() as api,
        dashboard.open() as first,
        progress.open() as second,
        new_session() as session,
    ):
        operator = Operator(api, server, heads_at(session, first, second), Templates(), now=lambda: clock[0])
        while len(written) < seconds:
            kubelet_moves(server)
            operator.hears()
            await operator.controller.look(key)
            if server.objects[f"{SAMPLINGS}/digits"]["status"]["phase"] == "Running":
                written.append(sum(server.changed["applied", path] for _, path in server.changed))
            clock[0] += timedelta(seconds=1)
    return written


@pytest.mark.parametrize("grid", [PNG, LARGEST], ids=["small", "as large as may be"])
def test_the_picture_is_there_while_it_runs_and_new_twice_a_minute(grid: bytes) -> None:
    server = ApiServer()
    written = asyncio.run(watched(server, Painter(grid=grid), 65))
    assert written == [1] * 30 + [2] * 30 + [3] * 5
    (kept,) = server.below(CONFIG_MAPS)
    assert server.objects[f"{SAMPLINGS}/digits"]["status"]["output"]["grid"] == kept["metadata"]["name"]
    assert base64.b64decode(kept["binaryData"]["grid.png"]) == grid
    assert kept["metadata"]["ownerReferences"][0]["name"] == "digits"


@pytest.mark.parametrize("grid", [LARGEST + b"0", b"<html>"], ids=["too large", "no picture"])
def test_what_is_no_picture_or_does_not_fit_is_not_written_and_disturbs_nothing(grid: bytes) -> None:
    server = ApiServer()
    assert not any(asyncio.run(watched(server, Painter(grid=grid), 35)))
    status = server.objects[f"{SAMPLINGS}/digits"]["status"]
    assert (status["phase"], status["output"].get("grid")) == ("Running", None)
