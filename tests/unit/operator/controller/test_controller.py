"""Whole lives of a sampling over HTTP, in which any one request goes wrong, or the operator dies after it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web

from ddpm_operator.controller.controller import Controller
from ddpm_operator.controller.executor import ActionExecutor
from ddpm_operator.controller.metrics import Metrics
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.client import KubeApi
from ddpm_operator.kube.objects import ObjectKey, RayCluster, RayPod
from ddpm_operator.manifests.render import OperatorPods
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.limits import UNLIMITED, Limits
from ddpm_operator.ray.head_client import HeadClient, new_session
from ddpm_operator.reconcile.observed import ObservedCluster, ObservedPod
from tests.fakes.api_server import CLUSTERS, PODS, SAMPLINGS, ApiServer, Trouble, kubelet_moves
from tests.fakes.heads import Door

N = 16
MOST_LOOKS = 60
SPEC = {"model": {"uri": "builtin://mnist"}, "samples": N, "output": {"uri": "s3://bucket/digits"}}
Failure = Literal["refused", "lost", "dies"]


@dataclass
class Driver:
    """What runs in a head: it takes jobs, and says its last word to one question only."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    has_word: bool = False

    async def dashboard(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.Response(status=401)
        if request.path == "/api/version":
            return web.json_response({"version": "4", "ray_version": "2.60.0"})
        if request.method == "POST":
            asked = await request.json()
            if asked["submission_id"] in [job["submission_id"] for job in self.jobs]:
                return web.Response(status=500, text="ValueError: Job already exists.")
            self.jobs.append({"type": "SUBMISSION", "status": "RUNNING", **asked})
            self.has_word = True
            return web.json_response({})
        return web.json_response(self.jobs)

    async def progress(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/progress" or not self.has_word:
            return web.Response(status=404)
        self.has_word = False
        self.jobs[-1]["status"] = "SUCCEEDED"
        outcome = {
            "manifestSha256": "ab" * 32,
            "samples": N,
            "sampled": N,
            "output": "s3://bucket/digits",
            "grid": None,
        }
        figures = {"done": N, "total": N, "percent": 100.0, "samplesPerSecond": 1.0, "etaSeconds": 0.0}
        return web.json_response({"version": 1, "phase": "complete", **figures, "message": "", "outcome": outcome})


class Operator:
    """An operator that has just started: what it knows of clusters and pods it has listed."""

    def __init__(
        self,
        api: KubeApi,
        server: ApiServer,
        find_head: Callable[[str, Tokens], HeadClient],
        templates: Templates,
        limits: Limits = UNLIMITED,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.clusters: ObjectCache[ObservedCluster] = ObjectCache()
        self.pods: ObjectCache[ObservedPod] = ObjectCache()
        self._server = server
        pods = OperatorPods("ddpm-ray", {"app": "operator"})
        work = ActionExecutor(api, self.clusters, templates, bytes(32), pods, find_head)
        image = WorkerImage("worker:1", "2.60.0")
        self.controller = Controller(
            api, work, self.clusters, self.pods, image, Metrics(self.clusters.owners), limits, now
        )

    def hears(self) -> None:
        """Its watches have caught up."""
        clusters = [RayCluster.model_validate(it).sight() for it in self._server.below(CLUSTERS)]
        self.clusters.listed([it for it in clusters if it], self.clusters.known())
        pods = [RayPod.model_validate(it).sight() for it in self._server.below(PODS)]
        self.pods.listed([it for it in pods if it], self.pods.known())


def put_sampling(server: ApiServer, name: str, spec: dict[str, Any] = SPEC) -> ObjectKey:
    document = {
        "apiVersion": "ddpm-ray.io/v1alpha1",
        "kind": "DDPMSampling",
        "metadata": {"name": name},
        "spec": spec,
    }
    return ObjectKey("research", name, server.put(f"{SAMPLINGS}/{name}", document)["metadata"]["uid"])


async def live(
    server: ApiServer, failure: Failure, driver: Driver, templates: Templates, spec: dict[str, Any] = SPEC
) -> int:
    """Looks until the sampling is done and cleaned up; returns how many requests that took."""
    key = put_sampling(server, "digits", spec)
    dashboard, progress = Door(driver.dashboard), Door(driver.progress)
    async with (
        server.open() as api,
        dashboard.open() as first,
        progress.open() as second,
        new_session() as session,
    ):
        operator = Operator(api, server, heads_at(session, first, second), templates)
        met = False
        for _ in range(MOST_LOOKS):
            kubelet_moves(server)
            # After a trouble the watches are late as well.
            if not met or failure == "dies":
                operator.hears()
            before = server.requests
            after = await operator.controller.look(key)
            met = server.fails_at is not None and before <= server.fails_at < server.requests
            if failure == "dies" and met:
                operator = Operator(api, server, heads_at(session, first, second), templates)
            elif after is None:
                return server.requests
    raise AssertionError(f"it is not done after {MOST_LOOKS} looks: {server.objects}")


def heads_at(session: aiohttp.ClientSession, dashboard: str, driver: str) -> Callable[[str, Tokens], HeadClient]:
    return lambda ip, tokens: HeadClient(session, dashboard, driver, tokens)


def life(
    fails_at: int | None, failure: Failure, away: range = range(0), away_with: int = 500
) -> tuple[ApiServer, Driver, int]:
    trouble: Trouble = "refused" if failure == "refused" else "lost"
    server = ApiServer(fails_at=fails_at, trouble=trouble, away=away, away_with=away_with)
    driver = Driver()
    return server, driver, asyncio.run(live(server, failure, driver, Templates()))


def reasons(server: ApiServer) -> list[str]:
    return [it["reason"] for it in server.below("/apis/events.k8s.io/v1/namespaces/research/events")]


def assert_all_is_well(server: ApiServer, driver: Driver) -> None:
    status = server.objects[f"{SAMPLINGS}/digits"]["status"]
    held = {one["type"] for one in status["conditions"] if one["status"] == "True"}
    assert {"Complete", "CleanedUp"} <= held, status
    assert (status["phase"], status["attempt"], status["progress"]["done"]) == ("Succeeded", 1, N)
    assert {path.split("/")[-2] for path in server.objects} <= {"ddpmsamplings", "events"}
    made = [count for (what, path), count in server.changed.items() if what == "made" and CLUSTERS in path]
    assert made == [1]
    assert len({job["submission_id"] for job in driver.jobs}) == len(driver.jobs)
    assert max((reasons(server).count(reason) for reason in reasons(server)), default=0) <= 1


def test_a_life_in_which_nothing_goes_wrong() -> None:
    server, driver, requests = life(None, "refused")
    assert_all_is_well(server, driver)
    assert len(driver.jobs) == 1
    assert json.loads(driver.jobs[0]["runtime_env"]["env_vars"]["DDPM_JOB"])["n_samples"] == N
    assert reasons(server) == ["Accepted", "ClusterCreated", "Completed", "ClusterDeleted"]
    assert requests < 25


@pytest.mark.parametrize("failure", ["refused", "lost", "dies"])
def test_whichever_request_goes_wrong_all_ends_well(failure: Failure) -> None:
    _, _, requests = life(None, failure)
    for fails_at in range(requests):
        server, driver, _ = life(fails_at, failure)
        assert_all_is_well(server, driver)
        # What an operator has heard it keeps, if only itself survives.
        assert failure == "dies" or len(driver.jobs) == 1


@pytest.mark.parametrize("away_with", [429, 500, 503, 0], ids=["429", "500", "503", "no answer"])
def test_an_api_server_that_is_away_for_a_while_changes_nothing_whenever_it_goes(away_with: int) -> None:
    _, _, requests = life(None, "refused")
    for first in range(requests):
        server, driver, _ = life(None, "refused", range(first, first + 8), away_with)
        assert_all_is_well(server, driver)
        assert len(driver.jobs) == 1
