"""The queue: one order, whole nanoseconds, cancelled entries that cost nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any

import pytest

from fleet.contracts.errors import InvalidValue
from fleet.contracts.time import Duration
from sim.kernel import Kernel
from sim.loop import SimLoop


def drained(kernel: Kernel) -> None:
    """Run everything that stands in the queue through simpy's own loop."""
    kernel.run()


def test_calls_come_in_the_order_of_time_and_then_first_come_first_served() -> None:
    kernel = Kernel()
    seen: list[tuple[int, str]] = []

    def note(name: str) -> None:
        seen.append((kernel.now, name))

    kernel.at(20, note, "late")
    for name in "abcdefghijkl":
        kernel.at(10, note, name)
    kernel.at(0, note, "at once")
    drained(kernel)
    assert seen == [(0, "at once"), *[(10, name) for name in "abcdefghijkl"], (20, "late")]


def test_a_call_made_at_an_instant_for_that_instant_comes_after_those_that_stood_there() -> None:
    kernel = Kernel()
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        kernel.after(0, seen.append, "third")

    kernel.at(5, first)
    kernel.at(5, seen.append, "second")
    drained(kernel)
    assert seen == ["first", "second", "third"]


@pytest.mark.parametrize("when", [math.nan, 0.5, math.inf, "1", None])
def test_only_whole_nanoseconds_are_instants(when: object) -> None:
    with pytest.raises(InvalidValue):
        Kernel().at(when, lambda: None)  # type: ignore[arg-type]  # that is the point


def test_the_past_is_refused() -> None:
    kernel = Kernel()
    kernel.at(10, lambda: None)
    drained(kernel)
    with pytest.raises(InvalidValue):
        kernel.at(9, lambda: None)
    with pytest.raises(InvalidValue):
        kernel.after(-1, lambda: None)


def test_the_clock_holds_plain_integers_whatever_callers_count_with() -> None:
    kernel = Kernel()
    entry = kernel.at(Duration.seconds(1), lambda: None)
    kernel.after(Duration.seconds(2), lambda: None)
    kernel.push_after(Duration.seconds(3), entry)
    assert [type(when) for when, *_ in kernel._queue] == [int, int, int]
    drained(kernel)
    assert type(kernel.now) is int
    assert kernel.now == 3 * 10**9


def test_a_cancelled_call_is_not_made() -> None:
    kernel = Kernel()
    seen: list[str] = []
    call = kernel.at(1, seen.append, "cancelled")
    kernel.at(2, seen.append, "made")
    call.cancel()
    call.cancel()
    drained(kernel)
    assert seen == ["made"]


def test_cancelling_a_call_that_was_made_changes_nothing() -> None:
    kernel = Kernel()
    call = kernel.at(1, lambda: None)
    drained(kernel)
    call.cancel()
    assert kernel.cancelled == 0


@pytest.mark.parametrize("keep", [1, 7, 50])
def test_cancelled_entries_are_thrown_out_when_they_are_the_majority(keep: int) -> None:
    kernel = Kernel()
    seen: list[int] = []
    calls = [kernel.at(1000 - number, seen.append, number) for number in range(1000)]
    queue = kernel._queue
    for number, call in enumerate(calls):
        if number % keep or keep == 1:
            call.cancel()
    assert kernel._queue is queue
    assert kernel.pending <= 2 * (1000 // keep) + 102
    left = [] if keep == 1 else [number for number in range(1000) if number % keep == 0]
    drained(kernel)
    assert seen == left[::-1]


def test_a_thousand_time_limits_that_are_never_hit_leave_a_small_queue() -> None:
    kernel = Kernel()
    for _ in range(10_000):
        kernel.after(60 * 10**9, lambda: None).cancel()
    assert kernel.pending <= 200


def test_entries_and_events_of_simpy_share_one_order() -> None:
    def seen_by(drive: Callable[[Kernel], None]) -> list[str]:
        kernel = Kernel()
        seen: list[str] = []

        def model() -> Generator[Any, None, None]:
            for number in range(3):
                yield kernel.timeout(10)
                seen.append(f"simpy {kernel.now} {number}")

        kernel.process(model())
        for when in (5, 10, 15, 25):
            kernel.at(when, seen.append, f"call {when}")
        drive(kernel)
        return seen

    def by_the_loop(kernel: Kernel) -> None:
        loop = SimLoop(kernel)
        kernel.at(40, loop.stop)
        loop.run_forever()
        loop.close()

    expected = ["call 5", "call 10", "simpy 10 0", "call 15", "simpy 20 1", "call 25", "simpy 30 2"]
    assert seen_by(drained) == expected
    assert seen_by(by_the_loop) == expected
