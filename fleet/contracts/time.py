"""Time as whole nanoseconds. Two types, so that a point in time and a length of time cannot be swapped.

Both are `int` subclasses: they order, hash and serialise as the integer they are, exactly, with no
rounding at any distance from zero. Floats appear only where a foreign API demands seconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from fractions import Fraction
from typing import Self, TypeVar, overload

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from fleet.contracts.errors import InvalidValue

_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9}
_TEXT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ns|us|ms|s|m|h|d)")

_Ns = TypeVar("_Ns", bound="_Nanoseconds")


class _Nanoseconds(int):
    @property
    def ns(self) -> int:
        """The same number as a plain `int`."""
        return int(self)

    @property
    def in_seconds(self) -> float:
        """Seconds as a float: for foreign APIs and for display, never for arithmetic."""
        return int(self) / 1e9

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.int_schema(strict=True))


class Duration(_Nanoseconds):
    """A length of time in nanoseconds. Negative lengths are representable (a difference of instants)."""

    __slots__ = ()

    @classmethod
    def seconds(cls, seconds: float) -> Self:
        """`seconds` rounded to whole nanoseconds."""
        return cls(round(seconds * 1e9))

    @classmethod
    def minutes(cls, minutes: float) -> Self:
        """`minutes` rounded to whole nanoseconds."""
        return cls(round(minutes * 60e9))

    @classmethod
    def millis(cls, millis: float) -> Self:
        """`millis` rounded to whole nanoseconds."""
        return cls(round(millis * 1e6))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `"90s"`, `"1h30m"`, `"250ms"`: one or more numbers, each with its unit.

        Raises:
            InvalidValue: the text is empty, has a sign, an unknown unit, or a number without a unit.
        """
        total, position = 0, 0
        for match in _TEXT.finditer(text):
            if match.start() != position:
                break
            total += round(Fraction(match[1]) * _UNITS[match[2]])
            position = match.end()
        if not text or position != len(text):
            raise InvalidValue(f"{text!r} is not a duration: write numbers with units, such as 30s, 5m, 1h30m, 250ms")
        return cls(total)

    def __add__(self, other: int) -> Duration:
        if isinstance(other, Instant):
            return NotImplemented
        return Duration(int.__add__(self, other))

    def __sub__(self, other: int) -> Duration:
        return Duration(int.__sub__(self, other))

    def __mul__(self, factor: int) -> Duration:
        return Duration(int.__mul__(self, factor))

    def __floordiv__(self, divisor: int) -> Duration:
        return Duration(int.__floordiv__(self, divisor))

    def scaled(self, factor: float) -> Duration:
        """This length times `factor`, rounded to whole nanoseconds."""
        return Duration(round(int(self) * factor))

    def __str__(self) -> str:
        ns = int(self)
        if ns % 10**6:
            return f"{ns}ns"
        if ns % 10**9:
            return f"{ns // 10**6}ms"
        seconds = ns // 10**9
        if seconds and seconds % 3600 == 0:
            return f"{seconds // 3600}h"
        if seconds and seconds % 60 == 0:
            return f"{seconds // 60}m"
        return f"{seconds}s"

    def __repr__(self) -> str:
        return f"Duration({self})"


class Instant(_Nanoseconds):
    """A point in time: nanoseconds since an epoch that the clock which made it defines.

    Wall clocks count from the Unix epoch, monotonic ones from their start. Never compare the two.
    """

    __slots__ = ()

    def __add__(self, other: int) -> Instant:
        return Instant(int.__add__(self, other))

    @overload  # type: ignore[override]  # a plain int is refused on purpose: it has no unit
    def __sub__(self, other: Instant) -> Duration: ...
    @overload
    def __sub__(self, other: Duration) -> Instant: ...
    def __sub__(self, other: int) -> Duration | Instant:
        if isinstance(other, Instant):
            return Duration(int.__sub__(self, other))
        return Instant(int.__sub__(self, other))

    def utc(self) -> str:
        """ISO 8601 in UTC with millisecond precision; only meaningful for wall-clock instants."""
        moment = datetime.fromtimestamp(int(self) // 10**9, tz=UTC)
        return f"{moment.isoformat()[:19]}.{int(self) % 10**9 // 10**6:03d}Z"

    def __repr__(self) -> str:
        return f"Instant({int(self)})"


ZERO = Duration(0)
