"""Deletions of objects that are gone already, are held by a finalizer, or cannot be deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ddpm_operator.api import DDPMSampling
from ddpm_operator.controller.executor import ActionExecutor, ActionFailed, StaleResource
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.objects import ObjectKey, RayCluster
from ddpm_operator.manifests.render import OperatorPods
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.ray.head_client import HeadClient
from ddpm_operator.reconcile.actions import DeleteCluster, DeleteSampling
from ddpm_operator.reconcile.observed import ObservedCluster
from tests.fakes.api_server import CLUSTERS, SAMPLINGS, ApiServer
from tests.fakes.operator import SPEC

SAMPLING = {
    "apiVersion": "ddpm-ray.io/v1alpha1",
    "kind": "DDPMSampling",
    "metadata": {"name": "digits", "namespace": "research", "uid": "mine", "resourceVersion": "7"},
    "spec": SPEC,
}
KEY = ObjectKey("research", "digits", "mine")
LABELS = {"ddpm-ray.io/sampling": "digits", "ddpm-ray.io/sampling-uid": "mine", "ddpm-ray.io/attempt": "1"}


def no_head(_: str, __: Tokens) -> HeadClient:
    raise AssertionError("a deletion sends no request to a head")


def put_cluster(server: ApiServer) -> RayCluster:
    return RayCluster.model_validate(
        server.put(f"{CLUSTERS}/digits-1", {"kind": "RayCluster", "metadata": {"name": "digits-1", "labels": LABELS}})
    )


def with_executor(
    server: ApiServer, cache: ObjectCache[ObservedCluster], use: Callable[[ActionExecutor], Awaitable[object]]
) -> None:
    async def run() -> None:
        async with server.open() as api:
            await use(ActionExecutor(api, cache, Templates(), bytes(32), OperatorPods("ddpm-ray", {}), no_head))

    asyncio.run(run())


def cached_cluster(server: ApiServer) -> tuple[ObjectCache[ObservedCluster], str]:
    """Stores a cluster; returns a cache that contains it, and its uid."""
    cache: ObjectCache[ObservedCluster] = ObjectCache()
    cluster = put_cluster(server).versioned()
    assert cluster
    cache.update(cluster)
    return cache, cluster.uid


@pytest.mark.parametrize("name_reused", [False, True])
def test_deleting_a_missing_cluster_succeeds(name_reused: bool) -> None:
    server = ApiServer()
    cache, uid = cached_cluster(server)
    del server.objects[f"{CLUSTERS}/digits-1"]
    if name_reused:
        put_cluster(server)
    with_executor(server, cache, lambda executor: executor.delete_cluster("research", "digits-1", uid))
    assert not cache.owners()
    assert len(server.objects_in(CLUSTERS)) == name_reused


def test_a_cluster_with_a_finalizer_stays_in_the_cache() -> None:
    server = ApiServer()
    cache, uid = cached_cluster(server)
    server.objects[f"{CLUSTERS}/digits-1"]["metadata"]["finalizers"] = ["example.com/finalizer"]
    with_executor(server, cache, lambda executor: executor.delete_cluster("research", "digits-1", uid))
    (cluster,) = cache.for_sampling(KEY)
    assert cluster.deleted
    assert cache.remove(uid) == KEY
    assert not cache.owners()


def test_a_cluster_stays_in_the_cache_while_its_crd_is_missing() -> None:
    server = ApiServer(missing_crd=CLUSTERS)
    cache, uid = cached_cluster(server)
    with_executor(server, cache, lambda executor: executor.delete_cluster("research", "digits-1", uid))
    assert [it.uid for it in cache.for_sampling(KEY)] == [uid]


def test_a_cluster_stays_in_the_cache_if_deletion_fails() -> None:
    server = ApiServer(fail_at=0)
    cache, uid = cached_cluster(server)
    with pytest.raises(ActionFailed, match="cannot delete the RayCluster digits-1"):
        with_executor(server, cache, lambda executor: executor.delete_cluster("research", "digits-1", uid))
    assert [it.uid for it in cache.for_sampling(KEY)] == [uid]


def test_delete_actions_succeed_for_missing_objects() -> None:
    server = ApiServer()
    sampling = DDPMSampling.from_document(SAMPLING)

    async def both(executor: ActionExecutor) -> None:
        await executor.execute(sampling, DeleteCluster("digits-1", "uid-1"))
        await executor.execute(sampling, DeleteSampling("7"))

    with_executor(server, ObjectCache(), both)
    assert server.requests == 2


def test_a_changed_sampling_is_not_deleted() -> None:
    server = ApiServer()
    server.put(f"{SAMPLINGS}/digits", {**SAMPLING, "metadata": {"name": "digits", "uid": "another"}})
    sampling = DDPMSampling.from_document(SAMPLING)
    with pytest.raises(StaleResource):
        with_executor(server, ObjectCache(), lambda executor: executor.execute(sampling, DeleteSampling("7")))
    assert server.objects_in(SAMPLINGS)
