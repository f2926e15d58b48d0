"""RayClusters that outlive their sampling or are slow to go: the operator deletes them and waits for their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ddpm_operator.controller.resync import Resync
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.ray.head_client import new_session
from tests.fakes.api_server import CLUSTERS, PODS, SAMPLINGS, ApiServer
from tests.fakes.heads import FakeServer, responds
from tests.fakes.operator import FakeOperator, connect_to, orphaned_cluster, with_ready_heads


def with_new_operator(server: ApiServer, use: Callable[[FakeOperator, Resync], Awaitable[None]]) -> None:
    async def run() -> None:
        unused_url = "http://127.0.0.1:1"
        async with server.open() as api, new_session() as session:
            operator = FakeOperator(api, server, connect_to(session, unused_url, unused_url))
            await use(operator, Resync(api, operator.clusters, operator.pods))

    asyncio.run(run())


@pytest.mark.parametrize("name_reused", [False, True])
def test_resync_finds_and_deletes_an_orphaned_cluster(name_reused: bool) -> None:
    server, owner = orphaned_cluster(name_reused=name_reused)
    assert server.objects_in(CLUSTERS)

    async def use(operator: FakeOperator, resync: Resync) -> None:
        assert await resync.list_all() == {owner}
        assert await operator.controller.reconcile_one(owner) is None

    with_new_operator(server, use)
    assert not server.objects_in(CLUSTERS)
    assert not server.objects_in(PODS), "dependents are garbage-collected"
    assert len(server.objects_in(SAMPLINGS)) == name_reused


def test_a_reused_name_does_not_delete_the_cluster() -> None:
    server, owner = orphaned_cluster(name_reused=True)
    (later,) = server.objects_in(SAMPLINGS)
    later_key = ObjectKey("research", "digits-0", later["metadata"]["uid"])
    del server.objects[f"{SAMPLINGS}/digits-0"]

    async def use(operator: FakeOperator, resync: Resync) -> None:
        assert later_key != owner
        await resync.list_all()
        await operator.controller.reconcile_one(later_key)

    with_new_operator(server, use)
    assert len(server.objects_in(CLUSTERS)) == 1


def cleaned_up(server: ApiServer) -> str:
    conditions = server.objects[f"{SAMPLINGS}/digits-0"]["status"]["conditions"]
    return str(next(it["status"] for it in conditions if it["type"] == "CleanedUp"))


def test_cleaned_up_only_when_the_cluster_is_gone() -> None:
    async def use(operator: FakeOperator, server: ApiServer, keys: list[ObjectKey]) -> None:
        (key,) = keys
        (path,) = [it for it in server.objects if it.startswith(f"{CLUSTERS}/")]
        server.objects[path]["metadata"]["finalizers"] = ["example.com/finalizer"]
        sampling = server.objects[f"{SAMPLINGS}/digits-0"]
        server.put(f"{SAMPLINGS}/digits-0", sampling | {"spec": sampling["spec"] | {"suspend": True}})
        for pod in server.objects_in(PODS):
            del server.objects[f"{PODS}/{pod['metadata']['name']}"]
        for _ in range(3):
            operator.sync_caches()
            await operator.controller.reconcile_one(key)
            assert cleaned_up(server) == "False"
        assert server.writes["deleted", path] == 1
        del server.objects[path]
        operator.sync_caches()
        await operator.controller.reconcile_one(key)
        assert cleaned_up(server) == "True"

    with_ready_heads(use, FakeServer(responds(200, "[]")))
