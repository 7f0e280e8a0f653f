"""The clock of a virtual machine: monotonic time is the world's, the time of day can be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType, coroutine
from typing import Final

from fleet.contracts.time import ZERO, Duration, Instant
from sim.loop import SimFuture, SimLoop, TimerHandle

EPOCH: Final = Instant(1_767_225_600 * 10**9)
"""The true time of day when a world begins: 2026-01-01T00:00:00Z."""


class SimClock:
    """The `Clock` port. `offset` is how wrong the machine's time of day is; it may be changed at any moment."""

    def __init__(self, loop: SimLoop, offset: Duration = ZERO) -> None:
        self._loop = loop
        self._kernel = loop.kernel
        self.offset = offset

    def wall(self) -> Instant:
        """See `Clock.wall`."""
        return Instant(EPOCH + self._kernel.now + self.offset)

    def monotonic(self) -> Instant:
        """Nanoseconds since the world began."""
        return Instant(self._kernel.now)

    async def sleep(self, length: Duration) -> None:
        """See `Clock.sleep`."""
        if length <= 0:
            await _once_around()
            return
        future = self._loop.create_future()
        timer = self._loop.call_at_ns(self._kernel.now + int(length), _wake, future)
        try:
            await future
        finally:
            timer.cancel()

    def timeout(self, length: Duration) -> AbstractAsyncContextManager[object]:
        """See `Clock.timeout`."""
        return _Timeout(self._loop, int(length))


class _Timeout:
    """As `asyncio.Timeout`, in whole nanoseconds: a block left in time costs one cancelled entry of the queue."""

    __slots__ = ("_cancelling", "_expired", "_length", "_loop", "_task", "_timer")

    _task: asyncio.Task[object]
    _timer: TimerHandle

    def __init__(self, loop: SimLoop, length: int) -> None:
        self._loop = loop
        self._length = length
        self._expired = False
        self._cancelling = 0

    async def __aenter__(self) -> _Timeout:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit needs a task to limit")
        self._task = task
        self._cancelling = task.cancelling()
        loop = self._loop
        self._timer = loop.call_at_ns(loop.kernel.now + max(self._length, 0), self._expire)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()


def _wake(future: SimFuture) -> None:
    if not future.done():
        future.set_result(None)


@coroutine
def _once_around() -> Generator[None, None, None]:
    """Let everything run that is ready."""
    yield
