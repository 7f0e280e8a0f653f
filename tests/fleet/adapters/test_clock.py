"""Real time with a pace, and real chance."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from fleet.adapters.clock import OffsetFile, SystemChance, WallClock
from fleet.contracts.errors import InvalidValue
from fleet.contracts.time import Duration


def test_a_wait_is_divided_by_the_pace_and_both_clocks_run_faster() -> None:
    async def told() -> None:
        clock = WallClock(pace=100)
        wall, monotonic, real = clock.wall(), clock.monotonic(), time.monotonic()
        await clock.sleep(Duration.seconds(5))
        assert 0.05 <= time.monotonic() - real < 2
        assert Duration.seconds(5) <= clock.monotonic() - monotonic < Duration.seconds(200)
        assert Duration.seconds(5) <= clock.wall() - wall < Duration.seconds(200)

    asyncio.run(told())


def test_a_time_limit_is_divided_by_the_pace() -> None:
    async def told() -> None:
        clock = WallClock(pace=100)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            async with clock.timeout(Duration.seconds(5)):
                await asyncio.Event().wait()
        assert 0.05 <= time.monotonic() - begin < 2

    asyncio.run(told())


def test_without_a_pace_the_time_of_day_is_the_machines() -> None:
    clock = WallClock()
    before = time.time_ns()
    assert before <= clock.wall() <= time.time_ns()
    assert clock.monotonic() < Duration.seconds(60)


def test_programs_that_start_one_after_the_other_have_the_same_time_of_day() -> None:
    pace, slack = 1000, Duration.seconds(5)
    since = WallClock().wall()
    time.sleep(0.05)
    later = WallClock(pace, since=since)
    earliest = time.time_ns()
    told = later.wall()
    latest = time.time_ns()
    assert since + Duration((earliest - since) * pace) - slack <= told
    assert told <= since + Duration((latest - since) * pace) + slack
    assert told - since >= Duration.seconds(45)
    assert abs(WallClock(1.0, since=since).wall() - WallClock(1.0).wall()) < slack


@pytest.mark.parametrize("pace", [0, -1, float("nan")])
def test_a_pace_is_above_nought(pace: float) -> None:
    with pytest.raises(InvalidValue):
        WallClock(pace)


@pytest.mark.parametrize("pace", [1.0, 10.0])
def test_the_time_of_day_is_as_wrong_as_the_file_says_now(pace: float, tmp_path: Path) -> None:
    file = tmp_path / "offset"
    right, wrong = WallClock(pace), WallClock(pace, OffsetFile(file))
    assert abs(wrong.wall() - right.wall()) < Duration.seconds(10)
    file.write_text("-3600000000000\n")
    assert abs(right.wall() - wrong.wall() - Duration.minutes(60)) < Duration.seconds(10)
    file.write_text("an hour")
    with pytest.raises(InvalidValue, match="nanoseconds"):
        wrong.wall()


def test_chance_keeps_to_its_range() -> None:
    chance = SystemChance()
    drawn = {chance.between(Duration(3), Duration(5)) for _ in range(200)}
    assert drawn == {Duration(3), Duration(4), Duration(5)}
    tokens = {chance.token() for _ in range(50)}
    assert len(tokens) == 50
    assert all(len(token) == 16 and set(token) <= set("0123456789abcdef") for token in tokens)
