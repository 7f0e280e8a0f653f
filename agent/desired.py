"""What this device shall be: its own desired keys, by pushes and by reading, in the order of their revisions.

Any bytes can stand under them. What cannot be read is logged once, counted, and changes nothing: the last readable
value stays in force until a later readable one replaces it.

Nothing acts on a lower revision than one that was seen, with one exception (ADR-015): a server that lost power may
have lost what it had acknowledged, and uses those revisions again. A lower revision counts once this is certain.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from dataclasses import dataclass
from typing import Final, Protocol

from agent.store import KeptWorkloads
from agent.workloads import Wanted
from fleet.capabilities.bus import Bus, Deleted, Entry, Stored
from fleet.capabilities.clock import Clock
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue, Refused, Unavailable, Unknown
from fleet.contracts.ids import DeploymentName, DeviceId, Revision
from fleet.contracts.keys import shown
from fleet.contracts.layout import Bucket, Invalid, Valid
from fleet.contracts.records import DesiredAgent, DesiredWorkload, DesiredWorkloads, Record
from fleet.contracts.time import Duration

_log = logging.getLogger(__name__)

MOST_INVALID: Final = 1000
"""At most so many unreadable keys are remembered: any number of them can be written below a device's name."""


class Listener(Protocol):
    """Who wants to know. Told synchronously, in the order of revisions per key."""

    def stream_went_back(self) -> None:
        """The server uses revisions again that it had used: what is told next of the release counts, whatever it is."""
        ...

    def desired_agent(self, desired: DesiredAgent, revision: Revision) -> None:
        """Another release, or more about the same one."""
        ...

    def withdrawn_agent(self, revision: Revision) -> None:
        """No release is desired any more."""
        ...

    def desired_workloads(self) -> None:
        """`Desired.workloads` has changed, or is known for the first time."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How often everything is read again, and the pause after a failed reading."""

    reread: Duration
    retry: Duration


