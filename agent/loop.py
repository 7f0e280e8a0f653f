"""One agent process from its start to its end: puts the parts together and lets them run.

Nothing here decides anything. What goes wrong unexpectedly ends the process with its story; the service manager
starts it again.
"""

from __future__ import annotations

import asyncio
import logging

from agent.desired import Desired
from agent.events import DesiredSeen, LockHeld, StopAsked
from agent.handover import Hands, Tools
from agent.heartbeat import Heart, Vitals
from agent.ports import AgentBoot, AgentConfig, AgentPorts
from agent.reconcile import Reconciler
from agent.reports import Reports
from agent.store import Store
from agent.upgrade import Facts, Upgrade
from fleet.capabilities.bus import Request, Stored
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue, Unavailable, Unknown
from fleet.contracts.ids import InstanceId
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.records import DeviceInfo, Health, Role, StopReply, StopRequest, UpgradeState

_log = logging.getLogger(__name__)


async def run_agent(boot: AgentBoot, ports: AgentPorts, config: AgentConfig, stop: asyncio.Event) -> int:
    """Be the agent until `stop` is set or the operator stops this instance. Returns the exit code, 0.

    Raises:
        BaseExceptionGroup: a part failed unexpectedly; the process shall end with a code that is not 0.
    """
    store = Store(ports.disk)
    start = await store.next_start(boot.slot)
    me = InstanceId(device=config.device, version=boot.release.version, boot=ports.facts.boot, start=start)
    agent = _Agent(boot, ports, config, store, me, stop)
    _log.info("%s runs %s in slot %s", me, boot.release, boot.slot.value)
    async with asyncio.TaskGroup() as group:
        tasks = agent.start(group)
        await stop.wait()
        for task in tasks:
            task.cancel()
    await ports.bus.close()
    ports.lock.release()
    return 0


class _Agent:
    def __init__(
        self,
        boot: AgentBoot,
        ports: AgentPorts,
        config: AgentConfig,
        store: Store,
        me: InstanceId,
        stop: asyncio.Event,
    ) -> None:
        self._boot = boot
        self._ports = ports
        self._timings = config.timings
        self._store = store
        self._me = me
        self._reports = Reports(ports.bus, ports.clock, config.timings.retry)
        self._desired = Desired(
            config.device,
            ports.bus,
            on_agent=lambda desired: self._hands.tell(DesiredSeen(desired)),
            on_workloads=lambda: self._reconciler.kick(),
        )
        self._reconciler = Reconciler(config.device, ports, config.timings, self._desired, self._reports)
        self._hands = Hands(
            Tools(
                ports=ports,
                timings=config.timings,
                boot=boot,
                me=me,
                store=store,
                reports=self._reports,
                desired=self._desired,
                reconciler=self._reconciler,
                leave=stop.set,
            )
        )
        self._known_health: tuple[tuple[int, int, int], Health] | None = None
        self._vitals = Vitals(Role.STANDBY, self._health)
        self._heart = Heart(ports, config.timings, boot, me, self._vitals)

    def start(self, group: asyncio.TaskGroup) -> tuple[asyncio.Task[None], ...]:
        """Begin everything that goes on until the end."""
        self._ports.bus.serve(layout.stop(self._me.device).name, self._stop_asked)
        timings, clock = self._timings, self._ports.clock
        return (
            group.create_task(self._heart.run()),
            group.create_task(self._reports.run()),
            group.create_task(self._desired.run(clock, timings.reread, timings.retry)),
            group.create_task(self._reconciler.run()),
            group.create_task(self._manage()),
            group.create_task(self._upgrade()),
        )

    async def _manage(self) -> None:
        """Wait for the host lock; from then on this instance is the one that manages."""
        await self._ports.lock.acquire()
        self._vitals.role = Role.MANAGING
        self._reconciler.managing = True
        self._reconciler.kick()
        self._hands.tell(LockHeld())
        self._reports.want(await self._info())
        await self._heart.beat()

    async def _upgrade(self) -> None:
        await self._hands.run(Upgrade(await self._facts()))

    async def _facts(self) -> Facts:
        return Facts(
            me=self._me,
            release=self._boot.release,
            slot=self._boot.slot,
            architecture=self._ports.facts.architecture,
            verified=await self._store.verified(),
            attempt=await self._store.attempt(),
            quarantined=await self._store.quarantined(),
            reported=await self._reported(),
        )

    async def _reported(self) -> UpgradeState | None:
        """The device's own newest report: what was said once is not said again otherwise. Asks until it is answered."""
        address = layout.upgrade_state(self._me.device)
        while True:
            try:
                entry = await self._ports.bus.get(address.bucket, address.key)
                break
            except (Unavailable, Unknown):
                await self._ports.clock.sleep(self._timings.retry)
        if not isinstance(entry, Stored):
            return None
        found = layout.read(Bucket.STATE, entry.key, entry.value, entry.revision)
        return found.record if isinstance(found, Valid) and isinstance(found.record, UpgradeState) else None

    async def _info(self) -> DeviceInfo:
        facts = self._ports.facts
        return DeviceInfo(
            device=self._me.device,
            machine_id=facts.machine_id,
            hardware=facts.hardware,
            operating_system=facts.operating_system,
            architecture=facts.architecture,
            releases_on_disk=await self._store.releases(),
        )

    def _health(self) -> Health:
        now = (*self._reconciler.counts(), len(self._desired.invalid))
        if self._known_health is None or self._known_health[0] != now:
            workloads, healthy, invalid = now
            self._known_health = now, Health(workloads=workloads, healthy=healthy, invalid_entries=invalid)
        return self._known_health[1]

    def _stop_asked(self, request: Request) -> bytes | None:
        """Only the named instance answers: both of an overlap are asked."""
        try:
            asked = layout.decode(StopRequest, request.payload)
        except InvalidValue as error:
            _log.warning("a stop request cannot be read: %s", error)
            return None
        if asked.instance != self._me:
            return None
        self._hands.tell(StopAsked(asked))
        return layout.encode(StopReply(instance=self._me))
