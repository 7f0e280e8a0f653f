"""The clock of a virtual machine: monotonic time is the world's, the time of day can be wrong.

Waiting goes past the loop's own timers, because nearly every entry of the queue is one of these: an entry that wakes
one future, or the time limit itself as an entry. Both are placed in whole nanoseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType, coroutine
from typing import Any, Final

from fleet.contracts.time import ZERO, Duration, Instant
from sim.kernel import Entry, Kernel
from sim.loop import SimLoop

EPOCH: Final = Instant(1_767_225_600 * 10**9)
"""The true time of day when a world begins: 2026-01-01T00:00:00Z."""
_EPOCH: Final = int(EPOCH)
"""A plain integer: instants check what is added to them."""


class SimClock:
    """The `Clock` port of a machine.

    Args:
        offset: how wrong the machine's time of day is. The attribute may be changed at any moment: the time jumps.
    """

    def __init__(self, loop: SimLoop, offset: Duration = ZERO) -> None:
        self._loop = loop
        self._kernel = loop.kernel
        self._booted = 0
        self._drift = 0
        self._drifts_since = 0
        self.offset = offset

    def wall(self) -> Instant:
        """See `Clock.wall`."""
        if self._drift:
            return Instant(_EPOCH + self._kernel.now + int(self.offset) + self._drifted())
        return Instant(_EPOCH + self._kernel.now + int(self.offset))

    def drift(self, parts_per_million: int) -> None:
        """From now on the time of day runs too fast by this much (negative: too slowly). 0: as fast as it should.

        How far off it is by then stays. Monotonic time does not drift.
        """
        self.offset = Duration(int(self.offset) + self._drifted())
        self._drift, self._drifts_since = parts_per_million, self._kernel.now

    def _drifted(self) -> int:
        return (self._kernel.now - self._drifts_since) * self._drift // 1_000_000

    def monotonic(self) -> Instant:
        """Nanoseconds since the machine was started, or since the world began if it never was."""
        return Instant(self._kernel.now - self._booted)

    def reboot(self) -> None:
        """The machine starts now: monotonic time begins anew."""
        self._booted = self._kernel.now

    async def sleep(self, length: Duration) -> None:
        """See `Clock.sleep`. Without a positive length, everything that is ready runs once."""
        if length <= 0:
            await _once_around()
            return
        # A future of the plain type, which no set ever holds: tasks wait for those on a shorter path.
        future: asyncio.Future[None] = asyncio.Future(loop=self._loop)
        wake = _Wake(self._kernel, future)
        self._kernel.push_after(length, wake)
        try:
            await future
        except BaseException:
            wake.cancel()
            raise

    def timeout(self, length: Duration) -> AbstractAsyncContextManager[object]:
        """See `Clock.timeout`."""
        return _Limit(self._loop, length)


class _Wake(Entry):
    """The end of a sleep."""

    __slots__ = ("_cancelled", "_future", "_kernel")

    def __init__(self, kernel: Kernel, future: asyncio.Future[None]) -> None:
        self._kernel = kernel
        self._future = future
        self._cancelled = False

    def fire(self) -> None:
        """Wake the sleeper. What that runs goes through the loop, which drops it when the sleeper is dead."""
        self._cancelled = True
        if not self._future.done():
            self._future.set_result(None)

    def cancel(self) -> None:
        """Do not wake. Nothing happens when it has."""
        if not self._cancelled:
            self._cancelled = True
            self._kernel.forget()


class _Limit(Entry):
    """As `asyncio.Timeout`, and its own entry of the queue: a block left in time costs one cancelled entry."""

    __slots__ = ("_cancelled", "_cancelling", "_expired", "_length", "_loop", "_queued", "_task")

    _task: asyncio.Task[Any]

    def __init__(self, loop: SimLoop, length: Duration) -> None:
        self._loop = loop
        self._length = length
        self._cancelled = True
        self._expired = False
        self._queued = False

    async def __aenter__(self) -> _Limit:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a time limit needs a task to limit")
        if self._queued or self._expired:
            raise RuntimeError("a time limit is used once")
        self._task = task
        self._cancelling = task.cancelling()
        self._cancelled = False
        if self._length > 0:
            self._queued = True
            self._loop.kernel.push_after(self._length, self)
        else:
            self._loop.call_soon(self.fire)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._cancelled:
            self._cancelled = True
            if self._queued:
                self._loop.kernel.forget()
        elif self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def fire(self) -> None:
        """The time is up, unless the block was left or its process died before."""
        if self._cancelled:
            return
        self._cancelled = True
        owner = getattr(self._task, "owner", None)
        if owner is None or owner.alive:
            self._expired = True
            self._task.cancel()


@coroutine
def _once_around() -> Generator[None, None, None]:
    """Let everything run that is ready."""
    yield
