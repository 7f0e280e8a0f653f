"""Time and chance: the two things a program takes from its surroundings without noticing."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from fleet.contracts.time import Duration, Instant


class Clock(Protocol):
    """The time of the machine a program runs on. All timers go through it, so that one pace scales them."""

    def wall(self) -> Instant:
        """The machine's idea of the time of day (Unix epoch). May be wrong and may jump, also backwards."""
        ...

    def monotonic(self) -> Instant:
        """Time since an arbitrary start. Never goes back."""
        ...

    async def sleep(self, length: Duration) -> None:
        """Wait."""
        ...

    def timeout(self, length: Duration) -> AbstractAsyncContextManager[object]:
        """A block that is cancelled after `length` and then raises `TimeoutError`."""
        ...


class Chance(Protocol):
    """Randomness for jitter and ids. Not for keys and secrets."""

    def between(self, low: Duration, high: Duration) -> Duration:
        """A length in [low, high], uniformly."""
        ...

    def token(self) -> str:
        """16 lower-case hexadecimal digits, unlikely to come again."""
        ...
