"""The one clock and the one queue of the virtual world: a simpy environment counted in whole nanoseconds.

Every timer of the event loop, every message under way on the network and every event of a simpy model stands in
the same heap, so that there is one order: by time, then simpy's priority, then first come, first served. The only
module that imports simpy.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator
from heapq import heapify, heappush

from simpy import Environment
from simpy.events import NORMAL, Event

from fleet.contracts.errors import InvalidValue

_FEW = 100
"""Below this number of cancelled entries the queue is never compacted."""


class Entry:
    """Something that stands in the queue and acts when its time comes. Subclasses are slotted: there are many.

    An entry is a simpy event as far as simpy looks: `Environment.step` runs it like any other. It leaves out the
    list of callbacks that an `Event` carries, because it has one thing to do.
    """

    __slots__ = ()

    _cancelled: bool
    """A cancelled entry is passed over without moving the clock."""
    _ok = True
    _defused = True

    @abstractmethod
    def fire(self) -> None:
        """Act. Called once, at the entry's time."""

    @property
    def callbacks(self) -> list[Callable[[Event], None]]:
        """What simpy's own `step` calls."""
        return [] if self._cancelled else [lambda _: self.fire()]

    @callbacks.setter
    def callbacks(self, _: None) -> None:
        """Simpy marks an event as processed this way; an entry leaves the queue and needs no mark."""


class Call(Entry):
    """A plain callback at an instant, without a context and without a process identity: it belongs to the world."""

    __slots__ = ("_args", "_callback", "_cancelled", "_kernel")

    def __init__(self, kernel: Kernel, callback: Callable[..., None], args: tuple[object, ...]) -> None:
        self._kernel = kernel
        self._callback: Callable[..., None] = callback
        self._args = args
        self._cancelled = False

    def fire(self) -> None:
        self._cancelled = True
        self._callback(*self._args)

    def cancel(self) -> None:
        """Do not call. Nothing happens when the call was made or cancelled before."""
        if not self._cancelled:
            self._cancelled = True
            self._kernel.forget()


class Kernel(Environment):
    """The simpy environment of a world. Time begins at 0.

    The event loop drives it (`sim.loop`); `Environment.run` works too, for models without a loop.
    """

    def __init__(self) -> None:
        super().__init__(initial_time=0)
        self._cancelled_count = 0

    @property
    def now(self) -> int:
        """Nanoseconds since the world began."""
        return self._now  # type: ignore[return-value]  # simpy allows floats; `push` lets none in

    def at(self, when: int, callback: Callable[..., None], *args: object) -> Call:
        """Call `callback(*args)` at `when` (nanoseconds, not before now). What it raises ends the run.

        Raises:
            InvalidValue: `when` is not an integer, or is in the past.
        """
        if not isinstance(when, int) or when < self._now:  # type: ignore[redundant-expr]  # as in `push`
            raise _not_an_instant(when, self._now)
        call = Call(self, callback, args)
        heappush(self._queue, (int(when), NORMAL, next(self._eid), call))  # type: ignore[misc]  # as in `push`
        return call

    def after(self, delay: int, callback: Callable[..., None], *args: object) -> Call:
        """Call `callback(*args)` in `delay` nanoseconds. Raises: InvalidValue, as `at`."""
        return self.at(self.now + delay, callback, *args)

    def push(self, when: int, entry: Entry) -> None:
        """Put an entry into the queue. Raises: InvalidValue, as `at`."""
        if not isinstance(when, int) or when < self._now:  # type: ignore[redundant-expr]  # NaN and floats come untyped
            raise _not_an_instant(when, self._now)
        # `int`, because the queue and the clock hold plain integers, and not the types that callers count with.
        heappush(self._queue, (int(when), NORMAL, next(self._eid), entry))  # type: ignore[misc]  # an entry stands for an Event

    def push_after(self, delay: int, entry: Entry) -> None:
        """Put an entry into the queue, `delay` nanoseconds from now; not negative, which is not checked."""
        heappush(self._queue, (self._now + delay, NORMAL, next(self._eid), entry))  # type: ignore[misc]  # as in `push`

    def forget(self) -> None:
        """Count one entry that was cancelled in the queue; throw the cancelled ones out when they are the majority.

        In place, because the event loop holds on to the list. The order stays: it is total without the entries.
        """
        self._cancelled_count += 1
        if self._cancelled_count > _FEW and self._cancelled_count * 2 > len(self._queue):
            self._queue[:] = [item for item in self._queue if not getattr(item[3], "_cancelled", False)]
            heapify(self._queue)
            self._cancelled_count = 0

    def forgotten(self) -> None:
        """Count one cancelled entry that left the queue at its time."""
        self._cancelled_count -= 1

    @property
    def cancelled(self) -> int:
        """The number of entries in the queue that will do nothing."""
        return self._cancelled_count

    @property
    def pending(self) -> int:
        """The number of entries in the queue, cancelled ones included."""
        return len(self._queue)


def _not_an_instant(when: object, now: object) -> InvalidValue:
    return InvalidValue(f"{when!r} is not an instant from {now} on, in whole nanoseconds")


def bare_timeouts(count: int, processes: int) -> int:
    """Run `count` timeouts spread over simpy processes, with nothing around them: the floor of every benchmark.

    Returns:
        How many timeouts were waited for.
    """
    environment = Environment(initial_time=0)
    fired = 0

    def wait(first: int, number: int) -> Generator[Event, None, None]:
        nonlocal fired
        length = first
        for _ in range(number):
            yield environment.timeout(length)
            fired += 1
            length = 30_000_000_000

    share, rest = divmod(count, processes)
    for index in range(processes):
        environment.process(wait(index * 30_000_000_000 // processes, share + (index < rest)))
    environment.run()
    return fired
