"""What the device tells of itself: one record per key, written until it stands there, and again when it no longer does.

Levels, not events: a record that was replaced before it got out is never sent, and writing one twice is harmless, so
a write whose fate is unknown is simply made again. A server that lost power may have lost what it had acknowledged:
on each session, and on the slow period, what stands there is compared with what should.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, TypeVar

from fleet.capabilities.bus import Bus, Stored
from fleet.capabilities.clock import Clock
from fleet.contracts import layout
from fleet.contracts.errors import Refused, Unavailable, Unknown
from fleet.contracts.layout import Address, Bucket
from fleet.contracts.records import Record
from fleet.contracts.time import Duration

_log = logging.getLogger(__name__)
_Place = tuple[Bucket, str]
R = TypeVar("R", bound=Record)

_GONE: Final = b""
"""Stands for "nothing should be there": no record is empty."""


class Reports:
    """The records of one device. Only the managing instance writes them, so that two instances never contradict."""

    def __init__(self, bus: Bus, clock: Clock, retry: Duration) -> None:
        self._bus = bus
        self._clock = clock
        self._retry = retry
        self._wanted: dict[_Place, bytes] = {}
        self._unsure: dict[_Place, None] = {}
        self._pending: dict[_Place, None] = {}
        self._open = asyncio.Event()
        self._more = asyncio.Event()
        bus.on_session(self.check)

    def open(self) -> None:
        """This instance manages the device: write from now on."""
        self._open.set()

    def want(self, record: Record) -> None:
        """This is how things are now; tell it."""
        address = layout.address_of(record)
        self._set((address.bucket, address.key), layout.encode(record))

    def withdraw(self, address: Address[R]) -> None:
        """There is nothing to tell under this address any more; delete what stands there."""
        self._set((address.bucket, address.key), _GONE)

    def is_withdrawn(self, address: Address[R]) -> bool:
        """Whether the server has taken the last `withdraw` of this address."""
        place = (address.bucket, address.key)
        return self._wanted.get(place) == _GONE and place not in self._pending

    def check(self) -> None:
        """Compare everything with what stands on the server."""
        self._unsure = dict.fromkeys(self._wanted)
        self._more.set()

    async def run(self) -> None:
        """For ever."""
        await self._open.wait()
        while True:
            await self._more.wait()
            self._more.clear()
            while self._pending or self._unsure:
                if not await self._step():
                    await self._clock.sleep(self._retry)

    def _set(self, place: _Place, value: bytes) -> None:
        self._wanted[place] = value
        self._pending[place] = None
        self._more.set()

    async def _step(self) -> bool:
        """One exchange with the server; False when it has to be tried again."""
        try:
            if self._pending:
                await self._write(next(iter(self._pending)))
            else:
                await self._compare(next(iter(self._unsure)))
        except (Unavailable, Unknown):
            return False
        return True

    async def _write(self, place: _Place) -> None:
        value = self._wanted[place]
        try:
            if value == _GONE:
                await self._bus.delete(*place)
            else:
                await self._bus.put(*place, value)
        except Refused as error:
            _log.error("%s %s was refused and is left: %s", *place, error)
        self._unsure.pop(place, None)
        if self._wanted[place] == value:
            del self._pending[place]

    async def _compare(self, place: _Place) -> None:
        self._unsure.pop(place, None)
        try:
            entry = await self._bus.get(*place)
        except (Unavailable, Unknown):
            self._unsure[place] = None
            raise
        except Refused as error:
            _log.error("%s %s may not be read: %s", *place, error)
            return
        there = entry.value if isinstance(entry, Stored) else _GONE
        if there != self._wanted[place]:
            self._pending[place] = None
