"""The network: nodes on a backbone, devices behind uplinks that are slow, shared and cut at times.

The rules, in short. A message takes the latency of both ends with a jitter each, and the time its bytes need on
each uplink; messages of one route never overtake each other, as on one TCP connection. An uplink carries one thing
at a time per direction: bulk transfers take it in turns of at most `TURN`, so that transfers share it evenly and a
small message waits for the turns that were promised before it. What is under way when a link is cut still arrives;
nothing new gets through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet.contracts.errors import Disconnected, InvalidValue, NotFound
from fleet.contracts.time import Duration
from sim.kernel import Kernel
from sim.random import Random, Streams

TURN: Final = Duration.millis(250)
"""How long one bulk transfer may occupy an uplink before the next one's turn."""
PATIENCE: Final = Duration.seconds(30)
"""A transfer over a link that stays cut for this long fails."""


@dataclass(frozen=True, slots=True)
class Link:
    """An uplink. `bandwidth` is in bytes per second and direction; `jitter` is drawn evenly from [0, jitter]."""

    latency: Duration = Duration.millis(20)
    jitter: Duration = Duration.millis(10)
    bandwidth: int = 2_500_000


class Cut(StrEnum):
    """Which direction of a link is cut."""

    BOTH = "both"
    TO_DEVICE = "to-device"
    FROM_DEVICE = "from-device"


class _Lane:
    """One direction of an uplink."""

    __slots__ = ("busy_until", "cut", "nanoseconds_per_byte")

    def __init__(self, bandwidth: int) -> None:
        self.nanoseconds_per_byte = 10**9 / bandwidth
        self.busy_until = 0
        self.cut = False

    def occupy(self, now: int, size: int) -> int:
        """Take the lane for that many bytes; the instant at which they are through."""
        begin = self.busy_until if self.busy_until > now else now
        self.busy_until = end = begin + round(size * self.nanoseconds_per_byte)
        return end


class _Node:
    __slots__ = ("down", "link", "up")

    def __init__(self, link: Link | None) -> None:
        self.link = link
        self.up = None if link is None else _Lane(link.bandwidth)
        self.down = None if link is None else _Lane(link.bandwidth)


class Route:
    """One direction between two nodes."""

    __slots__ = ("_at_least", "_jitter", "_kernel", "_last", "_stream", "lanes")

    def __init__(self, kernel: Kernel, stream: Random, source: _Node, target: _Node) -> None:
        self._kernel = kernel
        self._stream = stream
        self.lanes = tuple(lane for lane in (source.up, target.down) if lane is not None)
        links = [node.link for node in (source, target) if node.link is not None]
        self._at_least = sum(int(link.latency) for link in links)
        self._jitter = sum(int(link.jitter) for link in links)
        self._last = 0

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through."""
        return any(lane.cut for lane in self.lanes)

    def send(self, size: int, deliver: Callable[..., None], *args: object) -> bool:
        """Call `deliver(*args)` at the other end when `size` bytes have got there; False when the link is cut."""
        when = now = self._kernel.now
        for lane in self.lanes:
            if lane.cut:
                return False
            when = lane.occupy(when, size)
        when += self._at_least
        if self._jitter:
            when += int(self._stream.random() * self._jitter)
        if when < self._last:
            when = self._last
        self._last = when
        assert when >= now
        self._kernel.at(when, deliver, *args)
        return True

    def turn(self) -> int:
        """The bytes that a bulk transfer may send in one turn; 0 when nothing limits it."""
        if not self.lanes:
            return 0
        slowest = max(lane.nanoseconds_per_byte for lane in self.lanes)
        return max(1, int(TURN / slowest))

    def occupy(self, size: int) -> int:
        """Take every lane for one turn of a bulk transfer; the instant at which it is through."""
        when = self._kernel.now
        for lane in self.lanes:
            when = lane.occupy(when, size)
        return when

    @property
    def latency(self) -> int:
        """Nanoseconds that the first byte takes, jitter left out."""
        return self._at_least


class Network:
    """All nodes and the routes between them."""

    def __init__(self, kernel: Kernel, streams: Streams) -> None:
        self._kernel = kernel
        self._stream = streams.stream("network")
        self._nodes: dict[str, _Node] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._healed: list[asyncio.Future[None]] = []

    def add_node(self, name: str, uplink: Link | None = None) -> None:
        """A node behind an uplink, or on the backbone itself. Raises: InvalidValue when the name is taken."""
        if name in self._nodes:
            raise InvalidValue(f"there is a node {name!r} already")
        self._nodes[name] = _Node(uplink)

    def route(self, source: str, target: str) -> Route:
        """The direction from one node to another, the same object every time. Raises: NotFound."""
        key = source, target
        route = self._routes.get(key)
        if route is None:
            route = Route(self._kernel, self._stream, self._node(source), self._node(target))
            self._routes[key] = route
        return route

    async def transfer(self, source: str, target: str, size: int) -> None:
        """Return when `size` bytes have crossed, in turns with whatever else crosses.

        Raises:
            Disconnected: the way was cut for longer than `PATIENCE`.
        """
        route = self.route(source, target)
        turn = route.turn() or size
        while size > 0:
            await self._passable(route)
            now = min(size, turn)
            await self._until(route.occupy(now))
            if not route.is_cut:
                size -= now
        await self._until(self._kernel.now + route.latency)

    def partition(self, node: str, cut: Cut = Cut.BOTH) -> None:
        """Cut a node's uplink. Raises: NotFound, InvalidValue for a node on the backbone."""
        for lane in self._lanes(node, cut):
            lane.cut = True
        self._changed(node)

    def heal(self, node: str, cut: Cut = Cut.BOTH) -> None:
        """Mend a node's uplink. Raises as `partition`."""
        for lane in self._lanes(node, cut):
            lane.cut = False
        healed, self._healed = self._healed, []
        for waiter in healed:
            if not waiter.done():
                waiter.set_result(None)
        self._changed(node)

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call back with the node's name whenever its uplink is cut or mended."""
        self._listeners.append(callback)

    def _lanes(self, name: str, cut: Cut) -> tuple[_Lane, ...]:
        node = self._node(name)
        if node.up is None or node.down is None:
            raise InvalidValue(f"{name!r} stands on the backbone and has no uplink to cut")
        match cut:
            case Cut.BOTH:
                return (node.up, node.down)
            case Cut.TO_DEVICE:
                return (node.down,)
            case Cut.FROM_DEVICE:
                return (node.up,)

    def _changed(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)

    def _node(self, name: str) -> _Node:
        try:
            return self._nodes[name]
        except KeyError:
            raise NotFound(f"there is no node {name!r} on the network") from None

    async def _passable(self, route: Route) -> None:
        if not route.is_cut:
            return
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[None] = loop.create_future()
        timer = self._kernel.after(PATIENCE, _settle, gone)
        try:
            while route.is_cut:
                if gone.done():
                    raise Disconnected(f"no way through for {PATIENCE}")
                waiter: asyncio.Future[None] = loop.create_future()
                self._healed.append(waiter)
                gone.add_done_callback(lambda _, waiter=waiter: _settle(waiter))  # type: ignore[misc]  # bound now
                await waiter
        finally:
            timer.cancel()

    async def _until(self, when: int) -> None:
        if when <= self._kernel.now:
            return
        there: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._kernel.at(when, _settle, there)
        try:
            await there
        finally:
            timer.cancel()


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
