"""The network of a run on real parts: one line per device and per operator, to the bus and to the releases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

from fleet.capabilities.clock import Clock
from fleet.contracts.errors import NotFound
from fleet.contracts.ids import DeviceId
from harness.targets import local_peers
from harness.targets.local_link import Line, Proxy


class LocalNetwork:
    """All lines and the proxies on them.

    Args:
        clock: the run's.
        bus: the port of the bus; `OSError` while there is none.
        releases: the port that releases are served on.
        owner: the device that a process belongs to, given a test for its open sockets; None when it is nobody's.
    """

    def __init__(
        self,
        clock: Clock,
        bus: Callable[[], int],
        releases: Callable[[], int],
        owner: Callable[[Callable[[int], bool]], DeviceId | None],
    ) -> None:
        self._clock = clock
        self._bus = bus
        self._owner = owner
        self._lines: dict[str, Line] = {}
        self._free = Line(clock)
        """Of those whom no device owns."""
        self._releases = Proxy(releases, self._line_of)
        self._parts = AsyncExitStack()

    async def start(self) -> int:
        """Open the door to the releases. The answer is its port."""
        return await self._open(self._releases)

    async def stop(self) -> None:
        """End every connection."""
        await self._parts.aclose()

    async def connect(self, name: str) -> int:
        """Lay a line to the bus for a device or an operator. The answer is the port that it finds the bus at."""
        line = self._lines[name] = Line(self._clock)
        return await self._open(Proxy(self._bus, lambda _: line))

    def lines(self, names: Iterable[str]) -> tuple[Line, ...]:
        """The lines of these. Raises: NotFound when one has none."""
        try:
            return tuple(self._lines[name] for name in names)
        except KeyError as error:
            raise NotFound(f"there is no line to {error.args[0]}") from None

    async def _open(self, proxy: Proxy) -> int:
        self._parts.push_async_callback(proxy.stop)
        return await proxy.start()

    def _line_of(self, port: int) -> Line:
        inode = local_peers.socket_of(port)
        owner = None if inode is None else self._owner(lambda pid: local_peers.has_socket(pid, inode))
        return self._free if owner is None else self._lines[owner]
