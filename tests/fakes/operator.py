"""The operator's controller, connected to a fake API server and fake heads over HTTP, without kopf and a work queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import aiohttp
from aiohttp import web

from ddpm_operator.controller.admission import AdmissionQueue
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
from tests.fakes.api_server import CLUSTERS, PODS, SAMPLINGS, ApiServer, start_heads
from tests.fakes.heads import FakeServer, not_found, responds

N = 16
SPEC = {"model": {"uri": "builtin://mnist"}, "samples": N, "output": {"uri": "s3://bucket/digits"}}
# What happens at one request: it is rejected, its response is lost, or the operator dies after it.
Failure = Literal["rejected", "response lost", "operator dies"]
_MAX_RECONCILES = 60

ConnectToHead = Callable[[str, Tokens], HeadClient]


@dataclass
class FakeDriver:
    """A head that accepts jobs, and a driver that finishes at once and serves its outcome to one request only."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    has_outcome: bool = False

    async def dashboard(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.Response(status=401)
        if request.path == "/api/version":
            return web.json_response({"version": "4", "ray_version": "2.60.0"})
        if request.method == "POST":
            job = await request.json()
            if job["submission_id"] in [it["submission_id"] for it in self.jobs]:
                return web.Response(status=500, text="ValueError: Job already exists.")
            self.jobs.append({"type": "SUBMISSION", "status": "RUNNING", **job})
            self.has_outcome = True
            return web.json_response({})
        return web.json_response(self.jobs)

    async def progress(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/progress" or not self.has_outcome:
            return web.Response(status=404)
        self.has_outcome = False
        self.jobs[-1]["status"] = "SUCCEEDED"
        return web.json_response(self.outcome_document())

    def outcome_document(self) -> dict[str, Any]:
        """Returns the last progress document."""
        outcome = {
            "manifestSha256": "ab" * 32,
            "samples": N,
            "sampled": N,
            "output": "s3://bucket/digits",
            "grid": None,
        }
        figures = {"done": N, "total": N, "percent": 100.0, "samplesPerSecond": 1.0, "etaSeconds": 0.0}
        return {"version": 1, "phase": "complete", **figures, "message": "", "outcome": outcome}


class FakeOperator:
    """The controller of an operator process that has just started, with empty caches.

    Attributes:
        clusters, pods, admission, metrics: what `main.run` creates beside the controller.
    """

    def __init__(
        self,
        api: KubeApi,
        server: ApiServer,
        connect_to_head: ConnectToHead,
        templates: Templates | None = None,
        limits: Limits = UNLIMITED,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.clusters: ObjectCache[ObservedCluster] = ObjectCache()
        self.pods: ObjectCache[ObservedPod] = ObjectCache()
        self.admission = AdmissionQueue(limits, self.clusters.owners)
        self.metrics = Metrics(self.clusters.owners)
        self._server = server
        own_pods = OperatorPods("ddpm-ray", {"app": "operator"})
        self.controller = Controller(
            api,
            ActionExecutor(api, self.clusters, templates or Templates(), bytes(32), own_pods, connect_to_head),
            self.clusters,
            self.pods,
            WorkerImage("worker:1", "2.60.0"),
            self.admission,
            self.metrics,
            limits,
            now,
        )

    def sync_caches(self) -> None:
        """Brings the caches up to date with the API server, as watches do."""
        clusters = [RayCluster.model_validate(it).versioned() for it in self._server.objects_in(CLUSTERS)]
        self.clusters.apply_list([it for it in clusters if it], self.clusters.known_uids())
        pods = [RayPod.model_validate(it).versioned() for it in self._server.objects_in(PODS)]
        self.pods.apply_list([it for it in pods if it], self.pods.known_uids())


def connect_to(session: aiohttp.ClientSession, dashboard: str, driver: str) -> ConnectToHead:
    """Returns a function that connects to these two URLs for every head."""
    return lambda ip, tokens: HeadClient(session, dashboard, driver, tokens)


def put_sampling(server: ApiServer, name: str, spec: dict[str, Any] = SPEC) -> ObjectKey:
    """Stores a DDPMSampling in the API server; returns its key."""
    document = {
        "apiVersion": "ddpm-ray.io/v1alpha1",
        "kind": "DDPMSampling",
        "metadata": {"name": name},
        "spec": spec,
    }
    return ObjectKey("research", name, server.put(f"{SAMPLINGS}/{name}", document)["metadata"]["uid"])


async def run_sampling(
    server: ApiServer,
    driver: FakeDriver,
    failure: Failure = "rejected",
    templates: Templates | None = None,
    spec: dict[str, Any] = SPEC,
) -> int:
    """Reconciles a sampling `digits` until it has ended and is cleaned up; returns the number of API requests.

    Args:
        failure: what happens at the request `server.fail_at`.
    """
    key = put_sampling(server, "digits", spec)
    templates = templates or Templates()
    async with (
        server.open() as api,
        FakeServer(driver.dashboard).open() as dashboard,
        FakeServer(driver.progress).open() as progress,
        new_session() as session,
    ):
        connect = connect_to(session, dashboard, progress)
        operator = FakeOperator(api, server, connect, templates)
        failed = False
        for _ in range(_MAX_RECONCILES):
            start_heads(server)
            # After a failure the watches are late, too.
            if not failed or failure == "operator dies":
                operator.sync_caches()
            before = server.requests
            requeue_after = await operator.controller.reconcile_one(key)
            failed = server.fail_at is not None and before <= server.fail_at < server.requests
            if failure == "operator dies" and failed:
                operator = FakeOperator(api, server, connect, templates)
            elif requeue_after is None:
                return server.requests
    raise AssertionError(f"the sampling has not ended after {_MAX_RECONCILES} reconciles: {server.objects}")


def assert_succeeded(server: ApiServer, driver: FakeDriver) -> None:
    """Asserts that the sampling `digits` is complete after one attempt, and that nothing is left or was done twice."""
    status = server.objects[f"{SAMPLINGS}/digits"]["status"]
    true_conditions = {it["type"] for it in status["conditions"] if it["status"] == "True"}
    assert {"Complete", "CleanedUp"} <= true_conditions, status
    assert (status["phase"], status["attempt"], status["progress"]["done"]) == ("Succeeded", 1, N)
    assert {path.split("/")[-2] for path in server.objects} <= {"ddpmsamplings", "events"}
    assert clusters_created(server) == [1]
    assert len({job["submission_id"] for job in driver.jobs}) == len(driver.jobs)
    reasons = event_reasons(server)
    assert len(set(reasons)) == len(reasons)


def clusters_created(server: ApiServer) -> list[int]:
    """Returns how often each RayCluster was created."""
    return [number for (verb, path), number in server.writes.items() if verb == "created" and CLUSTERS in path]


def event_reasons(server: ApiServer) -> list[str]:
    return [it["reason"] for it in server.objects_in("/apis/events.k8s.io/v1/namespaces/research/events")]


Use = Callable[[FakeOperator, ApiServer, list[ObjectKey]], Awaitable[None]]


def with_ready_heads(use: Use, dashboard: FakeServer, samplings: int = 1) -> ApiServer:
    """Calls `use` with samplings `digits-0`, `digits-1` ... whose heads are ready and have no driver yet."""

    async def run() -> ApiServer:
        server = ApiServer()
        async with (
            asyncio.timeout(30.0),
            server.open() as api,
            dashboard.open() as dashboard_url,
            FakeServer(not_found()).open() as driver_url,
            new_session() as session,
        ):
            operator = FakeOperator(api, server, connect_to(session, dashboard_url, driver_url))
            keys = [put_sampling(server, f"digits-{number}") for number in range(samplings)]
            for key in keys:
                while not [pod for pod in operator.pods.for_sampling(key) if pod.ready]:
                    await operator.controller.reconcile_one(key)
                    start_heads(server)
                    operator.sync_caches()
            await use(operator, server, keys)
        return server

    return asyncio.run(run())


def orphaned_cluster(*, name_reused: bool = False) -> tuple[ApiServer, ObjectKey]:
    """Creates a RayCluster without ownerReferences whose sampling was deleted while no operator ran.

    Args:
        name_reused: whether another sampling of the same name has been created since.
    """

    async def do_nothing(*_: object) -> None:
        return None

    server = with_ready_heads(do_nothing, FakeServer(responds(200, "[]")))
    path = f"{SAMPLINGS}/digits-0"
    uid = server.objects.pop(path)["metadata"]["uid"]
    for cluster in server.objects_in(CLUSTERS):
        del cluster["metadata"]["ownerReferences"]
    if name_reused:
        put_sampling(server, "digits-0")
    return server, ObjectKey("research", "digits-0", uid)
