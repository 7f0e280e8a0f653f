"""A world: one seed, one kernel, one loop, one network. Everything virtual is built on one of these."""

from __future__ import annotations

from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from fleet.contracts.time import Instant
from sim.kernel import Kernel
from sim.loop import SimLoop
from sim.network import Network
from sim.random import Streams

T = TypeVar("T")


class World:
    """Empty space and time, from a seed."""

    def __init__(self, seed: int) -> None:
        self.kernel = Kernel()
        self.loop = SimLoop(self.kernel)
        self.streams = Streams(seed)
        self.network = Network(self.kernel, self.streams)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def now(self) -> Instant:
        """Nanoseconds since the world began."""
        return Instant(self.kernel.now)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main`, which belongs to no process, to its end. Time stands still afterwards.

        Raises: what `main` raises, and as `SimLoop.run_forever`.
        """
        return self.loop.run_until_complete(main)

    def close(self) -> None:
        """The end of the world. Nothing in it runs any more."""
        self.loop.close()
