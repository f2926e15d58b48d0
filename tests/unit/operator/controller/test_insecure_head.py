"""A head without token authentication, or with a vulnerable Ray: no job is submitted to it, and it is deleted."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from importlib.metadata import requires
from typing import Any

import pytest
from aiohttp import web

from ddpm_operator.ray.head_client import HeadClient, HeadDidNotAnswer
from ddpm_operator.ray.responses import MIN_RAY_VERSION
from tests.fakes.api_server import SAMPLINGS, ApiServer
from tests.fakes.heads import TOKENS, FakeServer, Handler, call_head, responds
from tests.fakes.operator import SPEC, FakeDriver, run_sampling


def dashboard(version: str, status_without_token: int = 401) -> Handler:
    """Returns a handler that responds as the dashboard of this version of Ray."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers and status_without_token != 200:
            return web.Response(status=status_without_token)
        body = {"version": "4", "ray_version": version, "ray_commit": "…"} if "version" in request.path else []
        return web.json_response(body)

    return handler


@pytest.mark.parametrize("version", ["2.54.0", "2.60.0", "2.100.0rc1", "3.0.0.dev0"])
def test_a_ray_that_requires_its_token_is_secure(version: str) -> None:
    server = FakeServer(dashboard(version))
    assert call_head(HeadClient.insecure_reason, server) is None
    assert server.requests == [("GET", "/api/version", TOKENS.ray), ("GET", "/api/jobs/", "")]


@pytest.mark.parametrize(
    ("version", "status_without_token", "reason"),
    [
        ("2.9.0", 200, "the image has Ray 2.9.0, which is older than 2.54 and has known vulnerabilities"),
        ("2.53.1", 401, "the image has Ray 2.53.1, which is older than 2.54 and has known vulnerabilities"),
        ("nightly", 401, "the image has Ray nightly, which is older than 2.54 and has known vulnerabilities"),
        ("2.60.0", 200, "the image's Ray 2.60.0 accepts requests without a token (200 instead of 401)"),
        ("2.60.0", 302, "the image's Ray 2.60.0 accepts requests without a token (302 instead of 401)"),
    ],
)
def test_an_old_or_open_ray_is_insecure(version: str, status_without_token: int, reason: str) -> None:
    server = FakeServer(dashboard(version, status_without_token))
    assert call_head(HeadClient.insecure_reason, server) == reason


@pytest.mark.parametrize(
    "handler",
    [
        responds(500, "starting"),
        responds(200, "no JSON"),
        responds(200, "{}"),
        responds(200, json.dumps({"ray_version": "2" * 99})),
    ],
)
def test_an_invalid_version_response_counts_as_no_answer(handler: Handler) -> None:
    with pytest.raises(HeadDidNotAnswer):
        call_head(HeadClient.insecure_reason, FakeServer(handler))


def test_inference_requires_the_same_minimum_ray() -> None:
    (requirement,) = [it for it in requires("ddpm-inference") or () if it.startswith("ray")]
    assert f">={'.'.join(map(str, MIN_RAY_VERSION))}" in requirement


@dataclass
class OldRay(FakeDriver):
    """A head whose Ray has no token authentication."""

    submitted: list[dict[str, Any]] = field(default_factory=list)

    async def dashboard(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            self.submitted.append(await request.json())
        return await dashboard("2.51.0", 200)(request)


def test_an_image_with_an_old_ray_fails_without_a_cluster() -> None:
    server, driver = ApiServer(), OldRay()
    asyncio.run(run_sampling(server, driver, spec=SPEC | {"keepClusterSeconds": 3600}))
    status = server.objects[f"{SAMPLINGS}/digits"]["status"]
    assert (status["phase"], status["attempt"], status["failure"]["reason"]) == ("Failed", 1, "InvalidSpec")
    assert (
        "the image has Ray 2.51.0, which is older than 2.54 and has known vulnerabilities"
        in status["failure"]["message"]
    )
    assert "an image of Ray 2.54 or newer" in status["failure"]["hint"]
    assert driver.submitted == []
    assert {path.split("/")[-2] for path in server.objects} <= {"ddpmsamplings", "events"}
