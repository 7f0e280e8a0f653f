"""The clock of a machine: exact waiting, time limits as asyncio has them, a time of day that can be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fleet.capabilities.clock import Chance, Clock
from fleet.contracts.time import Duration, Instant
from sim.clock import EPOCH, SimClock
from sim.random import SimChance, Streams
from sim.world import World

SECOND = Duration.seconds(1)


@pytest.fixture
def world() -> Iterator[World]:
    with World(1) as world:
        yield world


def ports(world: World) -> tuple[Clock, Chance]:
    """What is made here is what the ports ask for: checked by the type checker."""
    return world.clock, SimChance(world.streams.stream("ports"))


def test_sleeping_is_exact_to_the_nanosecond(world: World) -> None:
    async def main() -> list[int]:
        taken = []
        for length in (1, 10**9, 3, 86_400 * 10**9 * 365, 1, 0, -5):
            await world.clock.sleep(Duration(length))
            taken.append(world.kernel.now)
        return taken

    year = 10**9 + 4 + 86_400 * 10**9 * 365
    assert world.run(main()) == [1, 10**9 + 1, 10**9 + 4, year, year + 1, year + 1, year + 1]


def test_the_clock_hands_out_plain_instants(world: World) -> None:
    async def main() -> None:
        await world.clock.sleep(SECOND)

    world.run(main())
    assert type(world.kernel.now) is int
    assert world.clock.monotonic() == Instant(10**9)
    assert isinstance(world.clock.monotonic() - Instant(0), Duration)


def test_sleepers_of_one_instant_wake_first_come_first_served(world: World) -> None:
    seen: list[int] = []

    async def sleep(number: int) -> None:
        await world.clock.sleep(SECOND)
        seen.append(number)

    async def main() -> None:
        await asyncio.gather(*(sleep(number) for number in range(20)))

    world.run(main())
    assert seen == list(range(20))


def test_a_sleep_of_nothing_lets_others_run(world: World) -> None:
    seen: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(seen.append, "other")
        await world.clock.sleep(Duration(0))
        seen.append("me")

    world.run(main())
    assert seen == ["other", "me"]


def test_a_cancelled_sleep_leaves_nothing_behind(world: World) -> None:
    async def main() -> None:
        sleeper = asyncio.create_task(world.clock.sleep(Duration.seconds(100)))
        await world.clock.sleep(SECOND)
        sleeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeper
        await world.clock.sleep(SECOND)

    world.run(main())
    assert world.kernel.now == 2 * 10**9
    assert world.kernel.pending == world.kernel.cancelled == 1


def test_machines_have_their_own_time_of_day(world: World) -> None:
    right, wrong = SimClock(world.loop), SimClock(world.loop, offset=Duration.minutes(-90))

    async def main() -> None:
        await right.sleep(SECOND)
        assert right.wall() == EPOCH + SECOND
        assert wrong.wall() == EPOCH + SECOND - Duration.minutes(90)
        wrong.offset = Duration(0)
        assert wrong.wall() == right.wall()
        wrong.offset = Duration.minutes(-1)
        assert wrong.wall() < right.wall()

    world.run(main())
    assert right.wall().utc() == "2026-01-01T00:00:01.000Z"


def test_monotonic_time_begins_anew_with_a_reboot_and_never_goes_back_otherwise(world: World) -> None:
    clock = SimClock(world.loop)

    async def main() -> list[int]:
        await clock.sleep(SECOND)
        before = clock.monotonic()
        clock.offset = Duration.minutes(-10)
        same = clock.monotonic()
        clock.reboot()
        after = clock.monotonic()
        await clock.sleep(SECOND)
        return [before, same, after, clock.monotonic()]

    assert world.run(main()) == [10**9, 10**9, 0, 10**9]


# --- time limits: each of these says of both kinds what `asyncio.timeout` does ------------------------


Limit = Callable[[float], Any]
Body = Callable[[Limit, list[str]], Coroutine[Any, Any, None]]


async def hit(limit: Limit, log: list[str]) -> None:
    try:
        async with limit(1):
            try:
                await asyncio.sleep(100)
            finally:
                log.append("cleaned up")
    except TimeoutError:
        log.append("timed out")


async def not_hit(limit: Limit, log: list[str]) -> None:
    async with limit(5):
        await asyncio.sleep(1)
    await asyncio.sleep(10)
    log.append("fine")


async def no_time_at_all(limit: Limit, log: list[str]) -> None:
    for length in (0, -1):
        try:
            async with limit(length):
                log.append("entered")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await asyncio.sleep(100)
        except TimeoutError:
            log.append("timed out")
    async with limit(0):
        log.append("left at once")
    await asyncio.sleep(1)


async def inner_hit(limit: Limit, log: list[str]) -> None:
    async with limit(10):
        try:
            async with limit(1):
                await asyncio.sleep(100)
        except TimeoutError:
            log.append("inner")
        await asyncio.sleep(1)
        log.append("outer goes on")


async def outer_hit(limit: Limit, log: list[str]) -> None:
    try:
        async with limit(1):
            try:
                async with limit(10):
                    await asyncio.sleep(100)
            except TimeoutError:
                log.append("inner")
    except TimeoutError:
        log.append("outer")


async def both_hit(limit: Limit, log: list[str]) -> None:
    try:
        async with limit(1):
            try:
                async with limit(1):
                    await asyncio.sleep(100)
            except TimeoutError:
                log.append("inner")
                await asyncio.sleep(1)
                log.append("never")
    except TimeoutError:
        log.append("outer")


async def another_exception(limit: Limit, log: list[str]) -> None:
    try:
        async with limit(1):
            raise LookupError("on purpose")
    except LookupError:
        log.append("as it was")
    try:
        async with limit(1):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                raise LookupError("instead") from None
    except LookupError as error:
        log.append(f"{error}")


async def swallowed(limit: Limit, log: list[str]) -> None:
    async with limit(1):
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            log.append("swallowed")
    await asyncio.sleep(1)
    log.append("goes on")


async def cancelled_from_outside(limit: Limit, log: list[str]) -> None:
    async def limited() -> None:
        async with limit(5):
            await asyncio.sleep(100)

    task = asyncio.create_task(limited())
    await asyncio.sleep(1)
    task.cancel("from outside")
    try:
        await task
    except asyncio.CancelledError as error:
        log.append(f"cancelled {error}")


async def cancelled_from_outside_at_the_same_instant(limit: Limit, log: list[str]) -> None:
    async def limited() -> None:
        try:
            async with limit(1):
                await asyncio.sleep(100)
        except TimeoutError:
            log.append("timed out")

    task = asyncio.create_task(limited())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(1, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        log.append("cancelled")


async def in_a_task_group(limit: Limit, log: list[str]) -> None:
    async def child(seconds: int) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            log.append(f"child {seconds} cancelled")
            raise

    try:
        async with limit(2), asyncio.TaskGroup() as group:
            for seconds in (1, 3, 5):
                group.create_task(child(seconds))
    except TimeoutError:
        log.append("timed out")


BODIES: list[Body] = [
    *(hit, not_hit, no_time_at_all, inner_hit, outer_hit, both_hit, another_exception, swallowed),
    *(cancelled_from_outside, cancelled_from_outside_at_the_same_instant, in_a_task_group),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_time_limits_are_those_of_asyncio(body: Body) -> None:
    def outcome(limit: Callable[[World], Limit]) -> tuple[list[str], int, int]:
        log: list[str] = []

        async def limited() -> int:
            await body(limit(fresh), log)
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

        with World(1) as fresh:
            return log, fresh.run(limited()), fresh.kernel.now

    ours = outcome(lambda world: lambda seconds: world.clock.timeout(Duration.seconds(seconds)))
    assert ours[0]
    assert ours == outcome(lambda world: asyncio.timeout)


def test_a_time_limit_names_its_cause_and_serves_once(world: World) -> None:
    """As in Python 3.11.4 and later; the first releases of 3.11 differ in both, so that they are not compared."""

    async def main() -> None:
        once = world.clock.timeout(SECOND)
        with pytest.raises(TimeoutError) as hit:
            async with once:
                await world.clock.sleep(SECOND * 2)
        assert isinstance(hit.value.__cause__, asyncio.CancelledError)
        with pytest.raises(RuntimeError):
            async with once:
                pass

    world.run(main())


def test_a_time_limit_needs_a_task(world: World) -> None:
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            world.clock.timeout(SECOND).__aenter__().send(None)
        except RuntimeError as error:
            errors.append(error)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(enter)
        await world.clock.sleep(SECOND)

    world.run(main())
    assert "task" in str(errors[0])


def test_time_limits_that_are_never_hit_leave_a_small_queue(world: World) -> None:
    async def main() -> int:
        for _ in range(5_000):
            async with world.clock.timeout(Duration.minutes(1)):
                await world.clock.sleep(Duration.millis(1))
        return world.kernel.pending

    assert world.run(main()) <= 250


def test_a_time_limit_of_a_killed_program_does_nothing(world: World) -> None:
    seen: list[str] = []
    shared = world.loop.create_future()

    @asynccontextmanager
    async def watched() -> AsyncIterator[None]:
        try:
            yield
        finally:
            seen.append("finally")

    async def program(process: object) -> int:
        async with world.clock.timeout(SECOND), watched():
            await shared
        return 0

    async def main() -> None:
        process = world.spawn("p", program, lambda process, code: None)
        await world.clock.sleep(Duration.millis(500))
        process.kill()
        await world.clock.sleep(SECOND * 2)

    world.run(main())
    assert not shared.cancelled()
    assert seen == []


# --- chance ------------------------------------------------------------------------------------------


def test_streams_depend_on_the_seed_and_their_name_alone() -> None:
    def drawn(seed: int, *names: str) -> dict[str, list[float]]:
        streams = Streams(seed)
        return {name: [streams.stream(name).random() for _ in range(3)] for name in names}

    both = drawn(1, "a", "b")
    assert drawn(1, "b", "c", "a")["a"] == both["a"]
    assert both["a"] != both["b"]
    assert drawn(2, "a")["a"] != both["a"]


def test_a_stream_asked_for_again_goes_on() -> None:
    streams = Streams(1)
    assert streams.stream("a") is streams.stream("a")


def test_chance_stays_within_its_bounds_and_reaches_them() -> None:
    chance = SimChance(Streams(1).stream("chance"))
    drawn = {int(chance.between(Duration(-2), Duration(2))) for _ in range(200)}
    assert drawn == {-2, -1, 0, 1, 2}
    assert isinstance(chance.between(SECOND, SECOND), Duration)
    assert chance.between(SECOND, SECOND) == SECOND


def test_tokens_are_16_hexadecimal_digits_and_do_not_repeat() -> None:
    chance = SimChance(Streams(1).stream("chance"))
    tokens = [chance.token() for _ in range(1_000)]
    assert all(len(token) == 16 and set(token) <= set("0123456789abcdef") for token in tokens)
    assert len(set(tokens)) == 1_000
