"""The watches that kopf runs for the operator, as an API server sees them: filtered, paged and without writes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import kopf
import pytest

import ddpm_operator
from ddpm_operator.api import Phase
from ddpm_operator.controller.resync import Resync
from ddpm_operator.controller.signing_key import signing_key
from ddpm_operator.controller.work_queue import WorkQueue
from ddpm_operator.kube.client import PAGE_SIZE, KubeApi
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.main import MAX_STALL_SECONDS, watches
from ddpm_operator.ray.head_client import new_session
from tests.fakes.api_server import CLUSTERS, PODS, SAMPLINGS
from tests.fakes.operator import FakeOperator, connect_to, put_sampling
from tests.fakes.watched_server import WATCHED, WatchedServer, kubeconfig
from tests.support.blocking import blocking_calls

OPERATOR = Path(ddpm_operator.__file__).parent
TIMEOUT = 30.0
SELECTOR = "app.kubernetes.io/managed-by=ddpm-operator"


class RecordingQueue(WorkQueue):
    """A work queue that only records what is added."""

    def __init__(self) -> None:
        super().__init__(_do_nothing, 1, 1)
        self.keys: asyncio.Queue[ObjectKey] = asyncio.Queue()

    def add(self, key: ObjectKey, after: float = 0.0) -> None:
        self.keys.put_nowait(key)


async def _do_nothing(_: ObjectKey) -> None:
    return None


Use = Callable[[WatchedServer, FakeOperator, RecordingQueue, KubeApi], Awaitable[None]]


@pytest.fixture(scope="module")
def probe() -> str:
    """Returns a free URL for kopf's liveness endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/healthz"


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: str) -> Callable[[WatchedServer, Use], None]:
    """Returns a function that runs kopf with the operator's watches against a server while it awaits `use`."""

    async def run(server: WatchedServer, use: Use) -> None:
        async with asyncio.timeout(TIMEOUT), server.open() as api, new_session() as session:
            monkeypatch.setenv("KUBECONFIG", str(kubeconfig(server.address, tmp_path)))
            operator = FakeOperator(api, server, connect_to(session, server.address, server.address))
            queue = RecordingQueue()
            running_kopf = asyncio.create_task(
                kopf.operator(
                    registry=watches(
                        queue,
                        operator.controller,
                        operator.admission,
                        operator.metrics.samplings,
                        operator.clusters,
                        operator.pods,
                        cluster_wide=False,
                    ),
                    namespaces=["research"],
                    standalone=True,
                    liveness_endpoint=probe,
                )
            )
            for _ in WATCHED:
                await server.watch_started.get()
            await use(server, operator, queue, api)
            running_kopf.cancel()
            await asyncio.wait([running_kopf])

    return lambda server, use: asyncio.run(run(server, use))


def with_one_of_each() -> tuple[WatchedServer, ObjectKey]:
    server = WatchedServer()
    key = put_sampling(server, "digits")
    labels = {
        "app.kubernetes.io/managed-by": "ddpm-operator",
        "ddpm-ray.io/sampling": key.name,
        "ddpm-ray.io/sampling-uid": key.uid,
        "ddpm-ray.io/attempt": "1",
    }
    server.put(f"{CLUSTERS}/digits-1", {"metadata": {"name": "digits-1", "labels": labels}})
    head = labels | {"ray.io/cluster": "digits-1", "ray.io/node-type": "head"}
    server.put(f"{PODS}/digits-1-head", {"metadata": {"name": "digits-1-head", "labels": head}})
    return server, key


def test_lists_and_watches_are_filtered_and_paged(
    watching: Callable[[WatchedServer, Use], None],
) -> None:
    async def use(server: WatchedServer, operator: FakeOperator, queue: RecordingQueue, api: KubeApi) -> None:
        pass

    server, _ = with_one_of_each()
    watching(server, use)
    for path, selector in ((SAMPLINGS, None), (CLUSTERS, SELECTOR), (PODS, SELECTOR)):
        queries = [query for _, requested, query in server.queries if requested == path]
        lists, streams = [it for it in queries if "watch" not in it], [it for it in queries if "watch" in it]
        assert [it.get("labelSelector") for it in queries] == [selector] * len(queries)
        assert [it["limit"] for it in lists] == [str(PAGE_SIZE)]
        assert len(streams) == 1


