"""The enrolment records on the bus: read, and written so that two administrators do not overwrite each other."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.capabilities.bus import Bus, Stored
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue, Unknown
from fleet.contracts.ids import DeviceId, Revision
from fleet.contracts.layout import Bucket, Invalid, Valid
from fleet.contracts.records import Enrolment


@dataclass(frozen=True, slots=True)
class Found:
    """What stands under a device's key: a record, or nothing; and the revision to replace it by."""

    record: Enrolment | None
    revision: Revision


class Enrolments:
    """The records of one bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def read(self, device: DeviceId) -> Found:
        """What stands there.

        Raises:
            InvalidValue: it is not a record; nobody but a person may decide what it was.
            Unavailable, TimedOut, Disconnected, NotPermitted.
        """
        entry = await self._bus.get(Bucket.IDENTITY, device)
        if not isinstance(entry, Stored):
            return Found(None, Revision(0))
        read = layout.read(entry.bucket, entry.key, entry.value, entry.revision)
        match read:
            case Valid(Enrolment() as record):
                return Found(record, entry.revision)
            case Invalid(reason=reason):
                raise InvalidValue(
                    f"the enrolment of {device} on the bus is unreadable ({reason}): delete it or repair it"
                )
            case _:
                raise InvalidValue(f"what stands in place of the enrolment of {device} is another record")

    async def write(self, record: Enrolment, last: Revision) -> None:
        """Write it in place of what was read.

        Raises:
            Conflict: somebody wrote meanwhile. TimedOut, Disconnected: it may stand and does not show yet.
            Unavailable, NotPermitted.
        """
        try:
            await self._bus.update(Bucket.IDENTITY, record.device, layout.encode(record), last)
        except Unknown:
            if (await self.read(record.device)).record != record:
                raise

    async def all(self) -> tuple[tuple[Enrolment, ...], tuple[tuple[str, str], ...]]:
        """Every record, by device; and key and reason of each that is unreadable. Raises as `read`."""
        records: list[Enrolment] = []
        unreadable: list[tuple[str, str]] = []
        for entry in await self._bus.entries(Bucket.IDENTITY):
            if not isinstance(entry, Stored):
                continue
            match layout.read(entry.bucket, entry.key, entry.value, entry.revision):
                case Valid(Enrolment() as record):
                    records.append(record)
                case Invalid(key=key, reason=reason):
                    unreadable.append((ascii(key)[1:-1], reason))
                case _:
                    continue
        return tuple(sorted(records, key=lambda record: record.device)), tuple(unreadable)
