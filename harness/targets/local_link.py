"""The lines between the programs of a run on real parts: TCP proxies on the loopback that can be cut and slowed.

A line is what a cable is: everything of one device (or of one operator replica) goes over its line, over however many
proxies and connections. A cut holds bytes back as a firewall does that drops packets: connections stall and new ones
hang. When it heals, what was held goes on, as retransmission would have it; a connection that one side has given up
meanwhile is reset for the other. Cutting one way holds the bytes of that way only.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from fleet.capabilities.clock import Clock
from fleet.contracts.time import ZERO, Duration, Instant
from harness.faults import Direction

_HELD: Final = 64 * 1024
"""Bytes that one side of a connection may be ahead of the other; the kernel's buffers come on top."""
_PIECE: Final = 4 * 1024
"""What is passed on at once, so that a slow line is slow evenly."""
_AT_ONCE: Final = struct.pack("ii", 1, 0)
"""Linger for no time at all: closing sends a reset."""
_ALL_WAYS: Final = (Direction.TO_DEVICE, Direction.FROM_DEVICE)


@dataclass(frozen=True, slots=True)
class Slowness:
    """What a slow line does to each way: bytes per second on the run's clock, and how much later they come."""

    bandwidth: int | None = None
    latency: Duration = ZERO


class Line:
    """One cable. Cuts count: a way that was cut twice passes bytes again when it was healed twice.

    Args:
        clock: the run's, whose pace is also that of a slow line.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._cuts = dict.fromkeys(_ALL_WAYS, 0)
        self._whole = {way: asyncio.Event() for way in _ALL_WAYS}
        self._slow: list[Slowness] = []
        self._busy_until = dict.fromkeys(_ALL_WAYS, Instant(0))
        for event in self._whole.values():
            event.set()

    def cut(self, direction: Direction) -> None:
        """Hold back everything that goes this way."""
        for way in _ways(direction):
            self._cuts[way] += 1
            self._whole[way].clear()

    def heal(self, direction: Direction) -> None:
        """End one cut."""
        for way in _ways(direction):
            self._cuts[way] -= 1
            if not self._cuts[way]:
                self._whole[way].set()

    def slow_down(self, slowness: Slowness) -> None:
        """Pass bytes slowly from now on. Of several, the newest counts."""
        self._slow.append(slowness)

    def speed_up(self, slowness: Slowness) -> None:
        """End one slowness."""
        self._slow.remove(slowness)

    def passes(self, way: Direction) -> bool:
        """Whether bytes go this way now."""
        return self._whole[way].is_set()

    async def passing(self, way: Direction) -> None:
        """Return when bytes go this way."""
        await self._whole[way].wait()

    async def whole(self) -> None:
        """Return when bytes go both ways: what a new connection needs."""
        while not all(self.passes(way) for way in _ALL_WAYS):
            for way in _ALL_WAYS:
                await self.passing(way)

    def now(self) -> Instant:
        """The run's time."""
        return self._clock.monotonic()

    async def carry(self, way: Direction, size: int, since: Instant) -> None:
        """Take as long as the line needs for `size` bytes that were given to it at `since`."""
        if not self._slow:
            return
        slow, now = self._slow[-1], self.now()
        if slow.bandwidth is not None:
            begins = max(self._busy_until[way], since)
            self._busy_until[way] = begins + Duration(size * 1_000_000_000 // slow.bandwidth)
        arrives = max(self._busy_until[way], since) + slow.latency
        if arrives > now:
            await self._clock.sleep(arrives - now)


class Proxy:
    """Listens on a port of the loopback and passes each connection on over its line.

    Args:
        upstream: the port behind it, asked at each connection; `OSError` when nothing is there.
        line: the line of a connection, given the port it came from.
    """

    def __init__(self, upstream: Callable[[], int], line: Callable[[int], Line]) -> None:
        self._upstream = upstream
        self._line = line
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen. The answer is the port."""
        self._server = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """End every connection, and listen no more."""
        if self._server is not None:
            self._server.close()
        tasks = tuple(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self) -> _End:
        end = _End()
        task = asyncio.get_running_loop().create_task(self._connection(end))
        self._connections.add(task)
        task.add_done_callback(self._over)
        return end

    def _over(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            told = {"message": "a proxy failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)

    async def _connection(self, client: _End) -> None:
        server = _End()
        try:
            await client.made.wait()
            line = self._line(client.port)
            await line.whole()
            if client.over:
                raise _Dropped
            await asyncio.get_running_loop().create_connection(lambda: server, "127.0.0.1", self._upstream())
            await _both(
                _pump(client, server, line, Direction.FROM_DEVICE), _pump(server, client, line, Direction.TO_DEVICE)
            )
        except OSError:
            client.reset()  # Nothing listens behind it, or one side is gone: the other has to know.
            server.reset()
        finally:
            client.close()
            server.close()


class _Dropped(OSError):
    """One side gave the connection up while nothing of it could get through."""


class _End(asyncio.Protocol):
    """One side of a connection: what came from it, and when."""

    def __init__(self) -> None:
        self.made = asyncio.Event()
        self.over = False
        """Nothing more comes from it."""
        self._came: deque[tuple[Instant, bytes]] = deque()
        self._held = 0
        self._fresh = asyncio.Event()
        self._writable = asyncio.Event()
        self._lost = False
        self._now: Callable[[], Instant] = lambda: Instant(0)
        self._transport: asyncio.Transport | None = None

    @property
    def port(self) -> int:
        """Where it is connected from."""
        assert self._transport is not None
        port: int = self._transport.get_extra_info("peername")[1]
        return port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._writable.set()
        self.made.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.over = self._lost = True
        self._fresh.set()
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        now = self._now()
        self._came.extend((now, data[at : at + _PIECE]) for at in range(0, len(data), _PIECE))
        self._held += len(data)
        if self._held > _HELD and self._transport is not None:
            self._transport.pause_reading()
        self._fresh.set()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`. The other way stays open."""
        self.over = True
        self._fresh.set()
        return True

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._writable.set()

    def time_by(self, now: Callable[[], Instant]) -> None:
        """From now on stamp what comes."""
        self._now = now

    async def take(self) -> tuple[Instant, bytes]:
        """The next bytes and when they came; no bytes at the end."""
        while not self._came:
            if self.over:
                return self._now(), b""
            self._fresh.clear()
            await self._fresh.wait()
        came = self._came.popleft()
        self._held -= len(came[1])
        if self._held <= _HELD and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        return came

    async def give(self, data: bytes) -> None:
        """Send bytes to it. Raises: OSError when it is gone."""
        await self._writable.wait()
        if self._lost or self._transport is None or self._transport.is_closing():
            raise ConnectionResetError
        self._transport.write(data)

    def finish(self) -> None:
        """Tell it that nothing more comes."""
        if self._transport is not None and not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()

    def reset(self) -> None:
        """Drop it at once."""
        if self._transport is not None and not self._transport.is_closing():
            made: socket.socket = self._transport.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self._transport.abort()

    def close(self) -> None:
        """End it, once what was given has been sent."""
        if self._transport is not None:
            self._transport.close()


async def _pump(source: _End, sink: _End, line: Line, way: Direction) -> None:
    """Pass everything on, one way."""
    source.time_by(line.now)
    while True:
        since, data = await source.take()
        if not line.passes(way):
            await line.passing(way)
            if source.over:
                raise _Dropped
        if not data:
            sink.finish()
            return
        await line.carry(way, len(data), since)
        await sink.give(data)


async def _both(*pumps: Coroutine[None, None, None]) -> None:
    """Run both; when one fails, the other is not left running."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _ways(direction: Direction) -> tuple[Direction, ...]:
    return _ALL_WAYS if direction is Direction.BOTH else (direction,)
