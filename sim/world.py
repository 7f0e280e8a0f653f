"""A world: one seed, one kernel, one loop, one network. Everything virtual is built on one of these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from fleet.contracts.time import Instant
from sim.clock import SimClock
from sim.kernel import Kernel
from sim.loop import SimLoop
from sim.network import Network
from sim.process import Main, Process, spawn
from sim.random import Streams

T = TypeVar("T")


class World:
    """Empty space and time, from a seed. A context manager, which closes it."""

    def __init__(self, seed: int) -> None:
        self.kernel = Kernel()
        self.loop = SimLoop(self.kernel)
        self.streams = Streams(seed)
        self.network = Network(self.kernel, self.streams)
        self.clock = SimClock(self.loop)
        """The world's own clock, which is right."""

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def now(self) -> Instant:
        """Nanoseconds since the world began."""
        return Instant(self.kernel.now)

    def spawn(self, name: str, main: Main, on_end: Callable[[Process, int], None]) -> Process:
        """Start a program. See `sim.process.spawn`."""
        return spawn(self.loop, name, main, on_end)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main`, which belongs to no process, to its end. Time stands still afterwards.

        Raises: what `main` raises, and as `SimLoop.run_until_complete`.
        """
        return self.loop.run_until_complete(main)

    def close(self) -> None:
        """The end of the world. Processes still alive end without another line of theirs, and nobody is told.

        The world's own tasks are cancelled and waited for, as `asyncio.run` does.

        Raises: what one of those tasks raises on its way out; Deadlock when one waits for what cannot happen any more.
        """
        if self.loop.is_closed():
            return
        try:
            self.loop.abandon_processes()
            tasks = self.loop.pending_tasks()
            for task in tasks:
                task.cancel()
            if tasks:
                self.loop.run_until_complete(_gone(tasks))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()


async def _gone(tasks: list[asyncio.Task[Any]]) -> None:
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
