"""One direction of a TCP connection over a link that can be cut.

What cannot be sent waits, in order, and is offered to the link again after `RETRANSMIT`, then after twice that, and so
on: a short cut delays messages and loses none. Only the end of the connection loses what waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fleet.contracts.time import Duration
from sim.kernel import Call, Kernel
from sim.network import Route

RETRANSMIT: Final = Duration.millis(500)

Message = tuple[int, Callable[..., None], tuple[object, ...]]
"""Size in bytes, what to call at the other end, and with what."""


class Pipe:
    """Messages in order over one route."""

    __slots__ = ("_kernel", "_on_stall", "_pause", "_route", "_timer", "_waiting")

    def __init__(self, route: Route, kernel: Kernel, on_stall: Callable[[], None] | None = None) -> None:
        self._route = route
        self._kernel = kernel
        self._on_stall = on_stall
        self._waiting: list[Message] = []
        self._pause = RETRANSMIT
        self._timer: Call | None = None

    @property
    def stalled(self) -> bool:
        """Whether something waits for the link to heal."""
        return bool(self._waiting)

    def send(self, size: int, deliver: Callable[..., None], *args: object) -> None:
        """Send, or wait behind what waits already."""
        if not self._waiting and self._route.send(size, deliver, *args):
            return
        self._waiting.append((size, deliver, args))
        if self._timer is None:
            self._pause = RETRANSMIT
            self._timer = self._kernel.after(self._pause, self._retry)
            if self._on_stall is not None:
                self._on_stall()

    def close(self) -> tuple[Message, ...]:
        """End. What was waiting is returned and will not be sent by this pipe."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left = tuple(self._waiting)
        self._waiting.clear()
        return left

    def _retry(self) -> None:
        self._timer = None
        while self._waiting:
            size, deliver, args = self._waiting[0]
            if not self._route.send(size, deliver, *args):
                self._pause = self._pause * 2
                self._timer = self._kernel.after(self._pause, self._retry)
                return
            del self._waiting[0]
