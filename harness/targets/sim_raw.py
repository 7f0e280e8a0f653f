"""Writes to the simulated server past every permission, for faults that write what no program would."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.capabilities.bus import Entry
from fleet.contracts.errors import Conflict, Refused
from fleet.contracts.ids import Revision
from fleet.contracts.layout import Bucket
from harness.bad_entries import Becomes
from sim.nats import NatsServer


@dataclass(frozen=True, slots=True)
class SimRawWriter:
    """See `RawWriter`. The model knows no headers: what they make of a message is told beside it."""

    nats: NatsServer

    async def write(self, bucket: Bucket, key: bytes, value: bytes, headers: bytes, becomes: Becomes) -> Revision:
        """See `RawWriter.write`."""
        match becomes:
            case Becomes.DELETION:
                return self.nats.store_raw(bucket, key, None)
            case Becomes.REFUSED if headers:
                raise Refused("the bucket refuses what the headers ask for")
            case _:
                return self.nats.store_raw(bucket, key, value)

    async def entries(self, bucket: Bucket) -> tuple[Entry, ...]:
        """See `RawWriter.entries`."""
        return self.nats.store(bucket).list("")

    async def put_back(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> None:
        """See `RawWriter.put_back`."""
        newest = self.nats.store(bucket).newest(key)
        if newest is None or newest.revision != last:
            raise Conflict(f"{bucket} {key} is not what was written")
        self.nats.store_raw(bucket, key.encode(), value)
