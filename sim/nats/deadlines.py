"""The time limits of calls: nearly every call is answered long before, so that a limit has to cost next to nothing.

Calls with limits of the same length run out in the order in which they began. So there is one line of calls per
length, and one entry of the kernel's queue for the first of each line.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from sim.kernel import Kernel


class Caller(Protocol):
    """Who waits for the answer to a call."""

    def waits(self, call: int) -> bool:
        """Whether the call is still without an answer."""
        ...

    def time_out(self, call: int) -> None:
        """The time of a call that was still without an answer is up."""
        ...


class Deadlines:
    """When calls have waited for long enough."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._lines: dict[int, deque[tuple[int, Caller, int]]] = {}

    def limit(self, length: int, caller: Caller, call: int) -> None:
        """Tell the caller when a call has waited for `length` nanoseconds, unless it no longer waits then."""
        line = self._lines.get(length)
        if line is None:
            line = self._lines[length] = deque()
        when = self._kernel.now + length
        line.append((when, caller, call))
        if len(line) == 1:
            self._kernel.at(when, self._due, line)

    def _due(self, line: deque[tuple[int, Caller, int]]) -> None:
        """The first of a line has had its time. Wait for the next one that still waits for its answer."""
        now = self._kernel.now
        while line:
            when, caller, call = line[0]
            if caller.waits(call):
                if when > now:
                    self._kernel.at(when, self._due, line)
                    return
                caller.time_out(call)
            line.popleft()
