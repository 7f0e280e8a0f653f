"""A slow processor for the processes of one device: they are stopped for most of every short while.

Started programs, hashing and answers take that much longer, while timers run on. The pace of the run has made the
processor slow in the scenario's time already: what is missing to the factor comes on top, and never less than half.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from fleet.capabilities.clock import Clock
from fleet.contracts.time import Duration

_WHILE: Final = Duration.millis(100)
"""In real time."""
LEAST: Final = 2
"""A pace is no fault: on top of it, at least half of the time is taken away."""


def beyond(factor: int, pace: float) -> int:
    """How many times slower a processor has to be made, so that it is `factor` times slower in the scenario's time."""
    return max(LEAST, math.ceil(factor / pace))


async def slow_down(processes: Callable[[], list[int]], factor: int, real: Clock) -> None:
    """Let the processes run for one part in `factor` of the time, until cancelled; then all of them run again.

    Args:
        processes: asked at each stop: new ones are slow, too.
        real: a clock that is not paced.
    """
    running = Duration(_WHILE // factor)
    while True:
        await real.sleep(running)
        stopped = _signal(processes(), signal.SIGSTOP)
        try:
            await real.sleep(_WHILE - running)
        finally:
            _signal(stopped, signal.SIGCONT)


def _signal(pids: list[int], number: int) -> list[int]:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids
