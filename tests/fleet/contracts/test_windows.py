"""Maintenance windows: zones, days, the ends of a window, and the nights in which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.contracts.time import Duration, Instant
from fleet.contracts.windows import MaintenanceWindows, Weekday, Window

MINUTE = Duration.minutes(1)
DAY = MINUTE * 60 * 24


def at(text: str) -> Instant:
    return Instant(round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9)


def windows(zone: str, start: str, minutes: int, *days: Weekday) -> MaintenanceWindows:
    window = Window(days=days or tuple(Weekday), start=start, length=MINUTE * minutes)
    return MaintenanceWindows(time_zone=zone, weekly=(window,))


def opened(them: MaintenanceWindows, begin: str, end: str) -> list[str]:
    """The minutes (UTC) of a span at which the windows open or close."""
    found, moment, was = [], at(begin), them.is_open(at(begin))
    while moment < at(end):
        moment = moment + MINUTE
        if them.is_open(moment) is not was:
            was = not was
            found.append(moment.utc()[11:16])
    return found


def test_a_window_opens_at_its_start_in_its_zone_and_closes_after_its_length() -> None:
    nights = windows("Europe/Zurich", "22:00", 240, Weekday.MONDAY)
    assert opened(nights, "2026-01-05 00:00", "2026-01-06 12:00") == ["21:00", "01:00"]
    assert opened(nights, "2026-07-06 00:00", "2026-07-07 12:00") == ["20:00", "00:00"]
    assert opened(nights, "2026-01-06 12:00", "2026-01-10 00:00") == []
    assert nights.is_open(at("2026-01-05 21:00"))
    assert not nights.is_open(Instant(at("2026-01-05 21:00") - Duration(1)))
    assert not nights.is_open(at("2026-01-06 01:00"))


def test_a_start_that_the_clocks_skip_is_as_much_later_by_the_new_time() -> None:
    nights = windows("Europe/Zurich", "02:30", 60)
    assert opened(nights, "2026-03-28 00:00", "2026-03-28 12:00") == ["01:30", "02:30"]
    assert opened(nights, "2026-03-29 00:00", "2026-03-29 12:00") == ["01:30", "02:30"]  # 03:30 by the clocks
    assert opened(nights, "2026-03-30 00:00", "2026-03-30 12:00") == ["00:30", "01:30"]


def test_a_start_that_the_clocks_show_twice_is_taken_the_first_time_alone() -> None:
    nights = windows("Europe/Zurich", "02:30", 60)
    assert opened(nights, "2026-10-25 00:00", "2026-10-25 12:00") == ["00:30", "01:30"]


def test_a_window_over_a_change_of_the_clocks_is_as_long_as_ever() -> None:
    nights = windows("Europe/Zurich", "23:00", 300)
    assert opened(nights, "2026-03-28 12:00", "2026-03-29 12:00") == ["22:00", "03:00"]
    assert opened(nights, "2026-10-24 12:00", "2026-10-25 12:00") == ["21:00", "02:00"]


def test_a_window_of_a_week_is_always_open() -> None:
    always = windows("Pacific/Kiritimati", "12:00", 7 * 24 * 60, Weekday.SUNDAY)
    assert opened(always, "2026-01-05 00:00", "2026-01-15 00:00") == []
    assert always.is_open(at("2026-01-05 00:00"))


@given(
    st.sampled_from(["UTC", "Europe/Zurich", "Australia/Lord_Howe", "Pacific/Apia", "America/St_Johns"]),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(1, 7 * 24 * 60),
    st.sets(st.sampled_from(list(Weekday)), min_size=1),
    st.integers(0, 3 * 366 * 24 * 60),
)
def test_the_next_opening_is_the_next_moment_at_which_one_begins(
    zone: str, hour: int, minute: int, length: int, days: set[Weekday], offset: int
) -> None:
    them = windows(zone, f"{hour:02}:{minute:02}", length, *sorted(days))
    now = Instant(at("2025-01-01 00:00") + MINUTE * offset)
    opening = them.next_opening(now)
    assert now < opening <= now + DAY * 8
    assert them.is_open(opening)
    local = datetime.fromtimestamp(opening.ns // 10**9, UTC)
    assert (local.second, opening.ns % 10**9) == (0, 0)
    if not them.is_open(now):
        between = Instant((now + (opening - now) // 2).ns)
        assert not them.is_open(between) or them.next_opening(now) <= between
        assert not them.is_open(Instant(opening - Duration(1)))


@pytest.mark.parametrize(
    ("zone", "start", "length"),
    [
        ("Mars/Olympus", "22:00", 60),
        ("UTC", "24:00", 60),
        ("UTC", "9:00", 60),
        ("UTC", "09:00", 0),
        ("UTC", "09:00", 10081),
        ("", "09:00", 60),
        ("../etc/passwd", "09:00", 60),
    ],
)
def test_what_is_no_window(zone: str, start: str, length: int) -> None:
    with pytest.raises(ValidationError):
        windows(zone, start, length)


def test_a_window_names_a_day_once() -> None:
    with pytest.raises(ValidationError, match="twice"):
        windows("UTC", "09:00", 60, Weekday.MONDAY, Weekday.MONDAY)
