"""The preview of a running sampling: copied from the driver to a ConfigMap, and named in the status."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from aiohttp import web

from ddpm_operator.ray.head_client import new_session
from ddpm_operator.reconcile.preview import MAX_PREVIEW_BYTES
from tests.fakes.api_server import CREATED, SAMPLINGS, ApiServer, start_heads
from tests.fakes.heads import FakeServer
from tests.fakes.operator import FakeDriver, FakeOperator, connect_to, put_sampling

CONFIG_MAPS = "/api/v1/namespaces/research/configmaps"
PNG = b"\x89PNG\r\n\x1a\n"
LARGEST_PNG = PNG + bytes(MAX_PREVIEW_BYTES - len(PNG))


@dataclass
class SamplingDriver(FakeDriver):
    """A driver that never finishes and serves a preview."""

    preview: bytes = PNG

    async def progress(self, request: web.Request) -> web.StreamResponse:
        if not self.jobs:
            return web.Response(status=404)
        if request.path == "/grid.png":
            return web.Response(body=self.preview, content_type="image/png")
        figures = {"done": 8, "total": 16, "percent": 50.0, "samplesPerSecond": 1.0, "etaSeconds": 600.0}
        return web.json_response({"version": 1, "phase": "sampling", **figures, "message": ""})


async def preview_writes(server: ApiServer, driver: SamplingDriver, seconds: int) -> list[int]:
    """Returns how often the preview had been written after each second of phase Running."""
    key = put_sampling(server, "digits")
    clock = [datetime.fromisoformat(CREATED)]
    writes: list[int] = []
    async with (
        server.open() as api,
        FakeServer(driver.dashboard).open() as dashboard,
        FakeServer(driver.progress).open() as progress,
        new_session() as session,
    ):
        operator = FakeOperator(api, server, connect_to(session, dashboard, progress), now=lambda: clock[0])
        while len(writes) < seconds:
            start_heads(server)
            operator.sync_caches()
            await operator.controller.reconcile_one(key)
            if server.objects[f"{SAMPLINGS}/digits"]["status"]["phase"] == "Running":
                writes.append(sum(server.writes["applied", path] for _, path in server.writes))
            clock[0] += timedelta(seconds=1)
    return writes


@pytest.mark.parametrize("preview", [PNG, LARGEST_PNG], ids=["small", "largest"])
def test_the_preview_is_written_every_30_seconds(preview: bytes) -> None:
    server = ApiServer()
    writes = asyncio.run(preview_writes(server, SamplingDriver(preview=preview), 65))
    assert writes == [1] * 30 + [2] * 30 + [3] * 5
    (config_map,) = server.objects_in(CONFIG_MAPS)
    assert server.objects[f"{SAMPLINGS}/digits"]["status"]["output"]["grid"] == config_map["metadata"]["name"]
    assert base64.b64decode(config_map["binaryData"]["grid.png"]) == preview
    assert config_map["metadata"]["ownerReferences"][0]["name"] == "digits"


@pytest.mark.parametrize("preview", [LARGEST_PNG + b"0", b"<html>"], ids=["too large", "not a PNG"])
def test_an_invalid_preview_is_ignored(preview: bytes) -> None:
    server = ApiServer()
    assert not any(asyncio.run(preview_writes(server, SamplingDriver(preview=preview), 35)))
    status = server.objects[f"{SAMPLINGS}/digits"]["status"]
    assert (status["phase"], status["output"].get("grid")) == ("Running", None)
