"""What is listed every minute, of all namespaces or of some, and what becomes of those that cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from ddpm_operator.controller import resync as module
from ddpm_operator.controller.resync import Resync, Within
from ddpm_operator.controller.work_queue import WorkQueue
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.client import ApiError, KubeApi
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.reconcile.observed import ObservedCluster, ObservedPod
from tests.fakes.heads import Door

LABELS = {"ddpm-ray.io/sampling": "digits", "ddpm-ray.io/sampling-uid": "uid-1", "ddpm-ray.io/attempt": "1"}


@dataclass
class Lists:
    """An API server that has one RayCluster in every namespace.

    Attributes:
        forbidden: namespaces without rights.
        kuberay: whether there are RayClusters at all.
        down: whether nothing works.
        more: further RayClusters of every namespace.
        failed: paths that were asked for meanwhile.
    """

    forbidden: set[str] = field(default_factory=set)
    kuberay: bool = True
    down: bool = False
    more: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    failed: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
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


Use = Callable[[Resync, Lists, ObjectCache[ObservedCluster]], Awaitable[None]]


def with_resync(lists: Lists, use: Use, *namespaces: str) -> None:
    async def run() -> None:
        async with Door(lists.answer).open() as address, ApiClient(Configuration(host=address)) as client:
            clusters: ObjectCache[ObservedCluster] = ObjectCache()
            pods: ObjectCache[ObservedPod] = ObjectCache()
            await asyncio.wait_for(use(Resync(KubeApi(client), clusters, pods, namespaces), lists, clusters), 20)

    asyncio.run(run())


def test_of_all_namespaces_there_is_one_list_of_each_kind() -> None:
    async def use(resync: Resync, lists: Lists, _: ObjectCache[ObservedCluster]) -> None:
        assert await resync.once() == {digits("research")}
        assert sorted(lists.asked) == ["/api/v1/pods", "/apis/ray.io/v1/rayclusters"]
        assert resync.within == Within(kuberay=True, namespaces=())

    with_resync(Lists(), use)


def test_of_some_namespaces_nothing_else_is_listed() -> None:
    async def use(resync: Resync, lists: Lists, _: ObjectCache[ObservedCluster]) -> None:
        assert await resync.once() == {digits("a"), digits("b")}
        assert all("/namespaces/a/" in path or "/namespaces/b/" in path for path in lists.asked)
        assert resync.within == Within(kuberay=True, namespaces=("a", "b"))

    with_resync(Lists(), use, "a", "b")


def test_a_namespace_without_rights_does_not_stop_the_others_and_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def use(resync: Resync, lists: Lists, _: ObjectCache[ObservedCluster]) -> None:
        for _ in range(3):
            assert await resync.once() == {digits("b")}
        assert resync.within.namespaces == ("b",)

    with_resync(Lists(forbidden={"a"}), use, "a", "b")
    assert [one.getMessage() for one in caplog.records if "left alone" in one.getMessage()] == [
        "the namespace a is left alone: the operator has no rights in it; if it was made anew, install the chart "
        "again, which brings its Role"
    ]


def test_without_rights_to_all_namespaces_there_is_no_start() -> None:
    async def use(resync: Resync, lists: Lists, _: ObjectCache[ObservedCluster]) -> None:
        lists.down = True
        with pytest.raises(ApiError, match="500"):
            await resync.once()

    with_resync(Lists(), use)


def test_a_cluster_without_kuberay_has_no_rayclusters() -> None:
    async def use(resync: Resync, lists: Lists, _: ObjectCache[ObservedCluster]) -> None:
        assert await resync.once() == set()
        assert not resync.within.kuberay

    with_resync(Lists(kuberay=False), use)


@pytest.mark.parametrize("trouble", ["KubeRay's CRD is away", "no rights in the namespace"])
def test_what_cannot_be_listed_is_not_lost(trouble: str) -> None:
    async def use(resync: Resync, lists: Lists, clusters: ObjectCache[ObservedCluster]) -> None:
        await resync.once()
        lists.kuberay = trouble != "KubeRay's CRD is away"
        lists.forbidden = {"a"} if lists.kuberay else set()
        assert await resync.once() == {digits("a"), digits("b")}
        assert [it.name for it in clusters.of(digits("a"))] == ["digits-1"]

    with_resync(Lists(), use, "a", "b")


def test_what_is_gone_where_it_could_be_listed_is_lost() -> None:
    async def use(resync: Resync, lists: Lists, clusters: ObjectCache[ObservedCluster]) -> None:
        lists.more = [{"metadata": cluster("b")["metadata"] | {"name": "digits-2", "uid": "second"}}]
        await resync.once()
        lists.more = []
        await resync.once()
        assert [it.uid for it in clusters.of(digits("b"))] == ["cluster-of-b"]

    with_resync(Lists(), use, "b")


def odd(uid: str) -> dict[str, Any]:
    """A RayCluster of no form that is known, such as another CRD would allow."""
    metadata = cluster("research")["metadata"] | {"name": "odd", "uid": uid}
    return {"metadata": metadata, "status": {"conditions": [{"type": 7}]}}


def test_one_odd_object_keeps_nothing_else_from_being_seen_and_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def use(resync: Resync, lists: Lists, clusters: ObjectCache[ObservedCluster]) -> None:
        for _ in range(2):
            assert await resync.once() == {digits("research")}
        assert [it.uid for it in clusters.of(digits("research"))] == ["cluster-of-research"]

    with_resync(Lists(more=[odd("odd")]), use)
    said = [one.getMessage() for one in caplog.records if "cannot be read" in one.getMessage()]
    assert said == [
        "/apis/ray.io/v1/rayclusters: odd is left out, as it cannot be read: "
        "status.conditions.0.type: Input should be a valid string"
    ]


def test_an_object_that_cannot_be_read_any_more_stays_as_it_was_known() -> None:
    async def use(resync: Resync, lists: Lists, clusters: ObjectCache[ObservedCluster]) -> None:
        lists.more = [{"metadata": odd("second")["metadata"]}]
        await resync.once()
        lists.more = [odd("second")]
        await resync.once()
        assert {it.uid for it in clusters.of(digits("research"))} == {"cluster-of-research", "second"}

    with_resync(Lists(), use)


@pytest.mark.parametrize("change", ["a namespace goes", "a namespace comes", "KubeRay comes"])
def test_what_can_be_watched_is_another_the_rounds_end(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    before, after = {
        "a namespace goes": (Lists(), Lists(forbidden={"a"})),
        "a namespace comes": (Lists(forbidden={"a"}), Lists()),
        "KubeRay comes": (Lists(kuberay=False), Lists()),
    }[change]

    async def use(resync: Resync, lists: Lists, _: ObjectCache[ObservedCluster]) -> None:
        await resync.once()
        rounds = asyncio.create_task(resync.for_ever(WorkQueue(nothing_to_do, 1, 1)))
        lists.down = True
        for _ in range(3):
            await lists.failed.get()
        assert not rounds.done(), "a server that is down for a while is no other world"
        lists.down, lists.forbidden, lists.kuberay = False, after.forbidden, after.kuberay
        await rounds

    with_resync(before, use, "a", "b")


async def nothing_to_do(_: ObjectKey) -> None:
    return None
