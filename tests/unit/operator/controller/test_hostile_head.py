"""A head that runs somebody's own program: it may spoil its own sampling, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from ddpm_operator.controller import controller as module
from ddpm_operator.controller.metrics import Metrics
from ddpm_operator.controller.work_queue import WorkQueue
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.ray.head_client import new_session
from tests.fakes.api_server import SAMPLINGS, ApiServer, kubelet_moves
from tests.fakes.heads import Door, nobody
from tests.unit.operator.controller.test_controller import Operator, heads_at, put_sampling

PATIENCE = 30.0


@dataclass
class Hanging:
    """Says that a driver runs, and from then on answers nothing more."""

    asked: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def answer(self, _: web.Request) -> web.StreamResponse:
        self.asked.release()
        await asyncio.Event().wait()
        raise AssertionError("nobody ends this wait")


Use = Callable[[Operator, ApiServer, list[ObjectKey]], Awaitable[None]]


def under_way(use: Use, dashboard: Door, samplings: int = 1) -> ApiServer:
    """Samplings whose head is there and about to be asked."""

    async def run() -> None:
        server, driver = ApiServer(), Door(nobody())
        async with (
            asyncio.timeout(PATIENCE),
            server.open() as api,
            dashboard.open() as first,
            driver.open() as second,
            new_session() as session,
        ):
            operator = Operator(api, server, heads_at(session, first, second), Templates())
            keys = [put_sampling(server, f"digits-{number}") for number in range(samplings)]
            for key in keys:
                while not [pod for pod in operator.pods.of(key) if pod.ready]:
                    await operator.controller.look(key)
                    kubelet_moves(server)
                    operator.hears()
            await use(operator, server, keys)
        servers.append(server)

    servers: list[ApiServer] = []
    asyncio.run(run())
    return servers[0]


def looked(metrics: Metrics, result: str) -> float:
    return metrics.registry.get_sample_value("ddpm_operator_reconciles_total", {"result": result}) or 0.0


def test_a_look_that_a_head_draws_out_is_broken_off_counted_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RECONCILE_TIMEOUT", 0.2)

    async def use(operator: Operator, server: ApiServer, keys: list[ObjectKey]) -> None:
        (key,) = keys
        first, second = [await operator.controller.look(key) for _ in range(2)]
        assert first is not None
        assert second is not None
        assert 0 < first < second
        assert looked(operator.controller.metrics, "stalled") == 2

    under_way(use, Door(Hanging().answer))
    assert "research/digits-0: the look was broken off" in caplog.text


def test_heads_that_hang_in_one_namespace_keep_no_sampling_of_another_waiting() -> None:
    hanging = Hanging()

    async def use(operator: Operator, server: ApiServer, keys: list[ObjectKey]) -> None:
        done: asyncio.Queue[ObjectKey] = asyncio.Queue()

        async def look(key: ObjectKey) -> float | None:
            after = await operator.controller.look(key)
            done.put_nowait(key)
            return after

        queue = WorkQueue(look, at_once=10, of_one=8)
        for key in keys:
            queue.ask(key)
        for _ in range(8):
            await hanging.asked.acquire()
        document = server.objects[f"{SAMPLINGS}/digits-0"]
        other = document | {"metadata": {"name": "other", "namespace": "elsewhere"}, "status": None}
        del other["status"]
        put = server.put(SAMPLINGS.replace("research", "elsewhere") + "/other", other)
        queue.ask(ObjectKey("elsewhere", "other", put["metadata"]["uid"]))
        assert (await done.get()).namespace == "elsewhere"
        await queue.stop()

    server = under_way(use, Door(hanging.answer), samplings=12)
    status = server.objects[SAMPLINGS.replace("research", "elsewhere") + "/other"]["status"]
    assert status["phase"] == "Starting"
