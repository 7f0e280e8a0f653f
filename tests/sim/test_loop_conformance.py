"""What production code expects of asyncio holds on the virtual loop: every program here runs on a stock loop, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass

import pytest

from sim.loop import SimLoop

UNIT = 0.01
"""Seconds between things that happen one after the other: long enough for a stock loop to keep them apart."""

Log = list[str]
Program = Callable[[Log], Awaitable[None]]
PROGRAMS: list[Program] = []


def program(main: Program) -> Program:
    """A program that both kinds of loop have to run alike."""
    PROGRAMS.append(main)
    return main


def ran_on(loop_factory: Callable[[], asyncio.AbstractEventLoop], main: Program) -> Log:
    log: Log = []

    async def told() -> None:
        try:
            await main(log)
        except LookupError as error:
            log.append(f"out: {type(error).__name__} {error}")

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(told())
    return log


@program
async def sleepers_wake_in_the_order_of_their_time(log: Log) -> None:
    async def sleep(units: int) -> None:
        await asyncio.sleep(units * UNIT)
        log.append(f"{units}")

    await asyncio.gather(*(sleep(units) for units in (3, 1, 4, 2, 5, 0)))


@program
async def ready_callbacks_run_first_come_first_served(log: Log) -> None:
    loop = asyncio.get_running_loop()

    def first() -> None:
        log.append("first")
        loop.call_soon(log.append, "last")

    loop.call_soon(first)
    loop.call_soon(log.append, "never").cancel()
    loop.call_soon(log.append, "second")
    await asyncio.sleep(0)
    log.append("between")
    await asyncio.sleep(0)


@program
async def tasks_take_turns(log: Log) -> None:
    async def count(name: str) -> None:
        for number in range(3):
            log.append(f"{name}{number}")
            await asyncio.sleep(0)

    await asyncio.gather(count("a"), count("b"))


@program
async def a_time_limit_that_is_hit(log: Log) -> None:
    try:
        async with asyncio.timeout(UNIT):
            try:
                await asyncio.sleep(100)
            finally:
                log.append("cleaned up")
    except TimeoutError:
        log.append("timed out")
    task = asyncio.current_task()
    assert task is not None
    log.append(f"{task.cancelling()}")


@program
async def a_time_limit_that_is_not_hit(log: Log) -> None:
    async with asyncio.timeout(100 * UNIT) as limit:
        await asyncio.sleep(UNIT)
    log.append(f"expired: {limit.expired()}")


@program
async def nested_time_limits(log: Log) -> None:
    try:
        async with asyncio.timeout(UNIT):
            try:
                async with asyncio.timeout(100 * UNIT):
                    await asyncio.sleep(1000)
            except TimeoutError:
                log.append("inner")
    except TimeoutError:
        log.append("outer")


@program
async def a_time_limit_of_nothing(log: Log) -> None:
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(100)
    except TimeoutError:
        log.append("timed out")


@program
async def waiting_for_something_with_a_limit(log: Log) -> None:
    async def slow() -> str:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        return "never"

    log.append(await asyncio.wait_for(asyncio.sleep(UNIT, "in time"), 100 * UNIT))
    try:
        await asyncio.wait_for(slow(), UNIT)
    except TimeoutError:
        log.append("timed out")


@program
async def a_task_group_ends_when_all_have(log: Log) -> None:
    async def work(units: int) -> None:
        await asyncio.sleep(units * UNIT)
        log.append(f"{units}")

    async with asyncio.TaskGroup() as group:
        for units in (2, 1, 3):
            group.create_task(work(units))
    log.append("all")


@program
async def a_task_group_fails_with_the_first_failure(log: Log) -> None:
    async def work(units: int) -> None:
        try:
            await asyncio.sleep(units * UNIT)
        except asyncio.CancelledError:
            log.append(f"{units} cancelled")
            raise

    async def fail() -> None:
        await asyncio.sleep(2 * UNIT)
        raise ValueError("on purpose")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(work(1))
            group.create_task(fail())
            group.create_task(work(100))
    except* ValueError as errors:
        log.append(f"{errors.exceptions}")


@program
async def gathering_with_exceptions(log: Log) -> None:
    async def fail() -> None:
        await asyncio.sleep(UNIT)
        raise ValueError("on purpose")

    log.append(f"{await asyncio.gather(asyncio.sleep(2 * UNIT, 'slept'), fail(), return_exceptions=True)}")
    survivor = asyncio.create_task(asyncio.sleep(2 * UNIT, "survived"))
    try:
        await asyncio.gather(survivor, fail())
    except ValueError as error:
        log.append(f"{error}")
    log.append(await survivor)


@program
async def waiting_for_the_first(log: Log) -> None:
    tasks = [asyncio.create_task(asyncio.sleep(units * UNIT, units)) for units in (3, 1, 2)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    log.append(f"{[task.result() for task in done]} and {len(pending)} more")
    for earliest in asyncio.as_completed(tasks):
        log.append(f"{await earliest}")


@program
async def a_queue_between_two(log: Log) -> None:
    queue: asyncio.Queue[int | None] = asyncio.Queue(maxsize=2)

    async def produce() -> None:
        for number in range(5):
            await queue.put(number)
            log.append(f"put {number}")
        await queue.put(None)

    async def consume() -> None:
        while (number := await queue.get()) is not None:
            log.append(f"got {number}")

    await asyncio.gather(produce(), consume())


@program
async def locks_events_and_conditions(log: Log) -> None:
    lock, event, condition = asyncio.Lock(), asyncio.Event(), asyncio.Condition()

    async def hold(name: str) -> None:
        async with lock:
            log.append(f"{name} holds")
            await asyncio.sleep(UNIT)
        await event.wait()
        async with condition:
            await condition.wait()
            log.append(f"{name} told")

    holders = [asyncio.create_task(hold(name)) for name in "abc"]
    await asyncio.sleep(5 * UNIT)
    event.set()
    await asyncio.sleep(UNIT)
    async with condition:
        condition.notify(2)
    await asyncio.sleep(UNIT)
    async with condition:
        condition.notify_all()
    await asyncio.gather(*holders)


@program
async def cancelling_reaches_the_innermost_first(log: Log) -> None:
    async def inner() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            log.append("inner")

    async def outer() -> None:
        try:
            await inner()
        except asyncio.CancelledError as error:
            log.append(f"outer {error}")
            await asyncio.sleep(UNIT)
            log.append("outer, later")
            raise

    task = asyncio.create_task(outer())
    await asyncio.sleep(UNIT)
    task.cancel("enough")
    try:
        await task
    except asyncio.CancelledError:
        log.append(f"cancelled {task.cancelled()}")


@program
async def a_cancellation_that_is_refused(log: Log) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return "no"
        return "never"

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(UNIT)
    task.cancel()
    log.append(await task)


@program
async def a_shielded_task_goes_on(log: Log) -> None:
    work = asyncio.create_task(asyncio.sleep(3 * UNIT, "done"))
    try:
        async with asyncio.timeout(UNIT):
            await asyncio.shield(work)
    except TimeoutError:
        log.append("timed out")
    log.append(await work)


@program
async def an_exception_is_kept_for_who_asks_late(log: Log) -> None:
    async def fail() -> None:
        raise ValueError("on purpose")

    task = asyncio.create_task(fail())
    await asyncio.sleep(3 * UNIT)
    try:
        await task
    except ValueError as error:
        log.append(f"{error}")


@program
async def a_generator_that_is_left_open_is_closed_at_the_end(log: Log) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(3):
                yield number
        finally:
            await asyncio.sleep(UNIT)
            log.append("closed")

    open_one = numbers()
    async for number in open_one:
        log.append(f"{number}")
        break
    KEPT.append(open_one)


KEPT: list[AsyncIterator[int]] = []


@program
async def a_generator_that_is_dropped_is_closed(log: Log) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(UNIT)
            log.append("closed")

    async for _ in numbers():
        break
    await asyncio.sleep(3 * UNIT)
    log.append("later")


@program
async def tasks_left_over_are_cancelled_at_the_end(log: Log) -> None:
    async def forever() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            log.append("cancelled")

    KEPT_TASKS.append(asyncio.create_task(forever()))
    await asyncio.sleep(UNIT)


KEPT_TASKS: list[asyncio.Task[None]] = []


@program
async def an_exception_of_the_program_comes_out(log: Log) -> None:
    await asyncio.sleep(UNIT)
    raise LookupError("on purpose")


@program
async def work_in_an_executor(log: Log) -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    log.append(f"{await asyncio.to_thread(sum, [1, 2, 3])}")
    try:
        await asyncio.get_running_loop().run_in_executor(None, fail)
    except ValueError as error:
        log.append(f"{error}")


@program
async def contexts_are_carried_along(log: Log) -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")

    async def child() -> None:
        log.append(f"child of {who.get()}")
        who.set("child")

    who.set("parent")
    asyncio.get_running_loop().call_later(UNIT, lambda: log.append(f"timer of {who.get()}"))
    who.set("parent, later")
    await asyncio.create_task(child())
    log.append(who.get())
    await asyncio.sleep(3 * UNIT)


@pytest.mark.parametrize("main", PROGRAMS, ids=lambda main: main.__name__)
def test_both_kinds_of_loop_run_it_alike(main: Program) -> None:
    on_stock = ran_on(asyncio.new_event_loop, main)
    assert on_stock, "a program that tells nothing proves nothing"
    assert ran_on(SimLoop, main) == on_stock


@dataclass
class Moments:
    """Seconds at which things happened."""

    taken: list[float]

    def take(self) -> None:
        self.taken.append(asyncio.get_running_loop().time())


def test_virtual_time_is_exact() -> None:
    async def main() -> list[float]:
        moments = Moments([])
        await asyncio.sleep(0.1)
        moments.take()
        await asyncio.sleep(3600)
        moments.take()
        try:
            async with asyncio.timeout(0.25):
                await asyncio.sleep(10)
        except TimeoutError:
            moments.take()
        await asyncio.sleep(-1)
        moments.take()
        return moments.taken

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        assert runner.run(main()) == [0.1, 3600.1, 3600.35, 3600.35]
