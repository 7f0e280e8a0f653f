"""HTTP on the virtual network: servers by their address, and the Http port of one process.

A request that was sent arrives, and is acted on, also when whoever sent it dies meanwhile; an answer that cannot get
through is lost, and the caller, who cannot tell the two apart, sees a time-out. A server that is down refuses the
connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fleet.capabilities.clock import Clock
from fleet.capabilities.http import HttpRequest, HttpResponse
from fleet.contracts.errors import InvalidValue, Refused, TimedOut, Unavailable
from fleet.contracts.time import Duration
from sim.disk import Alive, gone
from sim.network import Network, Route

LIMIT: Final = Duration.seconds(10)
"""An exchange without an answer fails after this, as in the real client."""
_HEAD: Final = 400
"""Bytes of the wire that a request or an answer takes besides its body."""

Handler = Callable[[HttpRequest], HttpResponse]


@dataclass
class HttpServer:
    """A server on a node. While it is not `up`, connections to it are refused."""

    node: str
    handle: Handler
    up: bool = True


class HttpServers:
    """The servers of a world, by the beginning of their addresses (`http://idp.test`)."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._servers: dict[str, HttpServer] = {}

    def add(self, address: str, node: str, handle: Handler) -> HttpServer:
        """Serve everything below an address. Raises: InvalidValue when it is taken."""
        if address in self._servers:
            raise InvalidValue(f"there is a server at {address} already")
        server = self._servers[address] = HttpServer(node, handle)
        return server

    def find(self, url: str) -> HttpServer:
        """The server of a URL. Raises: Unavailable when nobody has that address; Refused when it is none."""
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in ("http", "https"):
            raise Refused(f"{url!r} cannot be asked")
        server = self._servers.get(f"{scheme}://{rest.partition('/')[0]}")
        if server is None:
            raise Unavailable(f"{url} cannot be reached")
        return server


class SimHttp:
    """The Http port of one process on a node."""

    def __init__(self, servers: HttpServers, node: str, process: Alive, clock: Clock) -> None:
        self._servers = servers
        self._node = node
        self._process = process
        self._clock = clock

    async def send(self, request: HttpRequest) -> HttpResponse:
        """As the port says."""
        if not self._process.alive:
            await gone()
        server = self._servers.find(request.url)
        answered: asyncio.Future[HttpResponse | None] = asyncio.get_running_loop().create_future()
        self._route(self._node, server.node).send(_HEAD + len(request.body), self._arrived, server, request, answered)
        try:
            async with self._clock.timeout(LIMIT):
                answer = await answered
        except TimeoutError:
            raise TimedOut(f"{request.url} did not answer in {LIMIT}") from None
        if answer is None:
            raise Unavailable(f"{request.url} cannot be reached")
        return answer

    def _arrived(self, server: HttpServer, request: HttpRequest, answered: asyncio.Future[HttpResponse | None]) -> None:
        answer = server.handle(request) if server.up else None
        size = _HEAD + (0 if answer is None else len(answer.body))
        self._route(server.node, self._node).send(size, _settle, answered, answer)

    def _route(self, source: str, target: str) -> Route:
        return self._servers.network.route(source, target)


def _settle(waiter: asyncio.Future[HttpResponse | None], answer: HttpResponse | None) -> None:
    if not waiter.done():
        waiter.set_result(answer)