class Desired:
    """The newest readable desired state of one device. `kept` is what was remembered of its workloads."""

    def __init__(self, device: DeviceId, bus: Bus, listener: Listener, kept: KeptWorkloads | None) -> None:
        self._device = device
        self._bus = bus
        self._listener = listener
        self._agent_key = layout.desired_agent(device).key
        self._revisions: dict[str, Revision] = {}
        self._sums: dict[str, int] = {}
        self._of_earlier_sessions: dict[str, Revision] = {}
        self._lower: dict[str, int] = {}
        self._round = 0
        self._listed: tuple[DeploymentName, ...] = ()
        self._due = asyncio.Event()
        self.workloads: dict[DeploymentName, Wanted] = {}
        self.invalid: dict[str, Invalid] = {}
        self.known = kept is not None
        """Whether the workloads are known, from the disk or the bus: before that, nothing may be called unwanted."""
        self.read_once = False
        """Whether everything has been read from the bus at least once."""
        for item in kept.workloads if kept is not None else ():
            name = item.desired.deployment
            self.workloads[name] = Wanted(item.desired, item.revision)
            self._revisions[layout.desired_workload(device, name).key] = item.revision
        bus.listen(Bucket.DESIRED, device, self.pushed)
        bus.on_session(self._session)

    async def run(self, clock: Clock, pace: Pace) -> None:
        """For ever: read everything at each session, when something turned out to be missing, and every `reread`."""
        while True:
            try:
                async with clock.timeout(pace.reread):
                    await self._due.wait()
            except TimeoutError:
                pass  # Nothing asked for it: this is the slow period.
            self._due.clear()
            try:
                await self.read()
            except (Unavailable, Unknown, Refused) as error:
                _log.info("the desired state cannot be read now: %s", error)
                await clock.sleep(pace.retry)
                self._due.set()

    async def read(self) -> None:
        """Read every own key once. Raises as `Bus.get`."""
        self._round += 1
        await self.read_agent()
        await self._read_key(layout.desired_workloads(self._device).key)
        for name in sorted({*self._listed, *self.workloads}):
            await self._read_workload(name)
        if not self.read_once:
            self.known = self.read_once = True
            self._listener.desired_workloads()

    async def read_agent(self) -> None:
        """Read the desired release. Raises as `Bus.get`."""
        await self._read_key(self._agent_key)

    def pushed(self, entry: Entry) -> None:
        """Take in what the server accepts now. At a revision that an earlier session had shown, it proves a loss."""
        if entry.revision <= self._of_earlier_sessions.get(entry.key, 0):
            self._forget_order(entry)
        self.seen(entry)

    def seen(self, entry: Entry) -> None:
        """Take an entry in, unless one at least as new is known."""
        known = self._revisions.get(entry.key, 0)
        if entry.revision == known and self._sums.get(entry.key, _sum(entry)) != _sum(entry):
            self._forget_order(entry)
        elif entry.revision <= known:
            return
        self._lower.pop(entry.key, None)
        match entry:
            case Deleted(key=key, revision=revision):
                self._note(entry)
                self.invalid.pop(key, None)
                self._deleted(key, revision)
            case Stored(bucket, key, revision, value):
                self._stored(entry, layout.read(bucket, key, value, revision))

    async def _read_key(self, key: str) -> Entry | None:
        entry = await self._bus.get(Bucket.DESIRED, key)
        if entry is not None:
            if entry.revision < self._revisions.get(key, 0) and self._is_lower_again(key):
                self._forget_order(entry)
            self.seen(entry)
        return entry

    # --- a server that lost revisions

    def _session(self) -> None:
        self._of_earlier_sessions = dict(self._revisions)
        self._due.set()

    def _is_lower_again(self, key: str) -> bool:
        """One reading may be served by a server that lags; a second round of reading that says the same decides."""
        first = self._lower.setdefault(key, self._round)
        return self._round > first

    def _forget_order(self, entry: Entry) -> None:
        """One sequence numbers the whole bucket: when it went back, no revision of any key says anything any more."""
        _log.warning("%s stands at revision %d: the server has lost later ones", shown(entry.key), entry.revision)
        for forgotten in (self._revisions, self._sums, self._of_earlier_sessions, self._lower, self.invalid):
            forgotten.clear()
        self._due.set()
        self._listener.stream_went_back()

    def _note(self, entry: Entry) -> None:
        self._revisions[entry.key], self._sums[entry.key] = entry.revision, _sum(entry)

    async def _read_workload(self, name: DeploymentName) -> None:
        """A key that was never written counts as deleted, unless the list of names says otherwise."""
        entry = await self._read_key(layout.desired_workload(self._device, name).key)
        if entry is None and name not in self._listed and self.workloads.pop(name, None) is not None:
            self._listener.desired_workloads()

    def _stored(self, entry: Entry, found: Valid[Record] | Invalid) -> None:
        key = entry.key
        match found:
            case Invalid():
                self._unreadable(key, found)
            case Valid(record, revision):
                self._note(entry)
                self.invalid.pop(key, None)
                self._valid(record, revision)

    def _unreadable(self, key: str, found: Invalid) -> None:
        if key in self.invalid and self.invalid[key].revision >= found.revision:
            return
        _log.warning("%s at revision %d is skipped: %s", shown(key), found.revision, found.reason)
        if key in self.invalid or len(self.invalid) < MOST_INVALID:
            self.invalid[key] = found

    def _valid(self, record: Record, revision: Revision) -> None:
        match record:
            case DesiredAgent():
                self._listener.desired_agent(record, revision)
            case DesiredWorkload(deployment=name):
                self.workloads[name] = Wanted(record, revision)
                self._listener.desired_workloads()
            case DesiredWorkloads(deployments=names):
                self._list(names, revision)
            case _:
                _log.warning("a %s stands in the desired bucket, which nobody here needs", type(record).__name__)

    def _list(self, names: tuple[DeploymentName, ...], revision: Revision) -> None:
        self._listed = names
        gone = [name for name in self.workloads if name not in names and self._revision_of(name) < revision]
        for name in gone:
            del self.workloads[name]
        if gone:
            self._listener.desired_workloads()
        if any(name not in self.workloads for name in names):
            self._due.set()

    def _revision_of(self, name: DeploymentName) -> int:
        return self._revisions.get(layout.desired_workload(self._device, name).key, 0)

    def _deleted(self, key: str, revision: Revision) -> None:
        if key == self._agent_key:
            self._listener.withdrawn_agent(revision)
            return
        _, _, rest = key.partition(".workload.")
        try:
            name = DeploymentName(rest)
        except InvalidValue:
            return
        if self.workloads.pop(name, None) is not None:
            self._listener.desired_workloads()


def _sum(entry: Entry) -> int:
    """Tells two contents under one revision apart."""
    return zlib.crc32(entry.value) if isinstance(entry, Stored) else -1
