"""What the device tells of itself: the newest record per key, written until the bus has taken it.

Levels, not events: a record that was replaced before it got out is never sent, and writing one twice is harmless, so
a write whose fate is unknown is simply made again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar

from fleet.capabilities.bus import Bus
from fleet.capabilities.clock import Clock
from fleet.contracts import layout
from fleet.contracts.errors import Refused, Unavailable, Unknown
from fleet.contracts.layout import Address, Bucket
from fleet.contracts.records import Record
from fleet.contracts.time import Duration

_log = logging.getLogger(__name__)
_Place = tuple[Bucket, str]
R = TypeVar("R", bound=Record)


class Reports:
    """Records on their way out."""

    def __init__(self, bus: Bus, clock: Clock, retry: Duration) -> None:
        self._bus = bus
        self._clock = clock
        self._retry = retry
        self._pending: dict[_Place, Record | None] = {}
        self._more = asyncio.Event()

    def want(self, record: Record) -> None:
        """This is how things are now; tell it."""
        address = layout.address_of(record)
        self._pending[address.bucket, address.key] = record
        self._more.set()

    def withdraw(self, address: Address[R]) -> None:
        """There is nothing to tell under this address any more; delete what stands there."""
        self._pending[address.bucket, address.key] = None
        self._more.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._pending:
                place, record = next(iter(self._pending.items()))
                if not await self._write(place, record):
                    await self._clock.sleep(self._retry)
                elif self._pending.get(place) is record:
                    del self._pending[place]

    async def _write(self, place: _Place, record: Record | None) -> bool:
        bucket, key = place
        try:
            if record is None:
                await self._bus.delete(bucket, key)
            else:
                await self._bus.put(bucket, key, layout.encode(record))
        except (Unavailable, Unknown):
            return False
        except Refused as error:
            _log.error("%s %s was refused and is dropped: %s", bucket, key, error)
        return True
