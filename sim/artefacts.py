"""Where virtual devices fetch releases from: a server on the virtual network that holds bytes by URL."""

from __future__ import annotations

from typing import Final

from fleet.contracts.errors import NotFound, Unavailable
from sim.disk import Alive, gone
from sim.network import Network

REQUEST_BYTES: Final = 500


class ArtefactServer:
    """A server of artefacts on the network.

    Args:
        node: its name on the network.
        weight: how many bytes of the wire one byte of an artefact stands for.
    """

    def __init__(self, network: Network, node: str, weight: int = 1) -> None:
        self.network = network
        self.node = node
        self.weight = weight
        self.up = True
        """While this is False, every read finds nobody there."""
        self._files: dict[str, bytes] = {}

    def put(self, url: str, data: bytes) -> None:
        """Serve `data` under `url`."""
        self._files[url] = data

    def remove(self, url: str) -> None:
        """Serve nothing under `url` any more."""
        self._files.pop(url, None)

    def slice(self, url: str, offset: int, length: int) -> bytes:
        """A range of an artefact. Raises: NotFound, Unavailable."""
        if not self.up:
            raise Unavailable(f"{url}: nobody answers")
        data = self._files.get(url)
        if data is None:
            raise NotFound(f"{url}: there is no such artefact")
        return data[offset : offset + length]


class SimArtefacts:
    """The `Artefacts` port of one process: what it reads crosses the device's link, whole, before it is there."""

    def __init__(self, server: ArtefactServer, node: str, process: Alive) -> None:
        self._server = server
        self._node = node
        self._process = process

    async def read(self, url: str, offset: int, length: int) -> bytes:
        """See `Artefacts.read`."""
        if not self._process.alive:
            await gone()
        server = self._server
        await server.network.transfer(self._node, server.node, REQUEST_BYTES)
        data = server.slice(url, offset, length)
        await server.network.transfer(server.node, self._node, max(1, len(data)) * server.weight)
        return data
