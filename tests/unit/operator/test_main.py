"""What the operator asks kopf for, as an API server meets it: narrow watches, pages, and not a single write."""

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
from ddpm_operator.kube.client import PAGE, KubeApi
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.main import MAX_STALL_SECONDS, watches
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.ray.head_client import new_session
from tests.fakes.api_server import CLUSTERS, PODS, SAMPLINGS
from tests.fakes.watched_server import WATCHED, WatchedServer, kubeconfig
from tests.support.blocking import blocking_calls
from tests.unit.operator.controller.test_controller import Operator, heads_at, put_sampling

OPERATOR = Path(ddpm_operator.__file__).parent
WITHIN = 30.0
OURS = "app.kubernetes.io/managed-by=ddpm-operator"


class Asked(WorkQueue):
    """A queue that looks at nothing, and keeps whom it was asked for."""

    def __init__(self) -> None:
        super().__init__(_nothing, 1, 1)
        self.keys: asyncio.Queue[ObjectKey] = asyncio.Queue()

    def ask(self, key: ObjectKey, after: float = 0.0) -> None:
        self.keys.put_nowait(key)


async def _nothing(_: ObjectKey) -> None:
    return None


Use = Callable[[WatchedServer, Operator, Asked, KubeApi], Awaitable[None]]


@pytest.fixture(scope="module")
def probe() -> str:
    """Where kopf can tell how it is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/healthz"


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: str) -> Callable[[WatchedServer, Use], None]:
    """Runs kopf with the operator's watches against a server, until what is done meanwhile is done."""

    async def run(server: WatchedServer, use: Use) -> None:
        async with asyncio.timeout(WITHIN), server.open() as api, new_session() as session:
            monkeypatch.setenv("KUBECONFIG", str(kubeconfig(server.address, tmp_path)))
            operator = Operator(api, server, heads_at(session, server.address, server.address), Templates())
            queue = Asked()
            kopfs = asyncio.create_task(
                kopf.operator(
                    registry=watches(queue, operator.controller, operator.clusters, operator.pods, everywhere=False),
                    namespaces=["research"],
                    standalone=True,
                    liveness_endpoint=probe,
                )
            )
            for _ in WATCHED:
                await server.watched.get()
            await use(server, operator, queue, api)
            kopfs.cancel()
            await asyncio.wait([kopfs])

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


def test_watches_are_of_what_is_the_operators_own_and_lists_come_in_pages(
    watching: Callable[[WatchedServer, Use], None],
) -> None:
    async def use(server: WatchedServer, operator: Operator, queue: Asked, api: KubeApi) -> None:
        pass

    server, _ = with_one_of_each()
    watching(server, use)
    for path, selector in ((SAMPLINGS, None), (CLUSTERS, OURS), (PODS, OURS)):
        queries = [query for _, at, query in server.asked if at == path]
        lists, streams = [it for it in queries if "watch" not in it], [it for it in queries if "watch" in it]
        assert [it.get("labelSelector") for it in queries] == [selector] * len(queries)
        assert [it["limit"] for it in lists] == [str(PAGE)]
        assert len(streams) == 1


def test_what_comes_changes_and_goes_is_looked_at_and_nothing_is_written_not_even_a_finalizer(
    watching: Callable[[WatchedServer, Use], None],
) -> None:
    server, key = with_one_of_each()

    async def use(server: WatchedServer, operator: Operator, queue: Asked, api: KubeApi) -> None:
        for _ in range(3):
            assert await queue.keys.get() == key
        assert [it.name for it in operator.clusters.of(key)] == ["digits-1"]
        for path, plural in ((SAMPLINGS, "ddpmsamplings"), (CLUSTERS, "rayclusters"), (PODS, "pods")):
            (found,) = server.below(path)
            name = found["metadata"]["name"]
            server.tell(plural, "MODIFIED", server.put(f"{path}/{name}", found))
            assert await queue.keys.get() == key
            server.tell(plural, "DELETED", server.put(f"{path}/{name}", found))
            assert await queue.keys.get() == key
        assert not operator.clusters.owners() | operator.pods.owners()

    watching(server, use)
    assert {method for method, _, _ in server.asked} == {"GET"}
    assert all("finalizers" not in it["metadata"] for it in server.objects.values())


def test_the_operators_own_write_is_no_news(watching: Callable[[WatchedServer, Use], None]) -> None:
    server, key = with_one_of_each()
    for path in (CLUSTERS, PODS):
        for found in server.below(path):
            del server.objects[f"{path}/{found['metadata']['name']}"]

    async def use(server: WatchedServer, operator: Operator, queue: Asked, api: KubeApi) -> None:
        assert await queue.keys.get() == key
        await operator.controller.look(key)
        written = server.objects[f"{SAMPLINGS}/digits"]
        server.tell("ddpmsamplings", "MODIFIED", written)
        server.tell("ddpmsamplings", "DELETED", server.put(f"{SAMPLINGS}/digits", {**written}))
        census = operator.controller.metrics.census
        while any(census.count(phase) for phase in Phase):  # noqa: ASYNC110 - nobody is told of the last
            await asyncio.sleep(0)
        assert await queue.keys.get() == key
        assert queue.keys.empty()

    watching(server, use)


def test_neither_watches_nor_lists_nor_the_key_hold_up_the_loop(
    watching: Callable[[WatchedServer, Use], None],
) -> None:
    server, key = with_one_of_each()

    async def use(server: WatchedServer, operator: Operator, queue: Asked, api: KubeApi) -> None:
        assert len(await signing_key(api, "ddpm-ray", "key")) == 32
        assert await Resync(api, operator.clusters, operator.pods).once() == {key}
        for plural, path in (("ddpmsamplings", SAMPLINGS), ("rayclusters", CLUSTERS), ("pods", PODS)):
            (found,) = server.below(path)
            server.tell(plural, "MODIFIED", found | {"metadata": found["metadata"] | {"resourceVersion": "99"}})
        for _ in range(6):
            assert await queue.keys.get() == key

    with blocking_calls(OPERATOR) as caught:
        watching(server, use)
    # The credentials are a small file on the pod's own disk.
    assert {it for it in caught if "login" not in it} == set()


@pytest.mark.parametrize(("seconds", "answer"), [(MAX_STALL_SECONDS - 1, 200), (MAX_STALL_SECONDS + 1, 500)])
def test_the_probe_fails_at_once_when_no_look_ends(
    watching: Callable[[WatchedServer, Use], None],
    monkeypatch: pytest.MonkeyPatch,
    probe: str,
    seconds: float,
    answer: int,
) -> None:
    monkeypatch.setattr(WorkQueue, "stands_still", lambda _: seconds)

    async def use(server: WatchedServer, operator: Operator, queue: Asked, api: KubeApi) -> None:
        async with new_session() as session, session.get(probe) as response:
            assert response.status == answer

    watching(WatchedServer(), use)
