"""Heads that accept requests and never respond: they delay only the samplings of their own namespace."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from ddpm_operator.controller import controller as module
from ddpm_operator.controller.metrics import Metrics
from ddpm_operator.controller.work_queue import WorkQueue
from ddpm_operator.kube.objects import ObjectKey
from tests.fakes.api_server import SAMPLINGS, ApiServer
from tests.fakes.heads import FakeServer
from tests.fakes.operator import FakeOperator, with_ready_heads


@dataclass
class HangingHead:
    """A dashboard that never responds.

    Attributes:
        requests: released once for each request.
    """

    requests: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def dashboard(self, _: web.Request) -> web.StreamResponse:
        self.requests.release()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


def reconciles(metrics: Metrics, result: str) -> float:
    return metrics.registry.get_sample_value("ddpm_operator_reconciles_total", {"result": result}) or 0.0


def test_a_slow_reconcile_is_cancelled_and_retried_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(operator: FakeOperator, server: ApiServer, keys: list[ObjectKey]) -> None:
        monkeypatch.setattr(module, "RECONCILE_TIMEOUT", 0.2)
        (key,) = keys
        first, second = [await operator.controller.reconcile_one(key) for _ in range(2)]
        assert first is not None
        assert second is not None
        assert 0 < first < second
        assert reconciles(operator.metrics, "stalled") == 2

    with_ready_heads(use, FakeServer(HangingHead().dashboard))
    assert "research/digits-0: reconcile cancelled" in caplog.text


def test_hanging_heads_do_not_delay_other_namespaces() -> None:
    head = HangingHead()

    async def use(operator: FakeOperator, server: ApiServer, keys: list[ObjectKey]) -> None:
        finished: asyncio.Queue[ObjectKey] = asyncio.Queue()

        async def reconcile(key: ObjectKey) -> float | None:
            requeue_after = await operator.controller.reconcile_one(key)
            finished.put_nowait(key)
            return requeue_after

        queue = WorkQueue(reconcile, max_concurrent=10, max_per_namespace=8)
        for key in keys:
            queue.add(key)
        for _ in range(8):
            await head.requests.acquire()
        document = {**server.objects[f"{SAMPLINGS}/digits-0"], "metadata": {"name": "other", "namespace": "elsewhere"}}
        del document["status"]
        stored = server.put(SAMPLINGS.replace("research", "elsewhere") + "/other", document)
        queue.add(ObjectKey("elsewhere", "other", stored["metadata"]["uid"]))
        assert (await finished.get()).namespace == "elsewhere"
        await queue.stop()

    server = with_ready_heads(use, FakeServer(head.dashboard), samplings=12)
    status = server.objects[SAMPLINGS.replace("research", "elsewhere") + "/other"]["status"]
    assert status["phase"] == "Starting"
