"""Several samplings of which only one may run at once, reconciled concurrently over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from ddpm_operator.controller.work_queue import WorkQueue
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.main import reconcile_and_admit
from ddpm_operator.planning.limits import Limits
from ddpm_operator.ray.head_client import new_session
from tests.fakes.api_server import CLUSTERS, SAMPLINGS, ApiServer, start_heads
from tests.fakes.heads import FakeServer
from tests.fakes.operator import FakeDriver, FakeOperator, clusters_created, connect_to, put_sampling

ONE_AT_ONCE = Limits(at_once=1)
TEST_TIMEOUT = 60.0


def is_cleaned_up(server: ApiServer, name: str) -> bool:
    conditions = server.objects[f"{SAMPLINGS}/{name}"].get("status", {}).get("conditions", ())
    return {"Complete", "CleanedUp"} <= {it["type"] for it in conditions if it["status"] == "True"}


def phases(server: ApiServer) -> list[str]:
    return [it.get("status", {}).get("phase", "") for it in server.objects_in(SAMPLINGS)]


def owners(operator: FakeOperator) -> set[ObjectKey]:
    return operator.clusters.owners() | operator.pods.owners()


def start_queue(operator: FakeOperator) -> WorkQueue:
    queue = WorkQueue(
        lambda key: reconcile_and_admit(operator.controller, operator.admission, operator.metrics, queue, key), 8, 8
    )
    return queue


@pytest.mark.parametrize("restarted", [False, True], ids=["one operator", "restarted after every sampling"])
def test_samplings_run_one_after_another(restarted: bool) -> None:
    server = ApiServer()
    names = ["digits-1", "digits-2", "digits-3"]

    async def run_all() -> None:
        driver = FakeDriver()
        async with (
            server.open() as api,
            FakeServer(driver.dashboard).open() as dashboard,
            FakeServer(driver.progress).open() as progress,
            new_session() as session,
            asyncio.timeout(TEST_TIMEOUT),
        ):
            connect = connect_to(session, dashboard, progress)
            operator = FakeOperator(api, server, connect, limits=ONE_AT_ONCE)
            queue = start_queue(operator)
            for name in names:
                queue.add(put_sampling(server, name))
            for number in range(1, 4):
                while sum(is_cleaned_up(server, name) for name in names) < number:
                    assert len(server.objects_in(CLUSTERS)) <= 1
                    start_heads(server)
                    before = owners(operator)
                    operator.sync_caches()
                    for key in before | owners(operator):
                        queue.add(key)
                    await asyncio.sleep(0.01)
                if restarted:
                    await queue.stop()
                    operator = FakeOperator(api, server, connect, limits=ONE_AT_ONCE)
                    queue = start_queue(operator)
                    for document in server.objects_in(SAMPLINGS):
                        operator.admission.observe_document(document)
                        metadata = document["metadata"]
                        queue.add(ObjectKey("research", metadata["name"], metadata["uid"]))
            await queue.stop()

    asyncio.run(run_all())
    assert phases(server) == ["Succeeded"] * 3
    assert clusters_created(server) == [1, 1, 1]


def test_concurrent_reconciles_start_only_one_sampling() -> None:
    server = ApiServer()

    async def reconcile_all() -> None:
        async with server.open() as api, new_session() as session:
            operator = FakeOperator(api, server, connect_to(session, "http://x", "http://x"), limits=ONE_AT_ONCE)
            keys = [put_sampling(server, f"digits-{number}") for number in range(8)]
            await asyncio.gather(*(operator.controller.reconcile_one(key) for key in keys))

    asyncio.run(reconcile_all())
    assert len(server.objects_in(CLUSTERS)) == 1
    assert sorted(phases(server)) == ["Queued"] * 7 + ["Starting"]
