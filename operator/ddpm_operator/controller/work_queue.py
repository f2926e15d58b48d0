"""Schedules reconciles: one at a time for each sampling, a limited number in total, each when it is due.

A namespace gets only some of the places, so that reconciles that hang on its heads delay no other namespace.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from collections.abc import Awaitable, Callable

from ddpm_operator.kube.objects import ObjectKey

_MAX_RETRY_DELAY = 300.0

logger = logging.getLogger(__name__)

Reconcile = Callable[[ObjectKey], Awaitable[float | None]]


class WorkQueue:
    """Reconciles samplings when they are added or their requeue time has come. Lives in one event loop.

    Args:
        reconcile: reconciles one sampling and returns the seconds until its next reconcile; None: when it is added.
            An exception is a bug in the operator: it is logged, and the reconcile is retried with backoff.
        max_concurrent: maximum number of reconciles at the same time.
        max_per_namespace: maximum number of those for samplings of one namespace.
        on_wait: called for every reconcile with the seconds from when it was due until it started.
    """

    def __init__(
        self,
        reconcile: Reconcile,
        max_concurrent: int,
        max_per_namespace: int,
        on_wait: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        self._reconcile = reconcile
        self._on_wait = on_wait
        self._slots = asyncio.Semaphore(max_concurrent)
        self._max_per_namespace = max_per_namespace
        # A semaphore exists only while a reconcile of its namespace refers to it.
        self._namespace_slots: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()
        self._timers: dict[ObjectKey, asyncio.TimerHandle] = {}
        self._tasks: dict[ObjectKey, asyncio.Task[float | None]] = {}
        self._due_since: dict[ObjectKey, float] = {}
        self._last_end = float("-inf")
        self._added_while_running: set[ObjectKey] = set()
        self._crashes: dict[ObjectKey, int] = {}
        self._stopped = False

    def add(self, key: ObjectKey, after: float = 0.0) -> None:
        """Schedules a reconcile after so many seconds, or earlier if one is scheduled for an earlier time.

        After `stop` it does nothing: a reconcile that is cancelled still adds the samplings that it lets start.
        """
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + after
        timer = self._timers.get(key)
        if timer and timer.when() <= due:
            return
        if timer:
            timer.cancel()
        # With a context of its own: kopf's context holds the whole event, which would stay in memory until the timer
        # fires.
        self._timers[key] = loop.call_at(due, self._start, key, context=contextvars.Context())

    def stalled_seconds(self) -> float:
        """Returns the seconds since a reconcile last ended although some are due; 0.0 if none is due.

        One slow reconcile is no stall as long as others end.
        """
        if not self._due_since:
            return 0.0
        return asyncio.get_running_loop().time() - max(self._last_end, min(self._due_since.values()))

    async def stop(self) -> None:
        """Cancels all reconciles and timers. The next operator process finds out again what remains to be done."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: ObjectKey) -> None:
        del self._timers[key]
        loop = asyncio.get_running_loop()
        if key in self._tasks:
            self._added_while_running.add(key)
            return
        self._due_since[key] = loop.time()
        task = loop.create_task(self._run(key), name=f"reconcile {key}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._finish(key, done))

    async def _run(self, key: ObjectKey) -> float | None:
        namespace_slots = self._namespace_slots.setdefault(key.namespace, asyncio.Semaphore(self._max_per_namespace))
        async with namespace_slots, self._slots:
            self._on_wait(asyncio.get_running_loop().time() - self._due_since[key])
            return await self._reconcile(key)

    def _finish(self, key: ObjectKey, task: asyncio.Task[float | None]) -> None:
        del self._tasks[key], self._due_since[key]
        self._last_end = asyncio.get_running_loop().time()
        added_while_running = key in self._added_while_running
        self._added_while_running.discard(key)
        if task.cancelled():
            return
        error = task.exception()
        if error:
            crashes = self._crashes[key] = self._crashes.get(key, 0) + 1
            logger.error("the reconcile of %s crashed, which is a bug in the operator", key, exc_info=error)
            self.add(key, min(2.0**crashes, _MAX_RETRY_DELAY))
            return
        self._crashes.pop(key, None)
        requeue_after = task.result()
        if added_while_running:
            self.add(key)
        elif requeue_after is not None:
            self.add(key, requeue_after)
