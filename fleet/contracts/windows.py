"""Weekly maintenance windows with a time zone: pure functions of an instant, so that the brain needs no clock.

A window begins when the clocks of its zone show its start. Where they skip that time (summer time begins) it begins
as if they had not, which is as much later by the new time; where they show it twice (summer time ends) it begins the
first time. Its length is time that really passes: a window of four hours is open for four hours in every night.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from fleet.contracts.errors import InvalidValue
from fleet.contracts.parts import Part
from fleet.contracts.time import Duration, Instant

_WEEK = Duration.minutes(7 * 24 * 60)
_DAYS_BACK = 8
"""A window is at most a week long, and the zones differ by less than a day and a half."""


class Weekday(StrEnum):
    """The days on which a window begins, in their order."""

    MONDAY = "mon"
    TUESDAY = "tue"
    WEDNESDAY = "wed"
    THURSDAY = "thu"
    FRIDAY = "fri"
    SATURDAY = "sat"
    SUNDAY = "sun"


def known_zone(name: str) -> str:
    """The name, if this machine knows a zone of it. Raises: InvalidValue."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidValue(f"{name!r} is not a time zone: use an IANA name, such as Europe/Zurich or UTC") from None
    return name


TimeZone = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(known_zone)]
"""The IANA name of a time zone that this machine knows."""


class Window(Part):
    """Open for `length` from `start` (`HH:MM`, time of day in the zone) on each of the `days`."""

    days: Annotated[tuple[Weekday, ...], Field(min_length=1, max_length=7)] = tuple(Weekday)
    start: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    length: Annotated[Duration, Field(gt=0, le=int(_WEEK))]

    def model_post_init(self, context: object) -> None:
        """A day is named once."""
        if len(set(self.days)) < len(self.days):
            raise InvalidValue("a window names a day twice")


class MaintenanceWindows(Part):
    """When upgrade slots may be given."""

    time_zone: TimeZone
    weekly: Annotated[tuple[Window, ...], Field(min_length=1, max_length=32)]

    def is_open(self, wall: Instant) -> bool:
        """Whether this moment lies in a window. The first nanosecond does, the one at the end does not."""
        return any(begin <= wall < begin + window.length for begin, window in self._around(wall))

    def next_opening(self, wall: Instant) -> Instant:
        """When the next window begins after this moment."""
        return min(begin for begin, _ in self._around(wall) if begin > wall)

    def _around(self, wall: Instant) -> Iterator[tuple[Instant, Window]]:
        """Every window that can be open now or be the next one, with its beginning."""
        zone = ZoneInfo(self.time_zone)
        today = datetime.fromtimestamp(wall.ns // 10**9, tz=zone).date()
        for back in range(-_DAYS_BACK, _DAYS_BACK + 1):
            day = today + timedelta(days=back)
            for window in self.weekly:
                if list(Weekday)[day.weekday()] in window.days:
                    yield _begin(day, window.start, zone), window


def _begin(day: date, start: str, zone: ZoneInfo) -> Instant:
    local = datetime.combine(day, time.fromisoformat(start), tzinfo=zone)
    return Instant(int(local.astimezone(UTC).timestamp()) * 10**9)
