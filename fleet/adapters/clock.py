"""Real time and real chance: the only place where production code takes them from its surroundings."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from fleet.contracts.errors import InvalidValue
from fleet.contracts.time import ZERO, Duration, Instant


class WallClock:
    """The machine's clocks, with every length of time divided by one pace. Needs a running asyncio loop to wait.

    `monotonic` counts from the making of the clock. With a pace of 10 an hour of the system's time passes in six
    minutes: both clocks run ten times as fast and every wait is a tenth, so that all timers keep their proportions.
    `wall` was right at `since` and runs ahead from there on; with the pace 1 it is the machine's own, with its jumps.

    Args:
        pace: how many times faster than real.
        offset: asked at each `wall` how wrong the time of day is.
        since: the machine's time of day at which `wall` was right, by default the making of the clock. Programs that
            are given the same one have the same time of day, and keep it over their restarts.

    Raises:
        InvalidValue: the pace is not above 0.
    """

    def __init__(
        self, pace: float = 1.0, offset: Callable[[], Duration] = lambda: ZERO, since: Instant | None = None
    ) -> None:
        if not pace > 0:
            raise InvalidValue(f"{pace} is not a pace: use a number above 0")
        self._pace = pace
        self._offset = offset
        self._start = time.monotonic_ns()
        now = time.time_ns()
        self._wall_at_start = now if since is None else since + round((now - since) * pace)

    def wall(self) -> Instant:
        """The time of day, as the class says."""
        if self._pace == 1.0:
            return Instant(time.time_ns()) + self._offset()
        return Instant(self._wall_at_start + self.monotonic()) + self._offset()

    def monotonic(self) -> Instant:
        """Paced time since the clock was made."""
        return Instant(round((time.monotonic_ns() - self._start) * self._pace))

    def since_boot(self) -> Instant:
        """Paced time since the machine was booted: the same for all of its programs that have the same pace."""
        return Instant(round(time.monotonic_ns() * self._pace))

    async def sleep(self, length: Duration) -> None:
        """Wait."""
        await asyncio.sleep(self._real(length))  # noqa: TID251 - this is the Clock port

    def timeout(self, length: Duration) -> AbstractAsyncContextManager[object]:
        """A block that is cancelled after `length` and then raises `TimeoutError`."""
        return asyncio.timeout(self._real(length))  # noqa: TID251 - this is the Clock port

    def _real(self, length: Duration) -> float:
        return length.in_seconds / self._pace


class OffsetFile:
    """How wrong a program is to believe the time of day to be, in a file that is read anew each time (ADR-018).

    It holds nanoseconds as a decimal number; a file that is not there stands for none. Whoever changes it replaces it
    by a rename.

    Raises:
        InvalidValue: when called: the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> Duration:
        try:
            text = self._path.read_text("ascii")
        except FileNotFoundError:
            return ZERO
        try:
            return Duration(int(text))
        except ValueError:
            raise InvalidValue(f"{self._path} does not hold a number of nanoseconds") from None


class SystemChance:
    """The operating system's randomness. For jitter and ids; keys and secrets are made elsewhere."""

    def between(self, low: Duration, high: Duration) -> Duration:
        """A length in [low, high], uniformly up to one part in 2**64."""
        return Duration(low + int.from_bytes(os.urandom(16)) % (high - low + 1))

    def token(self) -> str:
        """16 lower-case hexadecimal digits."""
        return os.urandom(8).hex()
