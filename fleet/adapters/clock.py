"""Real time and real chance: the only place where production code takes them from its surroundings."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AbstractAsyncContextManager

from fleet.contracts.errors import InvalidValue
from fleet.contracts.time import Duration, Instant


class WallClock:
    """The machine's clocks, with every length of time divided by one pace. Needs a running asyncio loop to wait.

    `monotonic` counts from the making of the clock. With a pace of 10 an hour of the system's time passes in six
    minutes: both clocks run ten times as fast and every wait is a tenth, so that all timers keep their proportions.
    `wall` is right at the making of the clock and runs ahead from there on; with the pace 1 it is the machine's own,
    its jumps included.

    Raises:
        InvalidValue: the pace is not above 0.
    """

    def __init__(self, pace: float = 1.0) -> None:
        if not pace > 0:
            raise InvalidValue(f"{pace} is not a pace: use a number above 0")
        self._pace = pace
        self._start = time.monotonic_ns()
        self._wall_at_start = time.time_ns()

    def wall(self) -> Instant:
        """The time of day, as the class says."""
        if self._pace == 1.0:
            return Instant(time.time_ns())
        return Instant(self._wall_at_start + self.monotonic())

    def monotonic(self) -> Instant:
        """Paced time since the clock was made."""
        return Instant(round((time.monotonic_ns() - self._start) * self._pace))

    async def sleep(self, length: Duration) -> None:
        """Wait."""
        await asyncio.sleep(self._real(length))  # noqa: TID251 - this is the Clock port

    def timeout(self, length: Duration) -> AbstractAsyncContextManager[object]:
        """A block that is cancelled after `length` and then raises `TimeoutError`."""
        return asyncio.timeout(self._real(length))  # noqa: TID251 - this is the Clock port

    def _real(self, length: Duration) -> float:
        return length.in_seconds / self._pace


class SystemChance:
    """The operating system's randomness. For jitter and ids; keys and secrets are made elsewhere."""

    def between(self, low: Duration, high: Duration) -> Duration:
        """A length in [low, high], uniformly up to one part in 2**64."""
        return Duration(low + int.from_bytes(os.urandom(16)) % (high - low + 1))

    def token(self) -> str:
        """16 lower-case hexadecimal digits."""
        return os.urandom(8).hex()
