"""A clock that a test moves."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from fleet.contracts.time import Duration, Instant

BEGIN = Instant(1_800_000_000 * 10**9)


class HandClock:
    """Stands still, but for what it is told; sleeping moves it."""

    def __init__(self) -> None:
        self._now = Instant(0)

    def pass_by(self, length: Duration) -> None:
        self._now = self._now + length

    def wall(self) -> Instant:
        return BEGIN + Duration(self._now)

    def monotonic(self) -> Instant:
        return self._now

    async def sleep(self, length: Duration) -> None:
        self.pass_by(length)

    def timeout(self, length: Duration) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(None)
