"""The network: nodes on a backbone, devices behind uplinks that are slow, shared and cut at times.

The rules, in short:

- A message takes the latency of both ends' uplinks, a jitter for each, and the time its bytes need on the slower one.
- Messages of one route never overtake each other, as on one TCP connection.
- An uplink carries one thing at a time per direction, first come, first served. Bulk transfers take it in turns of at
  most `TURN`: so they share it evenly, and a small message waits for at most one turn of each of them.
- Nothing new gets through a cut. What was sent before it arrives: a sender that was told its bytes are on their way
  would otherwise have to keep them and send them again, as TCP does, only to end up with the same late delivery.
- A transfer waits out a cut of either direction, because its bytes have to be acknowledged; not for ever (`PATIENCE`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet.contracts.errors import Disconnected, InvalidValue, NotFound
from fleet.contracts.time import Duration
from sim.kernel import Call, Entry, Kernel
from sim.random import Streams
from sim.tasks import OWNER

TURN: Final = Duration.millis(100)
"""How long one bulk transfer may occupy an uplink before the next one's turn."""
PATIENCE: Final = Duration.seconds(30)
"""A transfer over a path that stays cut for this long fails."""

_LATENCY: Final = Duration.millis(20)
_JITTER: Final = Duration.millis(10)
_SECOND: Final = 10**9


@dataclass(frozen=True, slots=True)
class Link:
    """An uplink: a 20 Mbit/s line, unless said otherwise.

    Args:
        latency: one way, for the first byte.
        jitter: added to the latency, drawn evenly from [0, jitter] for each message.
        bandwidth: bytes per second, in each direction.
    """

    latency: Duration = _LATENCY
    jitter: Duration = _JITTER
    bandwidth: int = 2_500_000

    def __post_init__(self) -> None:
        if self.bandwidth <= 0 or self.latency < 0 or self.jitter < 0:
            raise InvalidValue(f"{self} is no link: bandwidth has to be positive, times must not be negative")


class Cut(StrEnum):
    """Which direction of a link is cut."""

    BOTH = "both"
    TO_DEVICE = "to-device"
    FROM_DEVICE = "from-device"


class _Lane:
    """One direction of an uplink."""

    __slots__ = ("bandwidth", "busy_until", "cuts", "throttles", "turn", "whole")

    def __init__(self, bandwidth: int) -> None:
        self.bandwidth = self.whole = bandwidth
        self.turn = _turn(bandwidth)
        """Bytes of one turn of a bulk transfer."""
        self.throttles: list[int] = []
        """Bandwidths that it is held to: the least counts."""
        self.busy_until = 0
        self.cuts = 0
        """Partitions that cut it right now: they may overlap."""

    def throttled(self) -> None:
        """`throttles` has changed."""
        self.bandwidth = min([self.whole, *self.throttles])
        self.turn = _turn(self.bandwidth)


