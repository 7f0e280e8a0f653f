"""One direction of a TCP connection over a link that can be cut.

What cannot be sent waits, in order, and is offered to the link again after `RETRANSMIT`, then after twice that, and so
on: a short cut delays messages and loses none. Only the end of the connection loses what waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from fleet.contracts.time import Duration

RETRANSMIT: Final = Duration.millis(500)

Message = tuple[int, Callable[..., None], tuple[object, ...]]
"""Size in bytes, what to call at the other end, and with what."""


class Cancellable(Protocol):
    """A timer that can be called off."""

    def cancel(self) -> None:
        """Call it off. Harmless when it has fired."""
        ...


class Timers(Protocol):
    """Time of the world. Its timers belong to no process and outlive the one that happens to run."""

    @property
    def now(self) -> int:
        """Nanoseconds since the world began."""
        ...

    def after(self, delay: Duration, callback: Callable[..., None], *args: object) -> Cancellable:
        """Call back once after `delay`."""
        ...


class Route(Protocol):
    """One direction between two hosts."""

    def send(self, size: int, deliver: Callable[..., None], *args: object) -> bool:
        """Deliver later, in order; False when the link is cut and nothing will come of it."""
        ...


class Pipe:
    """Messages in order over one route."""

    __slots__ = ("_on_stall", "_pause", "_route", "_timer", "_timers", "_waiting")

    def __init__(self, route: Route, timers: Timers, on_stall: Callable[[], None]) -> None:
        self._route = route
        self._timers = timers
        self._on_stall = on_stall
        self._waiting: deque[Message] = deque()
        self._pause = RETRANSMIT
        self._timer: Cancellable | None = None

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
            self._timer = self._timers.after(self._pause, self._retry)
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
                self._timer = self._timers.after(self._pause, self._retry)
                return
            self._waiting.popleft()
