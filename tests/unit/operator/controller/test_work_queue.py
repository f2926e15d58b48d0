"""The work queue: when samplings are reconciled, how many at once, and what happens after a crash."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import pytest

from ddpm_operator.controller.work_queue import WorkQueue
from ddpm_operator.kube.objects import ObjectKey

A, B = ObjectKey("research", "a", "1"), ObjectKey("research", "b", "2")
TEST_TIMEOUT = 20.0
HOUR = 3600.0


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def with_timeout() -> None:
        async with asyncio.timeout(TEST_TIMEOUT):
            await test()

    asyncio.run(with_timeout())


class Reconciles:
    """Reconciles that end once the test sets `may_end`.

    Args:
        requeue_after: results of the reconciles, in this order; None for all further ones.
    """

    def __init__(self, *requeue_after: float | None) -> None:
        self.started: asyncio.Queue[ObjectKey] = asyncio.Queue()
        self.may_end = asyncio.Event()
        self.running = self.max_running = 0
        self._requeue_after = list(requeue_after)

    async def reconcile(self, key: ObjectKey) -> float | None:
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        self.started.put_nowait(key)
        try:
            await self.may_end.wait()
        finally:
            self.running -= 1
        return self._requeue_after.pop(0) if self._requeue_after else None


def test_a_sampling_added_while_running_is_reconciled_again() -> None:
    async def test() -> None:
        reconciles = Reconciles()
        queue = WorkQueue(reconciles.reconcile, max_concurrent=8, max_per_namespace=8)
        queue.add(A)
        assert await reconciles.started.get() == A
        queue.add(A)
        queue.add(A)
        queue.add(B)
        assert await reconciles.started.get() == B
        assert reconciles.max_running == 2
        reconciles.may_end.set()
        assert await reconciles.started.get() == A
        await queue.stop()
        assert reconciles.started.empty()

    run(test)


def test_concurrency_is_limited() -> None:
    async def test() -> None:
        reconciles = Reconciles()
        queue = WorkQueue(reconciles.reconcile, max_concurrent=2, max_per_namespace=2)
        keys = [ObjectKey("research", str(number), str(number)) for number in range(20)]
        for key in keys:
            queue.add(key)
        assert {await reconciles.started.get(), await reconciles.started.get()} <= set(keys)
        reconciles.may_end.set()
        for _ in keys[2:]:
            await reconciles.started.get()
        assert reconciles.max_running == 2
        await queue.stop()

    run(test)


def test_an_event_comes_before_the_requeue_time() -> None:
    async def test() -> None:
        reconciles = Reconciles(0.01, HOUR, None)
        reconciles.may_end.set()
        queue = WorkQueue(reconciles.reconcile, max_concurrent=1, max_per_namespace=1)
        queue.add(A)
        assert [await reconciles.started.get(), await reconciles.started.get()] == [A, A]
        queue.add(A)
        assert await reconciles.started.get() == A
        await queue.stop()

    run(test)


def test_adding_later_does_not_postpone() -> None:
    async def test() -> None:
        reconciles = Reconciles()
        queue = WorkQueue(reconciles.reconcile, max_concurrent=1, max_per_namespace=1)
        queue.add(A, after=0.01)
        queue.add(A, after=HOUR)
        assert await reconciles.started.get() == A
        await queue.stop()

    run(test)


def test_a_crashed_reconcile_is_logged_and_retried(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        started: asyncio.Queue[ObjectKey] = asyncio.Queue()
        crashing = [A]

        async def reconcile(key: ObjectKey) -> float | None:
            started.put_nowait(key)
            if key in crashing:
                crashing.remove(key)
                raise ZeroDivisionError("a bug")
            return None

        queue = WorkQueue(reconcile, max_concurrent=1, max_per_namespace=1)
        queue.add(A)
        queue.add(B)
        assert [await started.get() for _ in range(3)] == [A, B, A]
        await queue.stop()

    run(test)
    assert "the reconcile of research/a crashed" in caplog.text
    assert "a bug" in caplog.text


def test_a_hanging_namespace_does_not_delay_others() -> None:
    async def test() -> None:
        reconciles = Reconciles()
        queue = WorkQueue(reconciles.reconcile, max_concurrent=32, max_per_namespace=8)
        for number in range(200):
            queue.add(ObjectKey("hostile", str(number), str(number)))
        assert [(await reconciles.started.get()).namespace for _ in range(8)] == ["hostile"] * 8
        queue.add(A)
        assert await reconciles.started.get() == A
        assert reconciles.running == 9
        await queue.stop()

    run(test)


def test_all_samplings_of_a_namespace_get_a_place() -> None:
    async def test() -> None:
        reconciles = Reconciles()
        queue = WorkQueue(reconciles.reconcile, max_concurrent=32, max_per_namespace=2)
        keys = [ObjectKey("research", str(number), str(number)) for number in range(20)]
        for key in keys:
            queue.add(key)
        started = [await reconciles.started.get(), await reconciles.started.get()]
        reconciles.may_end.set()
        started += [await reconciles.started.get() for _ in keys[2:]]
        assert sorted(started) == sorted(keys)
        assert reconciles.max_running == 2
        await queue.stop()

    run(test)


def test_one_hanging_reconcile_is_no_stall() -> None:
    async def test() -> None:
        reconciles = Reconciles()
        queue = WorkQueue(hanging_for(A, reconciles), max_concurrent=2, max_per_namespace=2)
        assert queue.stalled_seconds() == 0
        queue.add(A)
        assert await reconciles.started.get() == A
        await time_passes(queue)
        stalled = queue.stalled_seconds()
        reconciles.may_end.set()
        queue.add(B)
        assert await reconciles.started.get() == B
        while queue.stalled_seconds() >= stalled:  # noqa: ASYNC110 - the queue has no event for the end of a reconcile
            await asyncio.sleep(0)
        await queue.stop()

    run(test)


def test_the_queue_is_stalled_until_a_reconcile_ends() -> None:
    async def test() -> None:
        reconciles = Reconciles()
        queue = WorkQueue(reconciles.reconcile, max_concurrent=1, max_per_namespace=1)
        queue.add(A)
        queue.add(B)
        await reconciles.started.get()
        await time_passes(queue)
        reconciles.may_end.set()
        while queue.stalled_seconds():  # noqa: ASYNC110 - the queue has no event for the end of a reconcile
            await asyncio.sleep(0)
        await queue.stop()

    run(test)


def hanging_for(hanging: ObjectKey, reconciles: Reconciles) -> Callable[[ObjectKey], Awaitable[float | None]]:
    """Returns a reconcile function that never ends for one sampling."""

    async def reconcile(key: ObjectKey) -> float | None:
        if key == hanging:
            reconciles.started.put_nowait(key)
            await asyncio.Event().wait()
        return await reconciles.reconcile(key)

    return reconcile


async def time_passes(queue: WorkQueue) -> None:
    """Waits until `stalled_seconds` has grown."""
    before = queue.stalled_seconds()
    while queue.stalled_seconds() <= before:  # noqa: ASYNC110 - only the clock changes
        await asyncio.sleep(0)


class LargeEvent:
    """An object whose memory should be freed."""


_CONTEXT: ContextVar[LargeEvent] = ContextVar("event")


def test_a_scheduled_reconcile_does_not_keep_the_event_in_memory() -> None:
    async def test() -> None:
        reconciles = Reconciles()
        queue = WorkQueue(reconciles.reconcile, max_concurrent=1, max_per_namespace=1)

        async def handle_event() -> weakref.ref[LargeEvent]:
            event = LargeEvent()
            _CONTEXT.set(event)
            for key, after in ((A, 0.0), (B, 0.0), (ObjectKey("research", "c", "3"), HOUR)):
                queue.add(key, after)
            return weakref.ref(event)

        event = await asyncio.create_task(handle_event())
        await reconciles.started.get()
        gc.collect()
        assert event() is None
        await queue.stop()

    run(test)


def test_stop_cancels_everything() -> None:
    async def test() -> None:
        reconciles = Reconciles()
        queue = WorkQueue(reconciles.reconcile, max_concurrent=1, max_per_namespace=1)
        queue.add(A)
        queue.add(B, after=HOUR)
        await reconciles.started.get()
        await queue.stop()
        assert reconciles.running == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test)


def test_a_cancelled_reconcile_starts_no_other_one() -> None:
    async def test() -> None:
        started: asyncio.Queue[ObjectKey] = asyncio.Queue()

        async def reconcile(key: ObjectKey) -> None:
            started.put_nowait(key)
            try:
                await asyncio.Event().wait()
            finally:
                queue.add(B)

        queue = WorkQueue(reconcile, max_concurrent=2, max_per_namespace=2)
        queue.add(A)
        assert await started.get() == A
        await queue.stop()
        # More turns of the event loop than a timer that is due, its task and that task's first step would take.
        for _ in range(10):
            await asyncio.sleep(0)
        assert started.empty()

    run(test)
