"""Deletions that others were quicker with, or that are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ddpm_operator.api import DDPMSampling
from ddpm_operator.controller.executor import ActionExecutor, ActionRejected, StaleResource
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.objects import ObjectKey, RayCluster
from ddpm_operator.manifests.render import OperatorPods
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.ray.head_client import HeadClient
from ddpm_operator.reconcile.actions import DeleteCluster, DeleteSampling
from ddpm_operator.reconcile.observed import ObservedCluster
from tests.fakes.api_server import CLUSTERS, SAMPLINGS, ApiServer
from tests.unit.operator.controller.test_controller import SPEC

SAMPLING = {
    "apiVersion": "ddpm-ray.io/v1alpha1",
    "kind": "DDPMSampling",
    "metadata": {"name": "digits", "namespace": "research", "uid": "mine", "resourceVersion": "7"},
    "spec": SPEC,
}
KEY = ObjectKey("research", "digits", "mine")
OF_IT = {"ddpm-ray.io/sampling": "digits", "ddpm-ray.io/sampling-uid": "mine", "ddpm-ray.io/attempt": "1"}


def no_head(_: str, __: Tokens) -> HeadClient:
    raise AssertionError("no head is asked when something is deleted")


def cluster_in(server: ApiServer) -> RayCluster:
    return RayCluster.model_validate(
        server.put(f"{CLUSTERS}/digits-1", {"kind": "RayCluster", "metadata": {"name": "digits-1", "labels": OF_IT}})
    )


def work_on(
    server: ApiServer, seen: ObjectCache[ObservedCluster], do: Callable[[ActionExecutor], Awaitable[object]]
) -> None:
    async def run() -> None:
        async with server.open() as api:
            await do(ActionExecutor(api, seen, Templates(), bytes(32), OperatorPods("ddpm-ray", {}), no_head))

    asyncio.run(run())


def sighted(server: ApiServer) -> tuple[ObjectCache[ObservedCluster], str]:
    """What an operator has seen that knows of one cluster, and the cluster's uid."""
    seen: ObjectCache[ObservedCluster] = ObjectCache()
    sight = cluster_in(server).sight()
    assert sight
    seen.saw(sight)
    return seen, sight.uid


@pytest.mark.parametrize("there", ["nothing", "another of its name"])
def test_a_cluster_that_is_gone_already_is_deleted(there: str) -> None:
    server = ApiServer()
    seen, uid = sighted(server)
    del server.objects[f"{CLUSTERS}/digits-1"]
    if there != "nothing":
        cluster_in(server)
    work_on(server, seen, lambda work: work.delete_cluster("research", "digits-1", uid))
    assert not seen.owners()
    assert len(server.below(CLUSTERS)) == (there != "nothing")


def test_a_cluster_that_a_finalizer_holds_is_there_until_it_is_gone() -> None:
    server = ApiServer()
    seen, uid = sighted(server)
    server.objects[f"{CLUSTERS}/digits-1"]["metadata"]["finalizers"] = ["example.com/held"]
    work_on(server, seen, lambda work: work.delete_cluster("research", "digits-1", uid))
    (held,) = seen.of(KEY)
    assert held.deleted
    assert seen.gone(uid) == KEY
    assert not seen.owners()


def test_a_cluster_is_there_while_the_api_server_knows_none_of_its_kind() -> None:
    server = ApiServer(unknown=CLUSTERS)
    seen, uid = sighted(server)
    work_on(server, seen, lambda work: work.delete_cluster("research", "digits-1", uid))
    assert [it.uid for it in seen.of(KEY)] == [uid]


def test_a_cluster_whose_deletion_is_refused_is_there_still() -> None:
    server = ApiServer(fails_at=0)
    seen, uid = sighted(server)
    with pytest.raises(ActionRejected, match="cannot delete the RayCluster digits-1"):
        work_on(server, seen, lambda work: work.delete_cluster("research", "digits-1", uid))
    assert [it.uid for it in seen.of(KEY)] == [uid]


def test_an_action_to_delete_what_is_gone_is_carried_out() -> None:
    server = ApiServer()
    sampling = DDPMSampling.from_document(SAMPLING)

    async def both(work: ActionExecutor) -> None:
        await work.carry_out(sampling, DeleteCluster("digits-1", "uid-1"))
        await work.carry_out(sampling, DeleteSampling("7"))

    work_on(server, ObjectCache(), both)
    assert server.requests == 2


def test_a_sampling_that_has_changed_is_not_deleted() -> None:
    server = ApiServer()
    server.put(f"{SAMPLINGS}/digits", {**SAMPLING, "metadata": {"name": "digits", "uid": "another"}})
    sampling = DDPMSampling.from_document(SAMPLING)
    with pytest.raises(StaleResource):
        work_on(server, ObjectCache(), lambda work: work.carry_out(sampling, DeleteSampling("7")))
    assert server.below(SAMPLINGS)
