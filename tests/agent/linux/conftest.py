"""A real clock, for what waits."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager

import pytest

from fleet.capabilities.clock import Clock
from fleet.contracts.time import Duration, Instant


class WallClock:
    def wall(self) -> Instant:
        return Instant(time.time_ns())

    def monotonic(self) -> Instant:
        return Instant(time.monotonic_ns())

    async def sleep(self, length: Duration) -> None:
        await asyncio.sleep(length.in_seconds)

    def timeout(self, length: Duration) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(length.in_seconds)


@pytest.fixture
def clock() -> Clock:
    return WallClock()
