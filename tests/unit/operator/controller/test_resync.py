"""The resync: what it lists, and what happens with namespaces and objects that cannot be listed or decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from ddpm_operator.controller import resync as module
from ddpm_operator.controller.resync import Resync, WatchScope
from ddpm_operator.controller.work_queue import WorkQueue
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.client import ApiError, KubeApi
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.reconcile.observed import ObservedCluster, ObservedPod
from tests.fakes.heads import FakeServer

LABELS = {"ddpm-ray.io/sampling": "digits", "ddpm-ray.io/sampling-uid": "uid-1", "ddpm-ray.io/attempt": "1"}


@dataclass
class ListServer:
    """An API server with one RayCluster in every namespace.

    Attributes:
        forbidden: namespaces in which the operator has no rights.
        kuberay: whether the RayCluster CRD exists.
        down: whether every request fails.
        more: further RayClusters in every namespace.
        requests: paths of all requests.
        failed: paths of requests that failed because the server was down.
    """

    forbidden: set[str] = field(default_factory=set)
    kuberay: bool = True
    down: bool = False
    more: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failed: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        namespace = request.path.split("/namespaces/")[-1].split("/")[0] if "/namespaces/" in request.path else ""
        if self.down:
            self.failed.put_nowait(request.path)
            return web.json_response({"message": "down"}, status=500)
        if namespace in self.forbidden:
            return web.json_response({"reason": "Forbidden", "message": "no rights"}, status=403)
        if not request.path.endswith("/rayclusters"):
            return web.json_response({"items": []})
        if not self.kuberay:
            return web.json_response({"reason": "NotFound", "message": "not found"}, status=404)
        return web.json_response({"items": [cluster(namespace or "research"), *self.more]})


def cluster(namespace: str) -> dict[str, Any]:
    metadata = {
        "name": "digits-1",
        "namespace": namespace,
        "uid": f"cluster-of-{namespace}",
        "resourceVersion": "1",
        "creationTimestamp": "2026-11-23T16:00:00Z",
        "labels": LABELS,
    }
    return {"metadata": metadata}


def digits(namespace: str) -> ObjectKey:
    return ObjectKey(namespace, "digits", "uid-1")


Use = Callable[[Resync, ListServer, ObjectCache[ObservedCluster]], Awaitable[None]]


def with_resync(lists: ListServer, use: Use, *namespaces: str) -> None:
    async def run() -> None:
        async with FakeServer(lists.handle).open() as address, ApiClient(Configuration(host=address)) as client:
            clusters: ObjectCache[ObservedCluster] = ObjectCache()
            pods: ObjectCache[ObservedPod] = ObjectCache()
            await asyncio.wait_for(use(Resync(KubeApi(client), clusters, pods, namespaces), lists, clusters), 20)

    asyncio.run(run())


def test_all_namespaces_take_one_list_of_each_kind() -> None:
    async def use(resync: Resync, lists: ListServer, _: ObjectCache[ObservedCluster]) -> None:
        assert await resync.list_all() == {digits("research")}
        assert sorted(lists.requests) == ["/api/v1/pods", "/apis/ray.io/v1/rayclusters"]
        assert resync.scope == WatchScope(kuberay=True, namespaces=())

    with_resync(ListServer(), use)


def test_only_configured_namespaces_are_listed() -> None:
    async def use(resync: Resync, lists: ListServer, _: ObjectCache[ObservedCluster]) -> None:
        assert await resync.list_all() == {digits("a"), digits("b")}
        assert all("/namespaces/a/" in path or "/namespaces/b/" in path for path in lists.requests)
        assert resync.scope == WatchScope(kuberay=True, namespaces=("a", "b"))

    with_resync(ListServer(), use, "a", "b")


def test_a_forbidden_namespace_is_skipped_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def use(resync: Resync, lists: ListServer, _: ObjectCache[ObservedCluster]) -> None:
        for _ in range(3):
            assert await resync.list_all() == {digits("b")}
        assert resync.scope.namespaces == ("b",)

    with_resync(ListServer(forbidden={"a"}), use, "a", "b")
    assert [one.getMessage() for one in caplog.records if "skipping" in one.getMessage()] == [
        "skipping namespace a: the operator has no rights in it; if the namespace was created again, upgrade the "
        "chart, which restores its Role"
    ]


def test_a_failed_list_raises() -> None:
    async def use(resync: Resync, lists: ListServer, _: ObjectCache[ObservedCluster]) -> None:
        lists.down = True
        with pytest.raises(ApiError, match="500"):
            await resync.list_all()

    with_resync(ListServer(), use)


def test_without_the_crd_there_are_no_clusters() -> None:
    async def use(resync: Resync, lists: ListServer, _: ObjectCache[ObservedCluster]) -> None:
        assert await resync.list_all() == set()
        assert not resync.scope.kuberay

    with_resync(ListServer(kuberay=False), use)


@pytest.mark.parametrize("failure", ["CRD missing", "namespace forbidden"])
def test_objects_that_cannot_be_listed_stay_cached(failure: str) -> None:
    async def use(resync: Resync, lists: ListServer, clusters: ObjectCache[ObservedCluster]) -> None:
        await resync.list_all()
        lists.kuberay = failure != "CRD missing"
        lists.forbidden = {"a"} if lists.kuberay else set()
        assert await resync.list_all() == {digits("a"), digits("b")}
        assert [it.name for it in clusters.for_sampling(digits("a"))] == ["digits-1"]

    with_resync(ListServer(), use, "a", "b")


def test_objects_missing_from_a_list_are_removed() -> None:
    async def use(resync: Resync, lists: ListServer, clusters: ObjectCache[ObservedCluster]) -> None:
        lists.more = [{"metadata": cluster("b")["metadata"] | {"name": "digits-2", "uid": "second"}}]
        await resync.list_all()
        lists.more = []
        await resync.list_all()
        assert [it.uid for it in clusters.for_sampling(digits("b"))] == ["cluster-of-b"]

    with_resync(ListServer(), use, "b")


def invalid_cluster(uid: str) -> dict[str, Any]:
    """Returns a RayCluster that cannot be decoded."""
    metadata = cluster("research")["metadata"] | {"name": "invalid", "uid": uid}
    return {"metadata": metadata, "status": {"conditions": [{"type": 7}]}}


def test_an_invalid_object_is_skipped_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def use(resync: Resync, lists: ListServer, clusters: ObjectCache[ObservedCluster]) -> None:
        for _ in range(2):
            assert await resync.list_all() == {digits("research")}
        assert [it.uid for it in clusters.for_sampling(digits("research"))] == ["cluster-of-research"]

    with_resync(ListServer(more=[invalid_cluster("invalid")]), use)
    logged = [one.getMessage() for one in caplog.records if "invalid" in one.getMessage()]
    assert logged == [
        "/apis/ray.io/v1/rayclusters: ignoring invalid, which is invalid: "
        "status.conditions.0.type: Input should be a valid string"
    ]


def test_an_object_that_becomes_invalid_stays_cached() -> None:
    async def use(resync: Resync, lists: ListServer, clusters: ObjectCache[ObservedCluster]) -> None:
        lists.more = [{"metadata": invalid_cluster("second")["metadata"]}]
        await resync.list_all()
        lists.more = [invalid_cluster("second")]
        await resync.list_all()
        assert {it.uid for it in clusters.for_sampling(digits("research"))} == {"cluster-of-research", "second"}

    with_resync(ListServer(), use)


@pytest.mark.parametrize("change", ["namespace becomes forbidden", "namespace becomes allowed", "KubeRay is installed"])
def test_run_returns_when_the_scope_changes(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(module, "RESYNC_SECONDS", 0.01)
    before, after = {
        "namespace becomes forbidden": (ListServer(), ListServer(forbidden={"a"})),
        "namespace becomes allowed": (ListServer(forbidden={"a"}), ListServer()),
        "KubeRay is installed": (ListServer(kuberay=False), ListServer()),
    }[change]

    async def use(resync: Resync, lists: ListServer, _: ObjectCache[ObservedCluster]) -> None:
        await resync.list_all()
        running = asyncio.create_task(resync.run(WorkQueue(do_nothing, 1, 1)))
        lists.down = True
        for _ in range(3):
            await lists.failed.get()
        assert not running.done(), "an outage is no change of scope"
        lists.down, lists.forbidden, lists.kuberay = False, after.forbidden, after.kuberay
        await running

    with_resync(before, use, "a", "b")


async def do_nothing(_: ObjectKey) -> None:
    return None
