"""The Objects port as a client behind a link sees it: calls and their answers get lost while the link is cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from fleet.capabilities.clock import Clock
from fleet.capabilities.objects import Listing, Objects, WatchEvent
from fleet.contracts.errors import Disconnected, TimedOut
from fleet.contracts.ids import ObjectName
from fleet.contracts.objects import Object
from fleet.contracts.time import Duration
from sim.network import Network

O = TypeVar("O", bound=Object)  # noqa: E741 - the one-letter name of the type variable, as in the ports
R = TypeVar("R")

ANSWER: Final = Duration.seconds(5)
"""A call without an answer fails after this."""


class ObjectsOverLink:
    """`objects` for a client on `node`. A call that is cut off acts or does not, by whether it had arrived."""

    def __init__(self, objects: Objects, network: Network, node: str, clock: Clock) -> None:
        self._objects = objects
        self._network = network
        self._node = node
        self._clock = clock

    async def list(self, kind: type[O]) -> Listing[O]:
        """As the port says."""
        return await self._call(lambda: self._objects.list(kind))

    async def get(self, kind: type[O], name: ObjectName) -> O:
        """As the port says."""
        return await self._call(lambda: self._objects.get(kind, name))

    async def create(self, item: O) -> O:
        """As the port says."""
        return await self._call(lambda: self._objects.create(item))

    async def replace(self, item: O) -> O:
        """As the port says."""
        return await self._call(lambda: self._objects.replace(item))

    async def replace_status(self, item: O) -> O:
        """As the port says."""
        return await self._call(lambda: self._objects.replace_status(item))

    async def delete(self, kind: type[O], name: ObjectName) -> None:
        """As the port says."""
        await self._call(lambda: self._objects.delete(kind, name))

    async def watch(self, kind: type[O], since: str) -> AsyncIterator[WatchEvent[O]]:
        """As the port says. A cut shows when the next change does not come through."""
        if self._is_cut:
            await self._lost()
        async for event in self._objects.watch(kind, since):
            if self._is_cut:
                raise Disconnected("the watch broke")
            yield event

    @property
    def _is_cut(self) -> bool:
        return self._network.is_cut(self._node)

    async def _call(self, call: Callable[[], Awaitable[R]]) -> R:
        if self._is_cut:
            await self._lost()
        answer = await call()
        if self._is_cut:
            await self._lost()
        return answer

    async def _lost(self) -> None:
        await self._clock.sleep(ANSWER)
        raise TimedOut("no answer from the API")
