"""What the virtual loop does otherwise than a stock one: order, exactness, and errors instead of hanging or logging."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import sim.loop
from fleet.contracts.errors import InvalidValue
from sim.kernel import Kernel
from sim.loop import Deadlock, Livelock, SimLoop, Unretrieved, quiet_collector

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(main)


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    loop = SimLoop()
    yield loop
    loop.close()


# --- order -------------------------------------------------------------------------------------------


def test_timers_of_one_instant_run_first_come_first_served() -> None:
    async def main() -> list[int]:
        loop, seen = asyncio.get_running_loop(), list[int]()
        for number in range(12):
            loop.call_at(5.0, seen.append, number)
        await asyncio.sleep(6)
        return seen

    assert run(main()) == list(range(12))


def test_what_became_ready_runs_before_the_next_timer_of_the_instant() -> None:
    async def main() -> list[str]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        loop.call_at(5.0, lambda: loop.call_soon(seen.append, "made ready by the first"))
        loop.call_at(5.0, seen.append, "second")
        await asyncio.sleep(6)
        return seen

    assert run(main()) == ["made ready by the first", "second"]


def test_a_time_limit_and_a_sleep_that_end_together_time_out() -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        run(main())


def test_tasks_and_futures_hash_by_number() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(3)]
        futures = [loop.create_future() for _ in range(3)]
        await asyncio.gather(*tasks)
        return [hash(item) for item in [*tasks, *futures[::-1], *futures]]

    first, *others = run(main())
    assert others == [first + number for number in (1, 2, 3, 4, 5, 5, 4, 3)]
    assert run(main())[0] == first


ABORTS = """
import asyncio, sys
from sim.loop import SimLoop

def main():
    heap = [bytearray(size) for size in range(1, 200 * int(sys.argv[1]) + 2, 7)]
    order = []

    async def child(number):
        junk = [object() for _ in range(number * int(sys.argv[1]))]
        try:
            await asyncio.sleep(1000)
        finally:
            order.append(number)

    async def fail():
        await asyncio.sleep(1)
        raise ValueError("on purpose")

    async def abort():
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(40):
                    group.create_task(child(number))
                group.create_task(fail())
        except* ValueError:
            order.append("failed")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(40)]
        for future in futures:
            future.set_result(None)
        done, _ = await asyncio.wait(futures)
        order.extend(futures.index(future) for future in done)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(abort())
    print(order)

