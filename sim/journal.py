"""What can be observed in a run, and the ordered, hash-chained journal of it.

One small frozen type per observable thing. The simulated world and the real targets record the same types,
so that every check is a pure function of a journal and never knows where it came from. The chain hash covers
each event's own bytes in order: two runs with the same hash observed the same things at the same instants.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Final, TypeVar

from fleet.contracts.ids import DeviceId, Release, Revision, Slot
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Instant


@dataclass(frozen=True, slots=True)
class Event:
    """Base. `at` counts nanoseconds since the run began, on the target's clock (paced where that is wall time)."""

    at: Instant


@dataclass(frozen=True, slots=True)
class PhaseEntered(Event):
    """The run went into its next phase: set-up, drive, heal, converge, check, tear-down."""

    phase: str


@dataclass(frozen=True, slots=True)
class StepDone(Event):
    """A step of the scenario was carried out. `index` counts from 1 in file order."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class FaultInjected(Event):
    """A declared fault happened. `index` counts from 1 in file order; `subject` names what it hit.

    Index 0 is a crash that no file declares: one at a crash point. It is recorded before it happens, not after.
    """

    index: int
    text: str
    subject: str


@dataclass(frozen=True, slots=True)
class FaultHealed(Event):
    """A fault ended."""

    index: int
    text: str
    subject: str


@dataclass(frozen=True, slots=True)
class KvStored(Event):
    """A bucket accepted a write. `writer` is the authenticated client: a device id, `operator` or `harness`.

    Keys are hostile: bytes that are not UTF-8 are surrogate-escaped.
    """

    bucket: Bucket
    key: str
    revision: Revision
    writer: str
    value: bytes


@dataclass(frozen=True, slots=True)
class HeartbeatStored(KvStored):
    """A write accepted by the heartbeat bucket: by far the most frequent event, hence its own type."""


@dataclass(frozen=True, slots=True)
class KvDeleted(Event):
    """A key was deleted."""

    bucket: Bucket
    key: str
    revision: Revision
    writer: str


@dataclass(frozen=True, slots=True)
class RequestSent(Event):
    """A request was published on a request/reply subject (`fleet.stop.<device>`, `fleet.lock.<device>`)."""

    subject: str
    sender: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class ObjectStored(Event):
    """An object behind the Kubernetes port was created or changed. `value` is its JSON, status included."""

    kind: str
    name: str
    value: bytes


@dataclass(frozen=True, slots=True)
class ObjectRemoved(Event):
    """An object was deleted."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class OperatorStarted(Event):
    """An operator process began."""

    replica: int


@dataclass(frozen=True, slots=True)
class OperatorEnded(Event):
    """An operator process is gone. `code` is its exit code; negative is the signal that ended it."""

    replica: int
    code: int


@dataclass(frozen=True, slots=True)
class AgentStarted(Event):
    """The boot guard of a slot started an agent process of this release."""

    device: DeviceId
    slot: Slot
    release: Release


@dataclass(frozen=True, slots=True)
class AgentEnded(Event):
    """The process in a slot is gone. `code` as in `OperatorEnded`."""

    device: DeviceId
    slot: Slot
    code: int


@dataclass(frozen=True, slots=True)
class LockTaken(Event):
    """The instance in a slot holds the host lock: it manages workloads from now on."""

    device: DeviceId
    slot: Slot


@dataclass(frozen=True, slots=True)
class LockLeft(Event):
    """The instance in a slot gave the host lock up or died with it."""

    device: DeviceId
    slot: Slot


@dataclass(frozen=True, slots=True)
class CurrentRelease(Event):
    """Where the device's current link leads now: a complete, hash-checked release, or else why not (`broken`)."""

    device: DeviceId
    release: Release | None
    broken: str = ""


@dataclass(frozen=True, slots=True)
class ReleasesOnDisk(Event):
    """The complete releases on a device's disk, sorted by version and sha256; recorded when the set changed."""

    device: DeviceId
    releases: tuple[Release, ...]


@dataclass(frozen=True, slots=True)
class ContainerStarted(Event):
    """A container runs. `fingerprint` is what the agent gave it."""

    device: DeviceId
    deployment: str
    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ContainerEnded(Event):
    """A container no longer runs."""

    device: DeviceId
    deployment: str
    name: str


@dataclass(frozen=True, slots=True)
class PowerCut(Event):
    """A machine lost power: all its processes are gone, and what was not synced may be."""

    device: DeviceId


@dataclass(frozen=True, slots=True)
class PowerRestored(Event):
    """A machine boots again."""

    device: DeviceId


@dataclass(frozen=True, slots=True)
class ReleasesUnsettled(Event):
    """A power cut may take these complete releases: their staging had not come to its last sync."""

    device: DeviceId
    releases: tuple[Release, ...]


@dataclass(frozen=True, slots=True)
class FileDamaged(Event):
    """A declared fault is about to damage this file on a device's disk."""

    device: DeviceId
    path: str


@dataclass(frozen=True, slots=True)
class ContainerCrashed(Event):
    """A declared fault is about to end this container."""

    device: DeviceId
    deployment: str
    name: str


@dataclass(frozen=True, slots=True)
class QuarantineMarks(Event):
    """The sha256 of the releases that a device's disk condemns, sorted; recorded when the set changed."""

    device: DeviceId
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CopyMade(Event):
    """A declared fault has copied a device's disk, and is about to give power to a second machine with the copy.

    On the bus that machine is the device. What happens on it is recorded with `copy` in place of the device's name.
    """

    device: DeviceId
    copy: DeviceId


