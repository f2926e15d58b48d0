"""Which sampling is looked at when: nobody twice at once, nobody for ever, nobody forgotten."""

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
PATIENCE = 20.0
HOUR = 3600.0


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(PATIENCE):
            await test()

    asyncio.run(within())


class Looks:
    """Looks that begin at once, and end when the test says so."""

    def __init__(self, *answers: float | None) -> None:
        self.began: asyncio.Queue[ObjectKey] = asyncio.Queue()
        self.may_end = asyncio.Event()
        self.at_once = self.most_at_once = 0
        self._answers = list(answers)

    async def look(self, key: ObjectKey) -> float | None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.began.put_nowait(key)
        try:
            await self.may_end.wait()
        finally:
            self.at_once -= 1
        return self._answers.pop(0) if self._answers else None


def test_a_sampling_that_changes_during_its_look_is_looked_at_again_and_not_twice_at_once() -> None:
    async def test() -> None:
        looks = Looks()
        queue = WorkQueue(looks.look, at_once=8, of_one=8)
        queue.ask(A)
        assert await looks.began.get() == A
        queue.ask(A)
        queue.ask(A)
        queue.ask(B)
        assert await looks.began.get() == B
        assert looks.most_at_once == 2
        looks.may_end.set()
        assert await looks.began.get() == A
        await queue.stop()
        assert looks.began.empty()

    run(test)


def test_no_more_looks_at_once_than_allowed() -> None:
    async def test() -> None:
        looks = Looks()
        queue = WorkQueue(looks.look, at_once=2, of_one=2)
        keys = [ObjectKey("research", str(number), str(number)) for number in range(20)]
        for key in keys:
            queue.ask(key)
        assert {await looks.began.get(), await looks.began.get()} <= set(keys)
        looks.may_end.set()
        for _ in keys[2:]:
            await looks.began.get()
        assert looks.most_at_once == 2
        await queue.stop()

    run(test)


def test_a_look_names_the_time_of_the_next_and_a_change_brings_it_forward() -> None:
    async def test() -> None:
        looks = Looks(0.01, HOUR, None)
        looks.may_end.set()
        queue = WorkQueue(looks.look, at_once=1, of_one=1)
        queue.ask(A)
        assert [await looks.began.get(), await looks.began.get()] == [A, A]
        queue.ask(A)
        assert await looks.began.get() == A
        await queue.stop()

    run(test)


def test_a_later_wish_does_not_put_off_an_earlier_one() -> None:
    async def test() -> None:
        looks = Looks()
        queue = WorkQueue(looks.look, at_once=1, of_one=1)
        queue.ask(A, after=0.01)
        queue.ask(A, after=HOUR)
        assert await looks.began.get() == A
        await queue.stop()

    run(test)


def test_a_look_that_breaks_is_logged_and_tried_again_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        looked: asyncio.Queue[ObjectKey] = asyncio.Queue()
        broken = [A]

        async def look(key: ObjectKey) -> float | None:
            looked.put_nowait(key)
            if key in broken:
                broken.remove(key)
                raise ZeroDivisionError("what was not foreseen")
            return None

        queue = WorkQueue(look, at_once=1, of_one=1)
        queue.ask(A)
        queue.ask(B)
        assert [await looked.get() for _ in range(3)] == [A, B, A]
        await queue.stop()

    run(test)
    assert "a look at research/a went wrong" in caplog.text
    assert "what was not foreseen" in caplog.text


def test_a_namespace_whose_looks_hang_holds_up_no_other() -> None:
    async def test() -> None:
        looks = Looks()
        queue = WorkQueue(looks.look, at_once=32, of_one=8)
        for number in range(200):
            queue.ask(ObjectKey("hostile", str(number), str(number)))
        assert [(await looks.began.get()).namespace for _ in range(8)] == ["hostile"] * 8
        queue.ask(A)
        assert await looks.began.get() == A
        assert looks.at_once == 9
        await queue.stop()

    run(test)


def test_the_looks_of_a_namespace_go_on_as_places_become_free() -> None:
    async def test() -> None:
        looks = Looks()
        queue = WorkQueue(looks.look, at_once=32, of_one=2)
        keys = [ObjectKey("research", str(number), str(number)) for number in range(20)]
        for key in keys:
            queue.ask(key)
        began = [await looks.began.get(), await looks.began.get()]
        looks.may_end.set()
        began += [await looks.began.get() for _ in keys[2:]]
        assert sorted(began) == sorted(keys)
        assert looks.most_at_once == 2
        await queue.stop()

    run(test)


def test_one_look_that_hangs_is_no_standstill_as_long_as_others_end() -> None:
    async def test() -> None:
        looks = Looks()
        queue = WorkQueue(look_but_not_at(A, looks), at_once=2, of_one=2)
        assert queue.stands_still() == 0
        queue.ask(A)
        assert await looks.began.get() == A
        await passes(queue)
        hung = queue.stands_still()
        looks.may_end.set()
        queue.ask(B)
        assert await looks.began.get() == B
        while queue.stands_still() >= hung:  # noqa: ASYNC110 - nobody is told of the end
            await asyncio.sleep(0)
        await queue.stop()

    run(test)


def test_looks_of_which_none_ends_are_a_standstill_until_one_does() -> None:
    async def test() -> None:
        looks = Looks()
        queue = WorkQueue(looks.look, at_once=1, of_one=1)
        queue.ask(A)
        queue.ask(B)
        await looks.began.get()
        await passes(queue)
        looks.may_end.set()
        while queue.stands_still():  # noqa: ASYNC110 - nobody is told of the end
            await asyncio.sleep(0)
        await queue.stop()

    run(test)


def look_but_not_at(hangs: ObjectKey, looks: Looks) -> Callable[[ObjectKey], Awaitable[float | None]]:
    """Looks, of which that at one sampling never ends."""

    async def look(key: ObjectKey) -> float | None:
        if key == hangs:
            looks.began.put_nowait(key)
            await asyncio.Event().wait()
        return await looks.look(key)

    return look


async def passes(queue: WorkQueue) -> None:
    """Time passes in which no look ends."""
    before = queue.stands_still()
    while queue.stands_still() <= before:  # noqa: ASYNC110 - it is only the clock that moves
        await asyncio.sleep(0)


class Bulk:
    """Something that is worth being forgotten."""


_CONTEXT: ContextVar[Bulk] = ContextVar("what an event was")


def test_a_look_that_waits_keeps_nothing_of_the_event_that_asked_for_it() -> None:
    async def test() -> None:
        looks = Looks()
        queue = WorkQueue(looks.look, at_once=1, of_one=1)

        async def event() -> weakref.ref[Bulk]:
            bulk = Bulk()
            _CONTEXT.set(bulk)
            for key, after in ((A, 0.0), (B, 0.0), (ObjectKey("research", "c", "3"), HOUR)):
                queue.ask(key, after)
            return weakref.ref(bulk)

        kept = await asyncio.create_task(event())
        await looks.began.get()
        gc.collect()
        assert kept() is None
        await queue.stop()

    run(test)


def test_at_the_end_no_look_is_left() -> None:
    async def test() -> None:
        looks = Looks()
        queue = WorkQueue(looks.look, at_once=1, of_one=1)
        queue.ask(A)
        queue.ask(B, after=HOUR)
        await looks.began.get()
        await queue.stop()
        assert looks.at_once == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test)
