"""What this device shall be: its own desired keys, by pushes and by reading, in the order of their revisions.

Any bytes can stand under them. What cannot be read is logged once, counted, and changes nothing: the last readable
value stays in force until a later readable one replaces it.
"""

from __future__ import annotations

import asyncio
import logging
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
        bus.listen(Bucket.DESIRED, device, self.seen)
        bus.on_session(self._due.set)

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

    def seen(self, entry: Entry) -> None:
        """Take an entry in, unless one at least as new is known."""
        if entry.revision <= self._revisions.get(entry.key, 0):
            return
        match entry:
            case Deleted(key=key, revision=revision):
                self._revisions[key] = revision
                self.invalid.pop(key, None)
                self._deleted(key, revision)
            case Stored(bucket, key, revision, value):
                self._stored(key, layout.read(bucket, key, value, revision))

    async def _read_key(self, key: str) -> Entry | None:
        entry = await self._bus.get(Bucket.DESIRED, key)
        if entry is not None:
            self.seen(entry)
        return entry

    async def _read_workload(self, name: DeploymentName) -> None:
        """A key that was never written counts as deleted, unless the list of names says otherwise."""
        entry = await self._read_key(layout.desired_workload(self._device, name).key)
        if entry is None and name not in self._listed and self.workloads.pop(name, None) is not None:
            self._listener.desired_workloads()

    def _stored(self, key: str, found: Valid[Record] | Invalid) -> None:
        match found:
            case Invalid():
                self._unreadable(key, found)
            case Valid(record, revision):
                self._revisions[key] = revision
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
        gone = [name for name, wanted in self.workloads.items() if name not in names and wanted.revision < revision]
        for name in gone:
            del self.workloads[name]
        if gone:
            self._listener.desired_workloads()
        if any(name not in self.workloads for name in names):
            self._due.set()

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