@dataclass(frozen=True, slots=True)
class ForeignRead(Event):
    """A device asked for the entries of another, or for those of all. `told`: its permissions let it."""

    client: str
    what: str
    told: bool


@dataclass(frozen=True, slots=True)
class SecretsInstalled(Event):
    """An installation that began at `began` made the secrets that were missing, and kept the others. Names only.

    `number` counts installations from 1, in the order in which they began.
    """

    number: int
    began: Instant
    made: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InstallRefused(Event):
    """An installation that began at `began` was refused because a secret is not as it should be. `reason` is its error.

    `number` as in `SecretsInstalled`.
    """

    number: int
    began: Instant
    reason: str


@dataclass(frozen=True, slots=True)
class SecretStands(Event):
    """How a secret of the installation stands in its place, recorded when that changed. Never with a value.

    `state`: `made` (seen for the first time), `same` (what it was, and can be read again), `changed` (another value),
    `unreadable`, `gone`.
    """

    secret: str
    state: str


@dataclass(frozen=True, slots=True)
class SecretRotated(Event):
    """Somebody asked for a new version of a secret, and it stands."""

    secret: str
    version: int


@dataclass(frozen=True, slots=True)
class SecretDamaged(Event):
    """A declared fault is about to damage a secret where it is kept."""

    secret: str
    how: str


@dataclass(frozen=True, slots=True)
class SecretMended(Event):
    """What a declared fault did to a secret was undone."""

    secret: str


@dataclass(frozen=True, slots=True)
class SecretShown(Event):
    """The value of a secret was found where it does not belong. Neither the value nor what stood around it is here."""

    secret: str
    where: str


E = TypeVar("E", bound=Event)


class Journal:
    """The ordered record of a run: hashes each event into the chain, hands it to whoever asked for its type.

    Events are not kept here: 1,000 devices make a million heartbeats in eight hours. Whoever needs a memory folds.
    """

    HEAD: ClassVar[bytes] = b"harmony-fleet journal 1\n"

    def __init__(self) -> None:
        self._chain = hashlib.sha256(self.HEAD)
        self._readers: dict[type[Event], list[Callable[[Event], None]]] = {}
        self._all: list[Callable[[Event], None]] = []
        self._spelt: list[Callable[[Event, bytes], None]] = []
        self.count = 0

    def subscribe(self, kind: type[E], reader: Callable[[E], None]) -> None:
        """Call `reader` for each later event of exactly this type, in order, before `record` returns."""
        self._readers.setdefault(kind, []).append(reader)  # type: ignore[arg-type]  # keyed by the very type it takes

    def subscribe_all(self, reader: Callable[[Event], None]) -> None:
        """Call `reader` for each later event of any type."""
        self._all.append(reader)

    def subscribe_spelt(self, reader: Callable[[Event, bytes], None]) -> None:
        """Call `reader` for each later event of any type with its own bytes, after all other readers: it may record."""
        self._spelt.append(reader)

    def record(self, event: Event) -> None:
        """Append an event."""
        self.count += 1
        data = _bytes(event)
        self._chain.update(data)
        for reader in self._readers.get(type(event), ()):
            reader(event)
        for reader in self._all:
            reader(event)
        for spelt in self._spelt:
            spelt(event, data)

    def sha256(self) -> str:
        """The chain hash so far: 64 hexadecimal digits."""
        return self._chain.hexdigest()


def _bytes(event: Event) -> bytes:
    """An event's own bytes: unambiguous, and the same in every process."""
    if isinstance(event, KvStored):
        head = f"{event.at:d} kv {event.bucket} {event.revision:d} {event.writer} {len(event.value)} {event.key}\n"
        return head.encode("utf-8", "surrogateescape") + event.value
    if isinstance(event, ObjectStored) and _READS_AS_WRITTEN.fullmatch(event.value):
        head = f'{event.at:d} {{"at":{event.at:d},"event":"ObjectStored","kind":{_quoted(event.kind)}'
        return f'{head},"name":{_quoted(event.name)},"value":'.encode() + event.value + b"}\n"
    return f"{event.at:d} {to_json(event)}\n".encode()


_READS_AS_WRITTEN: Final = re.compile(rb"[ -\[\]-~]*")
"""An object's JSON in which nothing is escaped: stores write it as compactly as `to_json`, which would read it and
write the same again. Nearly all objects are such, and renewals of a lease are most of what a long run stores."""


@cache
def _quoted(text: str) -> str:
    """A kind or a name as JSON. There are few of them in a process, however many runs it makes."""
    return json.dumps(text)


def to_json(event: Event) -> str:
    """One JSON object: `{"at": …, "event": "AgentStarted", …}`. Bytes that are not JSON come in base64."""
    fields: dict[str, object] = {"at": int(event.at), "event": type(event).__name__}
    for name in _fields(type(event)):
        fields[name] = _plain(getattr(event, name))
    return _COMPACT.encode(fields)


_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))


def _fields(kind: type[Event]) -> tuple[str, ...]:
    return tuple(name for name in kind.__dataclass_fields__ if name != "at")


def _plain(value: object) -> object:
    match value:
        case Release():
            return str(value)
        case bytes():
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return {"base64": b64encode(value).decode()}
        case tuple():
            return [_plain(item) for item in value]
        case _:
            return value
