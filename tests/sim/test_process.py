"""Processes: what is left of a program after it was told to end, was killed, failed, or just went home."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import Context, ContextVar

import pytest

from fleet.contracts.time import Duration
from sim.loop import Deadlock
from sim.process import KILLED, Killed, Process, current_process
from sim.world import World

SECOND = Duration.seconds(1)


class Lab:
    """A world, what its programs said, and how they ended."""

    def __init__(self) -> None:
        self.world = World(1)
        self.said: list[str] = []
        self.ended: list[tuple[str, int]] = []

    def start(self, name: str, main: Callable[[Process], Awaitable[int]]) -> Process:
        async def run(process: Process) -> int:
            return await main(process)

        return self.world.spawn(name, run, lambda process, code: self.ended.append((process.name, code)))

    def pass_time(self, seconds: float = 100) -> None:
        self.world.run(self.world.clock.sleep(Duration.seconds(seconds)))

    async def sleep(self, seconds: float) -> None:
        await self.world.clock.sleep(Duration.seconds(seconds))


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    with lab.world:
        yield lab


def test_a_program_ends_with_the_code_it_returns(lab: Lab) -> None:
    async def main(process: Process) -> int:
        await lab.sleep(1)
        return 7

    process = lab.start("p", main)
    assert process.alive
    lab.pass_time()
    assert lab.ended == [("p", 7)]
    assert (process.alive, process.code, process.error, process.traceback) == (False, 7, None, "")


def test_a_program_that_waits_for_nothing_is_still_there_after_a_collection(lab: Lab) -> None:
    async def main(process: Process) -> int:
        await asyncio.Event().wait()
        return 0

    process = lab.start("p", main)
    lab.pass_time(1)
    gc.collect()
    lab.pass_time(1)
    assert process.alive
    assert not lab.ended


def test_terminating_sets_the_stop_event_and_leaves_the_rest_to_the_program(lab: Lab) -> None:
    async def main(process: Process) -> int:
        await process.stop.wait()
        lab.said.append("stopping")
        await lab.sleep(5)
        lab.said.append("stopped")
        return 0

    process = lab.start("p", main)
    lab.pass_time(10)
    process.terminate()
    lab.pass_time(1)
    assert (lab.said, lab.ended) == (["stopping"], [])
    lab.pass_time(10)
    assert (lab.said, lab.ended) == (["stopping", "stopped"], [("p", 0)])
    process.terminate()


def test_killing_runs_no_line_more(lab: Lab) -> None:
    async def helper() -> None:
        try:
            await lab.sleep(3)
            lab.said.append("helper woke")
        finally:
            lab.said.append("helper's finally")

    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await lab.sleep(1)
        finally:
            lab.said.append("generator's finally")

    async def main(process: Process) -> int:
        loop = asyncio.get_running_loop()
        loop.call_later(3, lab.said.append, "timer")
        loop.create_future().add_done_callback(lambda _: lab.said.append("callback"))
        try:
            async with asyncio.TaskGroup() as group, lab.world.clock.timeout(Duration.seconds(4)):
                group.create_task(helper())
                async for _ in numbers():
                    pass
        except BaseException as error:
            lab.said.append(f"except {error!r}")
            raise
        finally:
            lab.said.append("finally")
        return 0

    process = lab.start("p", main)
    lab.pass_time(2)
    process.kill()
    assert lab.ended == [("p", KILLED)]
    lab.pass_time()
    gc.collect()
    assert lab.said == []
    assert not asyncio.all_tasks(lab.world.loop)
    assert process.error is None


def test_a_generator_of_a_killed_program_that_the_world_lets_go_of_runs_no_line_more(lab: Lab) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            lab.said.append("finally")

    async def main(process: Process) -> int:
        kept.append(numbers())
        await anext(kept[0])
        await lab.sleep(1000)
        return 0

    kept: list[AsyncIterator[int]] = []
    process = lab.start("p", main)
    lab.pass_time(1)
    process.kill()

    async def let_go() -> None:
        kept.clear()
        await lab.sleep(1)

    lab.world.run(let_go())
    lab.world.close()
    gc.collect()
    assert lab.said == []


def test_killing_drops_what_was_ready(lab: Lab) -> None:
    async def main(process: Process) -> int:
        loop = asyncio.get_running_loop()
        while True:
            await lab.sleep(1)
            loop.call_soon(process.kill, context=outside)
            loop.call_soon(lab.said.append, "dead")

    outside = Context()
    lab.start("p", main)
    lab.pass_time()
    assert (lab.said, lab.ended) == ([], [("p", KILLED)])


def test_a_killed_process_is_not_woken_by_others(lab: Lab) -> None:
    answer = lab.world.loop.create_future()

    async def main(process: Process) -> int:
        lab.said.append(await answer)
        return 0

    process = lab.start("p", main)
    lab.pass_time(1)
    process.kill()
    answer.set_result("too late")
    lab.pass_time(1)
    assert lab.said == []


def test_one_killed_process_leaves_the_others_alone(lab: Lab) -> None:
    async def main(process: Process) -> int:
        for _ in range(3):
            await lab.sleep(1)
            lab.said.append(process.name)
        return 0

    first, _ = lab.start("first", main), lab.start("second", main)
    lab.pass_time(1.5)
    first.kill()
    lab.pass_time()
    assert lab.said == ["first", "second", "second", "second"]
    assert lab.ended == [("first", KILLED), ("second", 0)]


def test_dead_code_is_taken_apart_when_the_world_closes_and_finds_itself_fenced(lab: Lab) -> None:
    async def main(process: Process) -> int:
        try:
            await lab.sleep(100)
        finally:
            lab.said.append(f"alive: {process.alive}, {current_process() is process}")
            process.check()
        return 0

    process = lab.start("p", main)
    lab.pass_time(1)
    process.kill()
    lab.pass_time(1)
    assert lab.said == []
    lab.world.close()
    assert lab.said == ["alive: False, True"]


def test_dead_code_that_waits_on_its_way_out_or_refuses_to_go_is_no_trouble(lab: Lab) -> None:
    async def waits(process: Process) -> int:
        try:
            await lab.sleep(100)
        finally:
            await lab.sleep(1)
            await lab.sleep(1)
        return 0

    async def refuses(process: Process) -> int:
        while refusing:
            try:
                await lab.sleep(100)
            except BaseException as error:  # noqa: BLE001 - the worst that a program can do
                lab.said.append(type(error).__name__)
        return 0

    refusing = [True]
    for main in (waits, refuses):
        process = lab.start("p", main)
        lab.pass_time(1)
        process.kill()
    lab.world.close()
    gc.collect()
    assert set(lab.said) == {"GeneratorExit"}
    refusing.clear()  # so that the interpreter, which asks again when it ends, has no cause to complain


def test_a_process_that_is_alive_at_the_end_of_the_world_is_told_nothing(lab: Lab) -> None:
    async def main(process: Process) -> int:
        try:
            await lab.sleep(100)
        finally:
            process.check()
            lab.said.append("finally")
        return 0

    process = lab.start("p", main)
    lab.pass_time(1)
    lab.world.close()
    assert (lab.said, lab.ended, process.alive) == ([], [], False)


def test_the_worlds_own_tasks_are_cancelled_at_its_end(lab: Lab) -> None:
    async def own() -> None:
        try:
            await lab.sleep(1000)
        finally:
            await lab.sleep(1)
            lab.said.append(f"cleaned up at {lab.world.now() / 1e9}")

    async def main() -> None:
        kept.append(asyncio.create_task(own()))
        await lab.sleep(1)

    kept: list[asyncio.Task[None]] = []
    lab.world.run(main())
    lab.world.close()
    assert lab.said == ["cleaned up at 2.0"]


def test_an_exception_of_the_program_is_code_1_and_on_record(lab: Lab) -> None:
    told: list[str] = []

    async def run(process: Process) -> int:
        await lab.sleep(1)
        raise LookupError("on purpose")

    process = lab.world.spawn("p", run, lambda process, code: told.append(f"{code} {process.error!r}"))
    lab.pass_time()
    assert told == ["1 LookupError('on purpose')"]
    assert "in run" in process.traceback
    assert "LookupError: on purpose" in process.traceback


async def fail(lab: Lab) -> None:
    await lab.sleep(1)
    raise LookupError("on purpose")


def test_a_failed_task_that_the_program_has_lost_ends_it_at_once(lab: Lab) -> None:
    async def main(process: Process) -> int:
        asyncio.create_task(fail(lab))  # noqa: RUF006 - that nobody holds it is the point
        await lab.sleep(50)
        lab.said.append("went on")
        return 0

    process = lab.start("p", main)
    lab.pass_time(2)
    assert lab.ended == [("p", 1)]
    assert isinstance(process.error, LookupError)
    assert lab.said == []


def test_a_failed_task_that_the_program_still_holds_counts_when_it_ends(lab: Lab) -> None:
    async def main(process: Process) -> int:
        task = asyncio.create_task(fail(lab))
        await lab.sleep(50)
        return 0 if task.done() else 9

    process = lab.start("p", main)
    lab.pass_time(49)
    assert lab.ended == []
    lab.pass_time(2)
    assert lab.ended == [("p", 1)]
    assert isinstance(process.error, LookupError)


def test_a_failed_task_that_the_program_looked_at_is_its_own_affair(lab: Lab) -> None:
    async def main(process: Process) -> int:
        task = asyncio.create_task(fail(lab))
        await lab.sleep(50)
        try:
            await task
        except LookupError:
            return 3
        return 0

    process = lab.start("p", main)
    lab.pass_time()
    assert (lab.ended, process.error) == ([("p", 3)], None)


def test_an_exception_in_a_callback_ends_its_process_and_nothing_else(lab: Lab) -> None:
    async def main(process: Process) -> int:
        if process.name == "bad":
            asyncio.get_running_loop().call_later(1, lambda: [][0])
            asyncio.get_running_loop().call_soon(lab.said.append, "before")
        await lab.sleep(10)
        return 0

    bad, _ = lab.start("bad", main), lab.start("good", main)
    lab.pass_time()
    assert lab.ended == [("bad", 1), ("good", 0)]
    assert isinstance(bad.error, IndexError)
    assert lab.said == ["before"]


def test_what_fails_in_a_dead_process_is_heard_by_nobody(lab: Lab) -> None:
    async def main(process: Process) -> int:
        task = asyncio.create_task(fail(lab))
        await lab.sleep(10)
        process.kill()
        raise ValueError(f"after death, {task.done()}")

    process = lab.start("p", main)
    lab.pass_time()
    assert (lab.ended, process.error) == ([("p", KILLED)], None)


@pytest.mark.parametrize(("given", "code"), [(None, 0), (0, 0), (3, 3), ("why", 1)])
def test_sys_exit_ends_the_process_with_its_code(lab: Lab, given: int | str | None, code: int) -> None:
    async def main(process: Process) -> int:
        await lab.sleep(1)
        sys.exit(given)

    lab.start("p", main)
    lab.pass_time()
    assert lab.ended == [("p", code)]


def test_a_program_that_ends_cancels_its_tasks_and_waits_for_them(lab: Lab) -> None:
    async def helper(name: str) -> None:
        try:
            await lab.sleep(1000)
        finally:
            await lab.sleep(2)
            lab.said.append(f"{name} cleaned up at {lab.world.now() / 1e9}")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await lab.sleep(1)
            lab.said.append(f"generator closed at {lab.world.now() / 1e9}")

    generator = numbers()

    async def main(process: Process) -> int:
        tasks = [asyncio.create_task(helper(name)) for name in "ab"]
        await anext(generator)
        await lab.sleep(1)
        return len(tasks)

    lab.start("p", main)
    lab.pass_time()
    assert lab.said == ["a cleaned up at 3.0", "b cleaned up at 3.0", "generator closed at 4.0"]
    assert lab.ended == [("p", 2)]


def test_a_helper_that_fails_while_the_program_ends_is_code_1(lab: Lab) -> None:
    async def helper() -> None:
        try:
            await lab.sleep(1000)
        finally:
            raise LookupError("on purpose")

    async def main(process: Process) -> int:
        task = asyncio.create_task(helper())
        await lab.sleep(1)
        return 5 if task.done() else 0

    process = lab.start("p", main)
    lab.pass_time()
    assert lab.ended == [("p", 1)]
    assert isinstance(process.error, LookupError)


def test_ports_clean_up_at_every_kind_of_end_before_anybody_is_told(lab: Lab) -> None:
    events: list[str] = []

    async def main(process: Process) -> int:
        process.on_death(lambda: events.append(f"cleaned up after {process.name}"))
        await lab.sleep(1)
        if process.name == "fails":
            raise ValueError("on purpose")
        if process.name == "killed":
            await lab.sleep(1000)
        return 0

    def ended(process: Process, code: int) -> None:
        events.append(f"{process.name} ended with {code}")

    spawned = [lab.world.spawn(name, main, ended) for name in ("ends", "fails", "killed")]
    lab.pass_time(10)
    spawned[2].kill()
    spawned[2].kill()
    assert events == [
        *("cleaned up after ends", "ends ended with 0"),
        *("cleaned up after fails", "fails ended with 1"),
        *("cleaned up after killed", "killed ended with -9"),
    ]
    spawned[0].on_death(lambda: events.append("at once"))
    assert events[-1] == "at once"


def test_a_process_killed_by_what_it_calls_goes_on_to_where_it_waits_and_is_fenced(lab: Lab) -> None:
    async def main(process: Process) -> int:
        process.kill()
        lab.said.append("same step")
        asyncio.create_task(lab.sleep(1))  # noqa: RUF006 - it is never run
        with pytest.raises(Killed):
            process.check()
        await lab.sleep(0)
        lab.said.append("never")
        return 0

    lab.start("p", main)
    lab.pass_time()
    assert (lab.said, lab.ended) == (["same step"], [("p", KILLED)])


def test_a_program_is_itself_in_everything_it_schedules_and_nothing_of_its_parent(lab: Lab) -> None:
    inherited: ContextVar[str] = ContextVar("inherited", default="nothing")

    def note() -> None:
        process = current_process()
        lab.said.append(f"{process.name if process else 'world'} {inherited.get()}")

    async def task() -> None:
        note()

    async def child(process: Process) -> int:
        note()
        await asyncio.create_task(task())
        asyncio.get_running_loop().call_soon(note)
        asyncio.get_running_loop().call_later(1, note)
        lab.world.kernel.after(SECOND, note)
        await lab.sleep(2)
        return 0

    async def parent(process: Process) -> int:
        inherited.set("of the parent")
        lab.start("child", child)
        await lab.sleep(1)
        process.kill()
        return 0

    lab.start("parent", parent)
    lab.pass_time()
    assert lab.said == ["child nothing"] * 4 + ["world nothing"]
    assert lab.ended == [("parent", KILLED), ("child", 0)]
    assert current_process() is None


def test_a_process_that_makes_many_tasks_forgets_those_that_are_done(lab: Lab) -> None:
    async def main(process: Process) -> int:
        for _ in range(1_000):
            await asyncio.create_task(lab.sleep(0))
        return len(process._tasks)

    lab.start("p", main)
    lab.pass_time()
    assert lab.ended[0][1] < 100


def test_parked_tasks_are_no_part_of_a_deadlock(lab: Lab) -> None:
    async def main(process: Process) -> int:
        await asyncio.Event().wait()
        return 0

    process = lab.start("dead one", main)
    lab.pass_time(1)
    process.kill()

    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock) as caught:
        lab.world.run(wait_for_ever())
    assert "dead one" not in str(caught.value)
    assert "wait_for_ever" in str(caught.value)
    for task in asyncio.all_tasks(lab.world.loop):
        task.cancel()


def test_a_thousand_kills_cost_no_more_than_they_must(lab: Lab) -> None:
    async def main(process: Process) -> int:
        await lab.sleep(1000)
        return 0

    processes = [lab.start(f"{number}", main) for number in range(1_000)]
    lab.pass_time(1)
    for process in processes:
        process.kill()
    assert len(lab.world.loop.graveyard) == 1_000
    assert not asyncio.all_tasks(lab.world.loop)