main()
"""


def test_the_order_of_an_abort_is_the_same_in_every_process() -> None:
    def order(hash_seed: str, noise: int) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", ABORTS, str(noise)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    first = order("0", 0)
    assert "failed" in first
    assert {order(seed, noise) for seed, noise in (("0", 3), ("1", 1), ("12345", 5), ("random", 2))} == {first}


def test_generators_left_open_are_closed_in_the_order_they_were_begun_in() -> None:
    closed: list[int] = []
    kept: list[AsyncIterator[int]] = []

    async def numbers(name: int) -> AsyncIterator[int]:
        try:
            yield name
        finally:
            closed.append(name)

    async def main() -> None:
        for name in range(20):
            kept.append(numbers(name))
        for generator in kept[::-1]:
            await anext(generator)

    run(main())
    assert closed == list(range(20))[::-1]


def test_names_of_tasks_count_per_loop() -> None:
    async def main() -> list[str]:
        return [asyncio.create_task(asyncio.sleep(0)).get_name() for _ in range(2)]

    assert run(main()) == run(main())


# --- time --------------------------------------------------------------------------------------------


def test_nanoseconds_are_exact_far_from_zero(loop: SimLoop) -> None:
    year = 365 * 86_400 * 10**9
    seen: list[int] = []
    for when in (year + 1, year, year + 3, year + 2):
        loop.call_at_ns(when, lambda: seen.append(loop.kernel.now))
    loop.call_at_ns(year + 4, loop.stop)
    loop.run_forever()
    assert seen == [year, year + 1, year + 2, year + 3]


def test_a_delay_is_not_rounded_by_the_time_already_passed(loop: SimLoop) -> None:
    def later() -> None:
        loop.call_later(1e-9, loop.stop)

    loop.call_at_ns(10**18 + 1, later)
    loop.run_forever()
    assert loop.kernel.now == 10**18 + 2


@pytest.mark.parametrize("method", ["call_later", "call_at"])
def test_not_a_number_is_refused(loop: SimLoop, method: str) -> None:
    with pytest.raises(InvalidValue):
        getattr(loop, method)(math.nan, lambda: None)


def test_negative_delays_are_no_delay_and_infinite_ones_never_end() -> None:
    async def main() -> tuple[list[str], float]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        loop.call_later(-5, seen.append, "negative")
        loop.call_at(-math.inf, seen.append, "long past")
        loop.call_later(math.inf, seen.append, "never").cancel()
        loop.call_at(math.inf, seen.append, "never")
        await asyncio.sleep(10)
        return seen, loop.time()

    assert run(main()) == (["negative", "long past"], 10.0)


def test_a_timer_can_be_cancelled_before_and_after_it_ran(loop: SimLoop) -> None:
    seen: list[str] = []
    cancelled, made = loop.call_later(1, seen.append, "cancelled"), loop.call_later(2, seen.append, "made")
    cancelled.cancel()
    loop.call_later(3, loop.stop)
    loop.run_forever()
    made.cancel()
    assert seen == ["made"]
    assert (cancelled.cancelled(), loop.kernel.cancelled, loop.kernel.pending) == (True, 0, 0)


def test_cancelled_timers_do_not_move_the_clock(loop: SimLoop) -> None:
    loop.call_later(100, lambda: None).cancel()
    with pytest.raises(Deadlock):
        loop.run_forever()
    assert loop.kernel.now == 0


def test_many_time_limits_leave_a_small_queue() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        for _ in range(5_000):
            async with asyncio.timeout(60):
                await asyncio.sleep(0.001)
        return loop.kernel.pending

    assert run(main()) <= 250


def test_models_of_simpy_and_coroutines_share_one_time() -> None:
    kernel = Kernel()
    loop = SimLoop(kernel)
    seen: list[str] = []

    def model() -> Iterator[Any]:
        for _ in range(3):
            yield kernel.timeout(2 * 10**9)
            seen.append(f"model {kernel.now}")

    async def main() -> None:
        kernel.process(model())  # type: ignore[arg-type]  # simpy wants a Generator by name
        for _ in range(3):
            await asyncio.sleep(1.5)
            seen.append(f"coroutine {kernel.now}")
        await asyncio.sleep(10)

    loop.run_until_complete(main())
    loop.close()
    assert seen == [
        "coroutine 1500000000",
        "model 2000000000",
        "coroutine 3000000000",
        "model 4000000000",
        "coroutine 4500000000",
        "model 6000000000",
    ]


# --- running -----------------------------------------------------------------------------------------


def test_stopping_leaves_what_becomes_ready_later(loop: SimLoop) -> None:
    seen: list[str] = []

    def stop() -> None:
        loop.stop()
        loop.call_soon(seen.append, "in the next run")

    loop.call_soon(stop)
    loop.call_soon(seen.append, "in this run")
    loop.run_forever()
    assert seen == ["in this run"]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["in this run", "in the next run"]


def test_a_spinner_does_not_keep_the_run_from_ending() -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    async def main() -> str:
        spinner = asyncio.create_task(spin())
        await asyncio.sleep(0)
        assert not spinner.done()
        return "done"

    assert run(main()) == "done"


def test_a_closed_loop_takes_nothing(loop: SimLoop) -> None:
    loop.close()
    for schedule in (loop.call_soon, lambda callback: loop.call_later(1, callback)):
        with pytest.raises(RuntimeError, match="closed"):
            schedule(lambda: None)
    loop.close()


def test_a_deadlock_names_what_waits() -> None:
    async def waits_for_godot() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits_for_godot(), name="vladimir")

    with asyncio.Runner(loop_factory=SimLoop) as runner, pytest.raises(Deadlock) as caught:
        runner.run(main())
    message = str(caught.value)
    assert "vladimir" in message
    assert "waits_for_godot" in message
    assert "main" in message
    assert "0x" not in message


def test_a_livelock_is_an_error_that_names_the_spinner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.loop, "SAME_INSTANT", 1_000)

    async def spins() -> None:
        while True:
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=SimLoop) as runner, pytest.raises(Livelock, match="spins"):
        runner.run(spins())


def test_timers_that_do_not_let_time_pass_are_a_livelock(monkeypatch: pytest.MonkeyPatch, loop: SimLoop) -> None:
    monkeypatch.setattr(sim.loop, "SAME_INSTANT", 1_000)

    def again() -> None:
        loop.call_later(0, again)

    again()
    with pytest.raises(Livelock):
        loop.run_forever()


def test_many_callbacks_over_time_are_no_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.loop, "SAME_INSTANT", 100)

    async def main() -> None:
        for _ in range(1_000):
            await asyncio.sleep(1e-9)

    run(main())


# --- what there is not -------------------------------------------------------------------------------


def test_an_executor_works_at_once_on_this_thread() -> None:
    async def main() -> tuple[int, float]:
        ticker = asyncio.create_task(asyncio.sleep(1))
        thread = await asyncio.to_thread(threading.get_ident)
        now = asyncio.get_running_loop().time()
        await ticker
        return thread, now

    assert run(main()) == (threading.get_ident(), 0.0)


def test_other_threads_are_refused() -> None:
    errors: list[BaseException] = []

    def intrude(loop: SimLoop) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None)
        except RuntimeError as error:
            errors.append(error)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        thread = threading.Thread(target=intrude, args=(loop,))
        thread.start()
        thread.join()
        loop.call_soon_threadsafe(lambda: None)

    run(main())
    assert "no threads" in str(errors[0])


def test_the_outside_is_out_of_reach() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError):
            await loop.getaddrinfo("localhost", 80)
        with pytest.raises(RuntimeError):
            await asyncio.open_connection("localhost", 80)
        with pytest.raises(NotImplementedError):
            await asyncio.create_subprocess_exec("true")
        with pytest.raises(NotImplementedError):
            loop.add_signal_handler(15, lambda: None)
        with pytest.raises(NotImplementedError):
            loop.add_reader(0, lambda: None)
        with pytest.raises(InvalidValue):
            loop.set_task_factory(lambda loop, coro: asyncio.Task(coro, loop=loop))

    run(main())


# --- errors that nobody asked for --------------------------------------------------------------------


def test_an_exception_in_a_callback_ends_the_run_at_once() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(1, lambda: [][0])
        await asyncio.sleep(100)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        with pytest.raises(IndexError):
            runner.run(main())
        assert runner.get_loop().time() == 1.0


async def fail() -> None:
    await asyncio.sleep(1)
    raise ValueError("on purpose")


def test_a_failed_task_that_nobody_holds_ends_the_run_at_once() -> None:
    async def main() -> None:
        asyncio.create_task(fail())  # noqa: RUF006 - that nobody holds it is the point
        await asyncio.sleep(100)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        with pytest.raises(ValueError, match="on purpose"):
            runner.run(main())
        assert runner.get_loop().time() == 1.0


def test_a_failed_task_of_a_set_that_forgets_it_ends_the_run_at_once() -> None:
    async def main() -> None:
        kept: set[asyncio.Task[None]] = set()
        task = asyncio.create_task(fail())
        kept.add(task)
        task.add_done_callback(kept.discard)
        del task
        await asyncio.sleep(100)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        with pytest.raises(ValueError, match="on purpose"):
            runner.run(main())
        assert runner.get_loop().time() == 1.0


def test_a_failed_task_that_somebody_holds_is_told_of_when_the_run_ends() -> None:
    kept: list[asyncio.Task[None]] = []

    async def main() -> float:
        kept.append(asyncio.create_task(fail()))
        await asyncio.sleep(100)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        with pytest.raises(ValueError, match="on purpose"):
            runner.run(main())
        assert runner.get_loop().time() == 100.0
        assert runner.run(asyncio.sleep(0, "told once")) == "told once"


def test_the_error_of_the_program_comes_first_and_names_the_others() -> None:
    async def main() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(2)
        raise LookupError(f"of the program, {task.done()}")

    with pytest.raises(LookupError, match="True") as caught:
        run(main())
    assert any("on purpose" in note for note in caught.value.__notes__)


def test_an_exception_that_somebody_retrieved_is_nobody_elses() -> None:
    async def main() -> None:
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        await asyncio.sleep(10)
        assert isinstance(task.exception(), ValueError)

    run(main())


def test_a_future_whose_exception_is_lost_is_told_of_when_the_run_ends() -> None:
    async def main() -> None:
        asyncio.get_running_loop().create_future().set_exception(ValueError("on purpose"))
        await asyncio.sleep(1)

    with pytest.raises(ValueError, match="on purpose"):
        run(main())


def test_a_pending_task_that_is_lost_is_told_of_when_the_run_ends() -> None:
    async def wait_for_nothing() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        asyncio.create_task(wait_for_nothing())  # noqa: RUF006 - that nobody holds it is the point
        await asyncio.sleep(1)
        gc.collect()

    with pytest.raises(Unretrieved, match="pending"):
        run(main())


def test_an_exception_handler_is_asked_instead() -> None:
    told: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: told.append(str(context["exception"])))
        loop.create_future().set_exception(ValueError("on purpose"))
        await asyncio.sleep(1)

    run(main())
    assert told == ["on purpose"]


# --- the collector -----------------------------------------------------------------------------------


def test_the_collector_is_quiet_for_a_while_and_as_before_afterwards() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with quiet_collector():
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_freeze_count() > frozen
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)
