"""Which sampling is looked at when: one look at a time at each, a few at once in all, each when it is due.

No namespace gets all of the places, so that looks that hang in one, as its heads make them, hold up no other.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from collections.abc import Awaitable, Callable

from ddpm_operator.kube.objects import ObjectKey

_LONGEST_DELAY = 300.0

logger = logging.getLogger(__name__)

Look = Callable[[ObjectKey], Awaitable[float | None]]


class WorkQueue:
    """Looks at samplings when somebody asks for it or their time has come. It lives in one event loop.

    Args:
        look: looks at one sampling and returns after how many seconds to do so again; None: when asked. If it
            raises, that is an error of the operator: it is logged, and tried again ever later.
        at_once: looks at the same time, at most.
        of_one: of those, at most so many at samplings of one namespace.
        waited: is told of every look how many seconds it was due before it found a place.
    """

    def __init__(
        self, look: Look, at_once: int, of_one: int, waited: Callable[[float], object] = lambda seconds: None
    ) -> None:
        self._look = look
        self._waited = waited
        self._free = asyncio.Semaphore(at_once)
        self._of_one = of_one
        # A namespace's places are kept by its looks alone.
        self._free_in: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()
        self._timers: dict[ObjectKey, asyncio.TimerHandle] = {}
        self._tasks: dict[ObjectKey, asyncio.Task[float | None]] = {}
        self._started: dict[ObjectKey, float] = {}
        self._last_end = float("-inf")
        self._asked_meanwhile: set[ObjectKey] = set()
        self._errors: dict[ObjectKey, int] = {}

    def ask(self, key: ObjectKey, after: float = 0.0) -> None:
        """Has a sampling looked at after so many seconds; sooner, if that was asked for already."""
        loop = asyncio.get_running_loop()
        due = loop.time() + after
        timer = self._timers.get(key)
        if timer and timer.when() <= due:
            return
        if timer:
            timer.cancel()
        # Not in the context of whoever asks: kopf's has the whole event in it, which would live until the look.
        self._timers[key] = loop.call_at(due, self._begin, key, context=contextvars.Context())

    def stands_still(self) -> float:
        """Seconds for which no look has ended, though there were some; 0.0 if there is none now.

        One look that takes long is no standstill as long as others end.
        """
        if not self._started:
            return 0.0
        return asyncio.get_running_loop().time() - max(self._last_end, min(self._started.values()))

    async def stop(self) -> None:
        """Ends all looks, wherever they are; what they were about to do is found again by the next operator."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: ObjectKey) -> None:
        del self._timers[key]
        loop = asyncio.get_running_loop()
        if key in self._tasks:
            self._asked_meanwhile.add(key)
            return
        self._started[key] = loop.time()
        task = loop.create_task(self._one_look(key), name=f"look at {key}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._end(key, done))

    async def _one_look(self, key: ObjectKey) -> float | None:
        free_here = self._free_in.setdefault(key.namespace, asyncio.Semaphore(self._of_one))
        async with free_here, self._free:
            self._waited(asyncio.get_running_loop().time() - self._started[key])
            return await self._look(key)

    def _end(self, key: ObjectKey, task: asyncio.Task[float | None]) -> None:
        del self._tasks[key], self._started[key]
        self._last_end = asyncio.get_running_loop().time()
        asked = key in self._asked_meanwhile
        self._asked_meanwhile.discard(key)
        if task.cancelled():
            return
        error = task.exception()
        if error:
            count = self._errors[key] = self._errors.get(key, 0) + 1
            logger.error("a look at %s went wrong, which is an error of the operator", key, exc_info=error)
            self.ask(key, min(2.0**count, _LONGEST_DELAY))
            return
        self._errors.pop(key, None)
        after = task.result()
        if asked:
            self.ask(key)
        elif after is not None:
            self.ask(key, after)
