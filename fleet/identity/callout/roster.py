"""Who is which device, as the bucket `identity` says. Pure: fed with what is read and what is pushed.

The bucket is as hostile as any other. An entry that cannot be read admits nobody, is told once, and is healed by the
next valid write. Everything is refused that is not plainly admitted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleet.capabilities.bus import Deleted, Entry, Stored
from fleet.contracts import layout
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import Invalid, Valid
from fleet.contracts.records import Admitted, Enrolment, Revoked


@dataclass(frozen=True, slots=True)
class Nobody:
    """The user is no device of this fleet."""


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Several devices are said to be this user, so none of them is."""

    devices: tuple[DeviceId, ...]


Known = Valid[Enrolment] | Invalid | Deleted


class Roster:
    """The enrolments as far as they are known."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}
        self._readings: dict[str, tuple[Entry, Known]] = {}
        """The last reading of each entry of the bucket: it is read whole time and again, and seldom changes."""
        self._users: dict[str, dict[DeviceId, Enrolment]] = {}
        self._revoked: dict[str, Valid[Enrolment]] = {}
        self._complete = False

    @property
    def complete(self) -> bool:
        """Whether the whole bucket was read once."""
        return self._complete

    @property
    def devices(self) -> int:
        """How many devices have an enrolment that can be read."""
        return sum(isinstance(item, Valid) for item in self._known.values())

    def replace(self, entries: Iterable[Entry]) -> tuple[Invalid, ...]:
        """The whole bucket was read: forget what is not in it. Returns what cannot be read, if it is news.

        A server that was restored from an older store shows what was overtaken long ago. A revocation that was seen
        once is not undone by that: only by a newer write, or by an admission for tokens from after the revocation.
        """
        before, self._known, self._users = self._known, {}, {}
        readings, self._readings = self._readings, {}
        news: list[Invalid] = []
        for entry in entries:
            reading = readings.get(entry.key)
            if reading is None or reading[0] != entry:
                reading = (entry, _read(entry))
            self._readings[entry.key] = reading
            read = self._not_undone(reading[1])
            self._put(entry.key, read)
            if isinstance(read, Invalid) and before.get(entry.key) != read:
                news.append(read)
        self._complete = True
        return tuple(news)

    def apply(self, entry: Entry) -> tuple[Invalid, ...]:
        """One write was pushed. An older one than known changes nothing. Returns it, if it cannot be read."""
        known = self._known.get(entry.key)
        if known is not None and entry.revision <= known.revision:
            return ()
        self._forget(entry.key)
        self._revoked.pop(entry.key, None)
        read = _read(entry)
        self._put(entry.key, read)
        return (read,) if isinstance(read, Invalid) else ()

    def of_user(self, user: str) -> Enrolment | Nobody | Ambiguous:
        """Which device a user of the provider is."""
        found = self._users.get(user, {})
        match tuple(found.values()):
            case ():
                return Nobody()
            case (enrolment,):
                return enrolment
            case _:
                return Ambiguous(tuple(sorted(found)))

    def of_device(self, device: DeviceId) -> Known | None:
        """What stands under a device's key."""
        return self._known.get(device)

    def _put(self, key: str, read: Known) -> None:
        self._known[key] = read
        if isinstance(read, Valid):
            self._users.setdefault(read.record.user, {})[read.record.device] = read.record
            if isinstance(read.record.standing, Revoked):
                self._revoked[key] = read

    def _forget(self, key: str) -> None:
        known = self._known.pop(key, None)
        if isinstance(known, Valid):
            users = self._users[known.record.user]
            users.pop(known.record.device, None)
            if not users:
                del self._users[known.record.user]

    def _not_undone(self, read: Known) -> Known:
        """What was read; in place of an admission that is older than a revocation that was seen, the revocation."""
        match read:
            case Valid(record=Enrolment(device=device, standing=Admitted(tokens_from=tokens_from))):
                seen = self._revoked.get(device)
            case _:
                return read
        match seen:
            case Valid(record=Enrolment(standing=Revoked(at=at))) if read.revision < seen.revision and tokens_from < at:
                return seen
            case _:
                self._revoked.pop(device, None)
                return read


def _read(entry: Entry) -> Known:
    match entry:
        case Deleted():
            return entry
        case Stored(bucket=bucket, key=key, revision=revision, value=value):
            read = layout.read(bucket, key, value, revision)
    match read:
        case Invalid():
            return read
        case Valid(record=Enrolment() as enrolment):
            return Valid(enrolment, revision)
        case _:
            return Invalid(bucket, key, revision, "it is not in the bucket of enrolments")
