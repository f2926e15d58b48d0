"""What a sampling leaves behind: clusters that outlive it, and clusters that do not go at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ddpm_operator.controller.resync import Resync
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.ray.head_client import new_session
from tests.fakes.api_server import CLUSTERS, PODS, SAMPLINGS, ApiServer
from tests.fakes.heads import Door, says
from tests.unit.operator.controller.test_controller import Operator, heads_at, put_sampling
from tests.unit.operator.controller.test_hostile_head import under_way


def orphaned(*, namesake: bool = False) -> tuple[ApiServer, ObjectKey]:
    """A sampling was deleted while there was no operator, and its RayCluster was taken from it before.

    Args:
        namesake: somebody has made another of its name since.
    """

    async def nothing_more(*_: object) -> None:
        return None

    server = under_way(nothing_more, Door(says(200, "[]")))
    at = f"{SAMPLINGS}/digits-0"
    uid = server.objects.pop(at)["metadata"]["uid"]
    for cluster in server.below(CLUSTERS):
        del cluster["metadata"]["ownerReferences"]
    if namesake:
        put_sampling(server, "digits-0")
    return server, ObjectKey("research", "digits-0", uid)


def with_a_new_operator(server: ApiServer, use: Callable[[Operator, Resync], Awaitable[None]]) -> None:
    async def run() -> None:
        nobody = "http://127.0.0.1:1"
        async with server.open() as api, new_session() as session:
            operator = Operator(api, server, heads_at(session, nobody, nobody), Templates())
            await use(operator, Resync(api, operator.clusters, operator.pods))

    asyncio.run(run())


@pytest.mark.parametrize("namesake", [False, True])
def test_a_cluster_whose_sampling_is_gone_is_found_by_a_new_operator_and_deleted(namesake: bool) -> None:
    server, of_it = orphaned(namesake=namesake)
    assert server.below(CLUSTERS)

    async def use(operator: Operator, resync: Resync) -> None:
        found = await resync.once()
        assert found == {of_it}
        for key in found:
            assert await operator.controller.look(key) is None

    with_a_new_operator(server, use)
    assert not server.below(CLUSTERS)
    assert not server.below(PODS), "what it owns follows it"
    assert len(server.below(SAMPLINGS)) == namesake


def test_a_cluster_is_not_deleted_for_a_namesake_that_is_gone() -> None:
    server, of_it = orphaned(namesake=True)
    (namesake,) = server.below(SAMPLINGS)
    its_key = ObjectKey("research", "digits-0", namesake["metadata"]["uid"])
    del server.objects[f"{SAMPLINGS}/digits-0"]

    async def use(operator: Operator, resync: Resync) -> None:
        assert its_key != of_it
        await resync.once()
        await operator.controller.look(its_key)

    with_a_new_operator(server, use)
    assert len(server.below(CLUSTERS)) == 1


def cleaned_up(server: ApiServer) -> str:
    conditions = server.objects[f"{SAMPLINGS}/digits-0"]["status"]["conditions"]
    return str(next(it["status"] for it in conditions if it["type"] == "CleanedUp"))


def test_a_sampling_is_cleaned_up_only_when_its_cluster_is_really_gone() -> None:
    async def use(operator: Operator, server: ApiServer, keys: list[ObjectKey]) -> None:
        (key,) = keys
        (at,) = [path for path in server.objects if path.startswith(f"{CLUSTERS}/")]
        server.objects[at]["metadata"]["finalizers"] = ["example.com/held"]
        sampling = server.objects[f"{SAMPLINGS}/digits-0"]
        server.put(f"{SAMPLINGS}/digits-0", sampling | {"spec": sampling["spec"] | {"suspend": True}})
        for pod in server.below(PODS):
            del server.objects[f"{PODS}/{pod['metadata']['name']}"]
        for _ in range(3):
            operator.hears()
            await operator.controller.look(key)
            assert cleaned_up(server) == "False"
        assert server.changed["deleted", at] == 1
        del server.objects[at]
        operator.hears()
        await operator.controller.look(key)
        assert cleaned_up(server) == "True"

    under_way(use, Door(says(200, "[]")))