def test_every_event_queues_its_sampling_and_nothing_is_written(
    watching: Callable[[WatchedServer, Use], None],
) -> None:
    server, key = with_one_of_each()

    async def use(server: WatchedServer, operator: FakeOperator, queue: RecordingQueue, api: KubeApi) -> None:
        for _ in range(3):
            assert await queue.keys.get() == key
        assert [it.name for it in operator.clusters.for_sampling(key)] == ["digits-1"]
        for path, plural in ((SAMPLINGS, "ddpmsamplings"), (CLUSTERS, "rayclusters"), (PODS, "pods")):
            (stored,) = server.objects_in(path)
            name = stored["metadata"]["name"]
            server.send_event(plural, "MODIFIED", server.put(f"{path}/{name}", stored))
            assert await queue.keys.get() == key
            server.send_event(plural, "DELETED", server.put(f"{path}/{name}", stored))
            assert await queue.keys.get() == key
        assert not operator.clusters.owners() | operator.pods.owners()

    watching(server, use)
    assert {method for method, _, _ in server.queries} == {"GET"}
    assert all("finalizers" not in it["metadata"] for it in server.objects.values())


def test_the_operators_own_write_is_not_queued(watching: Callable[[WatchedServer, Use], None]) -> None:
    server, key = with_one_of_each()
    for path in (CLUSTERS, PODS):
        for stored in server.objects_in(path):
            del server.objects[f"{path}/{stored['metadata']['name']}"]

    async def use(server: WatchedServer, operator: FakeOperator, queue: RecordingQueue, api: KubeApi) -> None:
        assert await queue.keys.get() == key
        await operator.controller.reconcile_one(key)
        written = server.objects[f"{SAMPLINGS}/digits"]
        server.send_event("ddpmsamplings", "MODIFIED", written)
        server.send_event("ddpmsamplings", "DELETED", server.put(f"{SAMPLINGS}/digits", {**written}))
        counts = operator.metrics.samplings
        while any(counts.count(phase) for phase in Phase):  # noqa: ASYNC110 - the counts have no event
            await asyncio.sleep(0)
        assert await queue.keys.get() == key
        assert queue.keys.empty()

    watching(server, use)


def test_watches_lists_and_the_key_do_not_block_the_loop(
    watching: Callable[[WatchedServer, Use], None],
) -> None:
    server, key = with_one_of_each()

    async def use(server: WatchedServer, operator: FakeOperator, queue: RecordingQueue, api: KubeApi) -> None:
        assert len(await signing_key(api, "ddpm-ray", "key")) == 32
        assert await Resync(api, operator.clusters, operator.pods).list_all() == {key}
        for plural, path in (("ddpmsamplings", SAMPLINGS), ("rayclusters", CLUSTERS), ("pods", PODS)):
            (stored,) = server.objects_in(path)
            server.send_event(plural, "MODIFIED", stored | {"metadata": stored["metadata"] | {"resourceVersion": "99"}})
        for _ in range(6):
            assert await queue.keys.get() == key

    with blocking_calls(OPERATOR) as calls:
        watching(server, use)
    # kopf reads the credentials from a small local file.
    assert {it for it in calls if "login" not in it} == set()


@pytest.mark.parametrize(("seconds", "status"), [(MAX_STALL_SECONDS - 1, 200), (MAX_STALL_SECONDS + 1, 500)])
def test_the_probe_fails_when_the_queue_is_stalled(
    watching: Callable[[WatchedServer, Use], None],
    monkeypatch: pytest.MonkeyPatch,
    probe: str,
    seconds: float,
    status: int,
) -> None:
    monkeypatch.setattr(WorkQueue, "stalled_seconds", lambda _: seconds)

    async def use(server: WatchedServer, operator: FakeOperator, queue: RecordingQueue, api: KubeApi) -> None:
        async with new_session() as session, session.get(probe) as response:
            assert response.status == status

    watching(WatchedServer(), use)