def _turn(bandwidth: int) -> int:
    return max(1, bandwidth * TURN // _SECOND)


class _Uplink:
    """A node's uplink. The chance of its jitter is a stream of its own, so that no node moves another's."""

    __slots__ = ("down", "jitter", "latency", "name", "up")

    def __init__(self, name: str, link: Link) -> None:
        self.name = name
        self.latency = int(link.latency)
        self.jitter = int(link.jitter)
        self.up = _Lane(link.bandwidth)
        self.down = _Lane(link.bandwidth)

    def lanes(self, cut: Cut) -> tuple[_Lane, ...]:
        """The lanes that a cut is about."""
        match cut:
            case Cut.BOTH:
                return (self.up, self.down)
            case Cut.TO_DEVICE:
                return (self.down,)
            case Cut.FROM_DEVICE:
                return (self.up,)


class _Message(Entry):
    """A message under way."""

    __slots__ = ("_args", "_deliver")

    _cancelled = False

    def __init__(self, deliver: Callable[..., None], args: tuple[object, ...]) -> None:
        self._deliver = deliver
        self._args = args

    def fire(self) -> None:
        """Arrive."""
        self._deliver(*self._args)


class Route:
    """One direction between two nodes. Made by `Network.route`."""

    __slots__ = ("_jitters", "_kernel", "_lanes", "_last", "latency")

    def __init__(self, kernel: Kernel, streams: Streams, source: _Uplink | None, target: _Uplink | None) -> None:
        ends = [end for end in (source, target) if end is not None]
        self.latency = sum(end.latency for end in ends)
        """Nanoseconds that the first byte takes, jitter left out."""
        self._kernel = kernel
        self._jitters = [(streams.stream(f"network/{end.name}"), end.jitter + 1) for end in ends if end.jitter]
        self._lanes = (*(() if source is None else (source.up,)), *(() if target is None else (target.down,)))
        self._last = 0

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through."""
        for lane in self._lanes:  # noqa: SIM110 - asked at every turn, and `any` costs a generator
            if lane.cuts:
                return True
        return False

    @property
    def turn(self) -> int | None:
        """The bytes that a bulk transfer may send in one turn; None when nothing limits it."""
        least = None
        for lane in self._lanes:
            if least is None or lane.turn < least:
                least = lane.turn
        return least

    def send(self, size: int, deliver: Callable[..., None], *args: object) -> bool:
        """Send `size` bytes. `deliver(*args)` is called, as the world's own code, when they have arrived.

        Returns:
            False when the route is cut: nothing was sent, and nothing will come of it.
        """
        for lane in self._lanes:
            if lane.cuts:
                return False
        when = self.occupy(size) + self.latency
        for stream, bound in self._jitters:
            when += stream.randrange(bound)
        if when < self._last:
            when = self._last
        self._last = when
        kernel = self._kernel
        kernel.push_after(when - kernel.now, _Message(deliver, args))
        return True

    def occupy(self, size: int) -> int:
        """Take every lane for that many bytes, after what has it already; the instant at which they are through."""
        through = now = self._kernel.now
        for lane in self._lanes:
            begin = lane.busy_until if lane.busy_until > now else now
            lane.busy_until = end = begin + size * _SECOND // lane.bandwidth
            if end > through:
                through = end
        return through


class Network:
    """All nodes and the routes between them."""

    def __init__(self, kernel: Kernel, streams: Streams) -> None:
        self._kernel = kernel
        self._streams = streams
        self._uplinks: dict[str, _Uplink | None] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        """Transfers that a cut holds up, by the node whose uplink is cut."""

    def add_node(self, name: str, uplink: Link | None = None) -> None:
        """A node behind an uplink, or on the backbone itself. Raises: InvalidValue when the name is taken."""
        if name in self._uplinks:
            raise InvalidValue(f"there is a node {name!r} already")
        self._uplinks[name] = None if uplink is None else _Uplink(name, uplink)

    def route(self, source: str, target: str) -> Route:
        """The direction from one node to another, the same object every time. Raises: NotFound."""
        key = source, target
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = Route(self._kernel, self._streams, self._uplink(source), self._uplink(target))
        return route

    async def transfer(self, source: str, target: str, size: int) -> None:
        """Return when `size` bytes have crossed, in turns with whatever else crosses.

        Raises:
            Disconnected: the path was cut for longer than `PATIENCE`.
            NotFound: there is no such node.
        """
        there, back = self.route(source, target), self.route(target, source)
        while size > 0:
            await self._passable((source, target), there, back)
            turns = _Turns(self._kernel, there, back, size)
            try:
                await turns.over
            finally:
                turns.cancel()
            size = turns.left
        await self._until(self._kernel.now + there.latency)

    def partition(self, node: str, cut: Cut = Cut.BOTH) -> None:
        """Cut a node's uplink. Partitions may overlap: each is mended by a `heal` of its own.

        Raises:
            NotFound: there is no such node. InvalidValue: it stands on the backbone.
        """
        for lane in self._link(node).lanes(cut):
            lane.cuts += 1
        self._changed(node)

    def heal(self, node: str, cut: Cut = Cut.BOTH) -> None:
        """End one `partition` of a node's uplink; a direction that is whole stays so. Raises as `partition`."""
        for lane in self._link(node).lanes(cut):
            lane.cuts = max(0, lane.cuts - 1)
        for waiter in self._waiting.pop(node, []):
            _settle(waiter)
        self._changed(node)

    def throttle(self, node: str, bandwidth: int) -> None:
        """Hold a node's uplink to so many bytes per second each way, until `unthrottle`. Raises as `partition`."""
        for lane in self._link(node).lanes(Cut.BOTH):
            lane.throttles.append(bandwidth)
            lane.throttled()

    def unthrottle(self, node: str, bandwidth: int) -> None:
        """End one `throttle`. Raises as `partition`."""
        for lane in self._link(node).lanes(Cut.BOTH):
            lane.throttles.remove(bandwidth)
            lane.throttled()

    def is_cut(self, node: str) -> bool:
        """Whether a node's uplink is cut in any direction. Raises: NotFound."""
        uplink = self._uplink(node)
        return uplink is not None and any(lane.cuts for lane in uplink.lanes(Cut.BOTH))

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call back with the node's name whenever its uplink was cut or mended. Must not raise."""
        self._listeners.append(callback)

    def _uplink(self, name: str) -> _Uplink | None:
        try:
            return self._uplinks[name]
        except KeyError:
            raise NotFound(f"there is no node {name!r} on the network") from None

    def _link(self, name: str) -> _Uplink:
        uplink = self._uplink(name)
        if uplink is None:
            raise InvalidValue(f"{name!r} stands on the backbone and has no uplink to cut")
        return uplink

    def _changed(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)

    async def _passable(self, nodes: tuple[str, str], there: Route, back: Route) -> None:
        """Wait until both directions get through."""
        deadline = self._kernel.now + PATIENCE
        while there.is_cut or back.is_cut:
            if self._kernel.now >= deadline:
                raise Disconnected(f"no way through for {PATIENCE}")
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            for node in nodes:
                if self.is_cut(node):
                    self._waiting.setdefault(node, []).append(waiter)
            await self._until(deadline, waiter)

    async def _until(self, when: int, waiter: asyncio.Future[None] | None = None) -> None:
        """Wait until `when`, or until the waiter is settled before."""
        if when <= self._kernel.now:
            return
        waiter = waiter or asyncio.get_running_loop().create_future()
        timer = self._kernel.at(when, _settle, waiter)
        try:
            await waiter
        finally:
            timer.cancel()


class _Turns:
    """The turns of one bulk transfer, until all is through or a cut gets in the way. Ends with the process it is for.

    Callbacks, not a task that wakes for each turn: a large fleet that pulls its images takes nearly nothing but turns.
    """

    __slots__ = ("_back", "_kernel", "_owner", "_sending", "_there", "_timer", "left", "over")

    def __init__(self, kernel: Kernel, there: Route, back: Route, size: int) -> None:
        self.left = size
        """The bytes that are not through."""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kernel = kernel
        self._there = there
        self._back = back
        self._owner = OWNER.get()
        self._sending = 0
        self._timer = self._begin()

    def cancel(self) -> None:
        """Take no more turns."""
        self._timer.cancel()

    def _begin(self) -> Call:
        self._sending = min(self.left, self._there.turn or self.left)
        return self._kernel.at(self._there.occupy(self._sending), self._ended)

    def _ended(self) -> None:
        cut = self._there.is_cut
        if not cut:
            self.left -= self._sending
        if self._owner is not None and not self._owner.alive:
            return
        if cut or self.left == 0 or self._back.is_cut:
            _settle(self.over)
        else:
            self._timer = self._begin()


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
