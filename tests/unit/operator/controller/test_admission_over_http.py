"""Samplings of which only one may be at work at once, looked at by one operator at the same time over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from ddpm_operator.controller.work_queue import WorkQueue
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.main import look
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.planning.limits import Limits
from ddpm_operator.ray.head_client import new_session
from tests.fakes.api_server import CLUSTERS, SAMPLINGS, ApiServer, kubelet_moves
from tests.fakes.heads import Door
from tests.unit.operator.controller.test_controller import Driver, Operator, heads_at, put_sampling

ONE = Limits(at_once=1)
PATIENCE = 60.0


def held(server: ApiServer, name: str, kind: str) -> bool:
    conditions = server.objects[f"{SAMPLINGS}/{name}"].get("status", {}).get("conditions", ())
    return any(one["type"] == kind and one["status"] == "True" for one in conditions)


def phases(server: ApiServer) -> list[str]:
    return [it.get("status", {}).get("phase", "") for it in server.below(SAMPLINGS)]


def whose(operator: Operator) -> set[ObjectKey]:
    """The samplings of which the operator sees a cluster or a pod."""
    return operator.clusters.owners() | operator.pods.owners()


def at_work(operator: Operator) -> WorkQueue:
    queue = WorkQueue(lambda key: look(operator.controller, queue, key), 8, 8)
    return queue


@pytest.mark.parametrize("restarted", [False, True], ids=["one operator", "a new operator at every turn"])
def test_they_take_turns_each_called_when_the_one_before_has_left_nothing(restarted: bool) -> None:
    server = ApiServer()
    names = ["digits-1", "digits-2", "digits-3"]

    async def turns() -> None:
        driver = Driver()
        async with (
            server.open() as api,
            Door(driver.dashboard).open() as dashboard,
            Door(driver.progress).open() as progress,
            new_session() as session,
            asyncio.timeout(PATIENCE),
        ):
            find = heads_at(session, dashboard, progress)
            operator = Operator(api, server, find, Templates(), ONE)
            queue = at_work(operator)
            for name in names:
                queue.ask(put_sampling(server, name))
            for number in range(1, 4):
                while (
                    sum(held(server, name, "Complete") and held(server, name, "CleanedUp") for name in names) < number
                ):
                    assert len(server.below(CLUSTERS)) <= 1
                    kubelet_moves(server)
                    before = whose(operator)
                    operator.hears()
                    for key in before | whose(operator):
                        queue.ask(key)
                    await asyncio.sleep(0.01)
                if restarted:
                    await queue.stop()
                    operator = Operator(api, server, find, Templates(), ONE)
                    queue = at_work(operator)
                    for document in server.below(SAMPLINGS):
                        operator.controller.line.heard(document)
                        metadata = document["metadata"]
                        queue.ask(ObjectKey("research", metadata["name"], metadata["uid"]))
            await queue.stop()

    asyncio.run(turns())
    assert phases(server) == ["Succeeded"] * 3
    made = [count for (what, path), count in server.changed.items() if what == "made" and CLUSTERS in path]
    assert made == [1, 1, 1]


def test_of_many_looks_at_once_one_begins() -> None:
    server = ApiServer()

    async def looks() -> None:
        async with server.open() as api, new_session() as session:
            operator = Operator(api, server, heads_at(session, "http://x", "http://x"), Templates(), ONE)
            keys = [put_sampling(server, f"digits-{number}") for number in range(8)]
            await asyncio.gather(*(operator.controller.look(key) for key in keys))

    asyncio.run(looks())
    assert len(server.below(CLUSTERS)) == 1
    assert sorted(phases(server)) == ["Queued"] * 7 + ["Starting"]
