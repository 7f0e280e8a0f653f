"""What this device shall be: its own desired keys, by pushes and by reading, in the order of their revisions.

Any bytes can stand under them. What cannot be read is logged once, counted, and changes nothing: the last readable
value stays in force until a later readable one replaces it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from agent.workloads import Wanted
from fleet.capabilities.bus import Bus, Deleted, Entry, Stored
from fleet.capabilities.clock import Clock
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue, Unavailable, Unknown
from fleet.contracts.ids import DeploymentName, DeviceId, Revision
from fleet.contracts.layout import Bucket, Invalid, Valid
from fleet.contracts.records import DesiredAgent, DesiredWorkload, DesiredWorkloads, Record
from fleet.contracts.time import Duration

_log = logging.getLogger(__name__)


class Desired:
    """The newest readable desired state of one device.

    Args:
        on_agent: told of each newer desired release.
        on_workloads: told that `workloads` has changed.
    """

    def __init__(
        self,
        device: DeviceId,
        bus: Bus,
        on_agent: Callable[[DesiredAgent], None],
        on_workloads: Callable[[], None],
    ) -> None:
        self._device = device
        self._bus = bus
        self._on_agent = on_agent
        self._on_workloads = on_workloads
        self._revisions: dict[str, Revision] = {}
        self._listed: tuple[DeploymentName, ...] = ()
        self._due = asyncio.Event()
        self.workloads: dict[DeploymentName, Wanted] = {}
        self.invalid: dict[str, Invalid] = {}
        self.known = False
        """Whether everything has been read at least once: before that, nothing may be called unwanted."""
        bus.listen(Bucket.DESIRED, device, self.seen)
        bus.on_session(self._due.set)

    async def run(self, clock: Clock, reread: Duration, retry: Duration) -> None:
        """For ever: read everything at each session, when something turned out to be missing, and every `reread`."""
        while True:
            try:
                async with clock.timeout(reread):
                    await self._due.wait()
            except TimeoutError:
                pass  # Nothing asked for it: this is the slow period.
            self._due.clear()
            try:
                await self.read()
            except (Unavailable, Unknown):
                await clock.sleep(retry)
                self._due.set()

    async def read(self) -> None:
        """Read every own key once. Raises as `Bus.get`."""
        await self.read_agent()
        await self._read_key(layout.desired_workloads(self._device).key)
        for name in sorted({*self._listed, *self.workloads}):
            await self._read_key(layout.desired_workload(self._device, name).key)
        if not self.known:
            self.known = True
            self._on_workloads()

    async def read_agent(self) -> None:
        """Read the desired release. Raises as `Bus.get`."""
        await self._read_key(layout.desired_agent(self._device).key)

    def seen(self, entry: Entry) -> None:
        """Take an entry in, unless a newer one is known."""
        if entry.revision <= self._revisions.get(entry.key, 0):
            return
        self._revisions[entry.key] = entry.revision
        match entry:
            case Deleted(key=key):
                self.invalid.pop(key, None)
                self._deleted(key)
            case Stored(bucket, key, revision, value):
                self._stored(key, layout.read(bucket, key, value, revision))

    async def _read_key(self, key: str) -> None:
        entry = await self._bus.get(Bucket.DESIRED, key)
        if entry is not None:
            self.seen(entry)

    def _stored(self, key: str, found: Valid[Record] | Invalid) -> None:
        match found:
            case Invalid(reason=reason):
                _log.warning("%s at revision %d is skipped: %s", key, found.revision, reason)
                self.invalid[key] = found
            case Valid(record, revision):
                self.invalid.pop(key, None)
                match record:
                    case DesiredAgent():
                        self._on_agent(record)
                    case DesiredWorkload(deployment=name):
                        self.workloads[name] = Wanted(record, revision)
                        self._on_workloads()
                    case DesiredWorkloads(deployments=names):
                        self._list(names, revision)
                    case _:
                        _log.warning("%s holds a %s, which nobody here needs", key, type(record).__name__)

    def _list(self, names: tuple[DeploymentName, ...], revision: Revision) -> None:
        self._listed = names
        gone = [name for name, wanted in self.workloads.items() if name not in names and wanted.revision < revision]
        for name in gone:
            del self.workloads[name]
        if gone:
            self._on_workloads()
        if any(name not in self.workloads for name in names):
            self._due.set()

    def _deleted(self, key: str) -> None:
        _, _, rest = key.partition(".workload.")
        try:
            name = DeploymentName(rest)
        except InvalidValue:
            return  # Not the key of a workload: a deleted desired release leaves the device as it is.
        if self.workloads.pop(name, None) is not None:
            self._on_workloads()
