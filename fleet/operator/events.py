"""What the operator's brain is told, and what it answers: one small frozen type per thing that can happen.

Events come from the hands (`fleet.operator.loop`), in the order in which things happened to this process;
instructions go back to them. Each `at` is monotonic time of this process.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.capabilities.bus import Entry
from fleet.capabilities.objects import Applied, InvalidObject, Listing, Removed
from fleet.contracts.ids import DeviceId, ObjectName, Revision
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import Object
from fleet.contracts.records import Record, StopRequest
from fleet.contracts.time import Instant

# --- events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionBegan:
    """The connection to the bus stands (again). Silence before this moment says nothing about any device."""

    at: Instant


@dataclass(frozen=True, slots=True)
class EntrySeen:
    """One entry of a bucket. `delivered`: the bus pushed it just now; otherwise it was read, and may be old."""

    entry: Entry
    delivered: bool
    at: Instant


@dataclass(frozen=True, slots=True)
class KeyMissing:
    """A direct read of a key found that there never was an entry."""

    bucket: Bucket
    key: str
    at: Instant


@dataclass(frozen=True, slots=True)
class BucketRead:
    """All entries of a bucket. `seen` is the highest revision that was known when the reading began."""

    bucket: Bucket
    entries: tuple[Entry, ...]
    seen: Revision
    at: Instant


@dataclass(frozen=True, slots=True)
class KindListed:
    """All objects of a kind, by name."""

    kind: type[Object]
    listing: Listing[Object]
    at: Instant


@dataclass(frozen=True, slots=True)
class ObjectSeen:
    """One object was created, changed, deleted, or turned unreadable."""

    change: Applied[Object] | Removed | InvalidObject
    at: Instant


@dataclass(frozen=True, slots=True)
class KeyWriteEnded:
    """An `Update` or `Delete` is over, well or badly. What stands there now was told before, where it could be read."""

    key: str
    at: Instant


@dataclass(frozen=True, slots=True)
class StatusWriteEnded:
    """A `WriteStatus` is over, well or badly."""

    kind: str
    name: ObjectName
    at: Instant


@dataclass(frozen=True, slots=True)
class StopEnded:
    """A `SendStop` was answered, or was not. Neither proves anything."""

    device: DeviceId
    at: Instant


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed. `wall` is the time of day, `connected` whether the bus has a session."""

    at: Instant
    wall: Instant
    connected: bool


Event = (
    SessionBegan
    | EntrySeen
    | KeyMissing
    | BucketRead
    | KindListed
    | ObjectSeen
    | KeyWriteEnded
    | StatusWriteEnded
    | StopEnded
    | Ticked
)

# --- instructions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Update:
    """Write a desired record if `last` is still the key's newest revision. Ends in `KeyWriteEnded`."""

    key: str
    record: Record
    last: Revision


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a desired record if `last` is still the key's newest revision. Ends in `KeyWriteEnded`."""

    key: str
    last: Revision


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace the status of an object. Ends in `StatusWriteEnded`."""

    item: Object


@dataclass(frozen=True, slots=True)
class SendStop:
    """Ask one instance to exit. Ends in `StopEnded`."""

    request: StopRequest


@dataclass(frozen=True, slots=True)
class ReadAgain:
    """Read a bucket again, after the pause that follows a failure."""

    bucket: Bucket


@dataclass(frozen=True, slots=True)
class Report:
    """Something a person should know, said once."""

    text: str


Instruction = Update | Delete | WriteStatus | SendStop | ReadAgain | Report
