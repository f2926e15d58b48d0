"""A head that would let in whoever asks: nothing is run on it, and it does not stay."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from importlib.metadata import requires
from typing import Any

import pytest
from aiohttp import web

from ddpm_operator.manifests.templating import Templates
from ddpm_operator.ray.head_client import HeadClient, HeadDidNotAnswer
from ddpm_operator.ray.responses import OLDEST_RAY
from tests.fakes.api_server import SAMPLINGS, ApiServer
from tests.fakes.heads import TOKENS, Answer, Door, ask_head, says
from tests.unit.operator.controller.test_controller import SPEC, Driver, live


def dashboard(version: str, without_token: int = 401) -> Answer:
    """Ray's dashboard, as one of this version answers."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers and without_token != 200:
            return web.Response(status=without_token)
        found = {"version": "4", "ray_version": version, "ray_commit": "…"} if "version" in request.path else []
        return web.json_response(found)

    return answer


@pytest.mark.parametrize("version", ["2.54.0", "2.60.0", "2.100.0rc1", "3.0.0.dev0"])
def test_a_ray_that_asks_for_its_token_is_good_and_gets_the_token_only_where_it_must(version: str) -> None:
    door = Door(dashboard(version))
    assert ask_head(HeadClient.objection, door) is None
    assert door.asked == [("GET", "/api/version", TOKENS.ray), ("GET", "/api/jobs/", "")]


@pytest.mark.parametrize(
    ("version", "without_token", "says"),
    [
        ("2.9.0", 200, "the image has Ray 2.9.0, which is older than 2.54 and has known holes"),
        ("2.53.1", 401, "the image has Ray 2.53.1, which is older than 2.54 and has known holes"),
        ("nightly", 401, "the image has Ray nightly, which is older than 2.54 and has known holes"),
        ("2.60.0", 200, "the image's Ray 2.60.0 answers whoever asks without the token (200 instead of 401)"),
        ("2.60.0", 302, "the image's Ray 2.60.0 answers whoever asks without the token (302 instead of 401)"),
    ],
)
def test_one_that_is_too_old_or_lets_in_whoever_asks_is_objected_to(
    version: str, without_token: int, says: str
) -> None:
    assert ask_head(HeadClient.objection, Door(dashboard(version, without_token))) == says


@pytest.mark.parametrize(
    "answer",
    [
        says(500, "it starts"),
        says(200, "no JSON"),
        says(200, "{}"),
        says(200, json.dumps({"ray_version": "2" * 99})),
    ],
)
def test_one_that_does_not_say_what_it_is_is_silent(answer: Answer) -> None:
    with pytest.raises(HeadDidNotAnswer):
        ask_head(HeadClient.objection, Door(answer))


def test_both_halves_refuse_the_same_ray() -> None:
    (needed,) = [it for it in requires("ddpm-inference") or () if it.startswith("ray")]
    assert f">={'.'.join(map(str, OLDEST_RAY))}" in needed


@dataclass
class OldRay(Driver):
    """A head of an image of long ago, which knows no tokens."""

    asked: list[dict[str, Any]] = field(default_factory=list)

    async def dashboard(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            self.asked.append(await request.json())
        return await dashboard("2.51.0", 200)(request)


def test_an_image_with_a_ray_that_knows_no_tokens_is_refused_once_its_head_answers_and_nothing_is_kept() -> None:
    server, driver = ApiServer(), OldRay()
    asyncio.run(live(server, "refused", driver, Templates(), SPEC | {"keepClusterSeconds": 3600}))
    status = server.objects[f"{SAMPLINGS}/digits"]["status"]
    assert (status["phase"], status["attempt"], status["failure"]["reason"]) == ("Failed", 1, "InvalidSpec")
    assert "the image has Ray 2.51.0, which is older than 2.54 and has known holes" in status["failure"]["message"]
    assert "an image of Ray 2.54 or newer" in status["failure"]["hint"]
    assert driver.asked == []
    assert {path.split("/")[-2] for path in server.objects} <= {"ddpmsamplings", "events"}
