"""The time of day of a machine without a battery: a Raspberry Pi as it leaves the shop.

When the power comes back, the time of day is the one that was saved last: once an hour, as `fake-hwclock` does it, so
that it is behind by the time that has passed since. Some time after the boot a time server puts it right, if one can
be reached. Monotonic time begins anew with each boot. A fault can `hold` synchronisation off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fleet.contracts.time import ZERO, Duration
from sim.clock import EPOCH, SimClock
from sim.kernel import Call, Kernel
from sim.random import Streams

SAVED_EVERY: Final = Duration.minutes(60)
SYNCHRONISES_AFTER: Final = (Duration.seconds(5), Duration.seconds(60))
"""After the power came on: booting, an address, names, and the first answers of a time server."""
TRIES_AGAIN_AFTER: Final = Duration.seconds(30)
IMAGE_AGE: Final = Duration.minutes(30 * 24 * 60)
"""The first boot begins with the time at which the card's image was made."""


class Timekeeper:
    """Keeps one machine's clock, more or less.

    Args:
        reachable: whether a time server can be reached right now.
    """

    def __init__(
        self, kernel: Kernel, streams: Streams, name: str, clock: SimClock, reachable: Callable[[], bool]
    ) -> None:
        self._kernel = kernel
        self._streams = streams
        self._name = name
        self._clock = clock
        self._reachable = reachable
        self._saved: int | None = None
        self._booted = 0
        self._on = False
        self._held = 0
        self._parts = 0
        self._next: Call | None = None

    def power_on(self) -> None:
        """The machine boots."""
        self._on = True
        self._booted = self._kernel.now
        self._clock.reboot()
        self._clock.drift(self._parts)
        right = int(EPOCH) + self._kernel.now
        saved = right - int(IMAGE_AGE) if self._saved is None else self._saved
        self._saved = saved
        self._clock.offset = Duration(saved - right)
        low, high = SYNCHRONISES_AFTER
        self._wait(self._streams.stream(f"clock/{self._name}").randint(low, high))

    def power_lost(self) -> None:
        """The machine loses power: what the clock showed is forgotten, and what was saved stays."""
        self._on = False
        whole = (self._kernel.now - self._booted) // int(SAVED_EVERY) * int(SAVED_EVERY)
        if whole:
            self._saved = int(self._clock.wall()) - (self._kernel.now - self._booted - whole)
        self._stop_waiting()

    def jump(self, by: Duration) -> None:
        """The time of day is another one, suddenly."""
        self._clock.offset = Duration(int(self._clock.offset) + int(by))

    def drift(self, parts_per_million: int) -> None:
        """See `SimClock.drift`. Goes on until the next call, whatever happens to the power."""
        self._parts = parts_per_million
        self._clock.drift(parts_per_million)

    def hold(self) -> None:
        """Nothing is synchronised until `release`, of which there has to be one for each `hold`."""
        self._held += 1
        self._stop_waiting()

    def release(self) -> None:
        """Synchronise again, at once if that is possible."""
        self._held -= 1
        if self._on:
            self._synchronise()

    def _synchronise(self) -> None:
        self._next = None
        if self._held:
            return
        if self._reachable():
            self._clock.drift(self._parts)
            self._clock.offset = ZERO
        else:
            self._wait(int(TRIES_AGAIN_AFTER))

    def _wait(self, length: int) -> None:
        self._stop_waiting()
        self._next = self._kernel.after(length, self._synchronise)

    def _stop_waiting(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
