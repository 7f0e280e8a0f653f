"""One agent process from its start to its end: puts the parts together and lets them run.

Nothing here decides anything. What goes wrong unexpectedly ends the process with its story; the service manager
starts it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from agent.desired import Desired, Pace
from agent.events import BecameManaging, DesiredSeen, DesiredWithdrawn, StreamWentBack
from agent.handover import Hands, Tools
from agent.heartbeat import Heart, Vitals
from agent.ports import AgentBoot, AgentConfig, AgentPorts
from agent.reconcile import Reconciler, Workshop
from agent.reports import Reports
from agent.states import Found, Me
from agent.store import KeptWorkloads, Store
from agent.upgrade import Upgrade
from fleet.capabilities.bus import Request
from fleet.capabilities.clock import Clock
from fleet.contracts import layout
from fleet.contracts.errors import Definite, InvalidValue, Unknown
from fleet.contracts.ids import InstanceId, Revision
from fleet.contracts.records import DesiredAgent, DeviceInfo, Health, Role, StopReply, StopRequest
from fleet.contracts.time import Duration

_log = logging.getLogger(__name__)

T = TypeVar("T")

READINGS: Final = 3
"""A state file that the disk fails to read so often counts as missing: an agent that knows less is better than none."""
STABLE: Final = Duration.minutes(10)
"""A verified release that has run this long does not crash in a loop: the boot guard's count begins anew."""


async def run_agent(boot: AgentBoot, ports: AgentPorts, config: AgentConfig, stop: asyncio.Event) -> int:
    """Be the agent until `stop` is set, the operator stops this instance, or it gives itself up.

    Returns:
        The exit code: 0, or 1 after which the service manager shall start the unit again.

    Raises:
        BaseExceptionGroup: a part failed unexpectedly; the process shall end with a code that is not 0.
    """
    store = Store(ports.disk)
    start = await store.next_start(boot.slot, ports.chance.token())
    instance = InstanceId(device=config.device, version=boot.release.version, boot=ports.facts.boot, start=start)
    me = Me(instance, boot.release, boot.slot, ports.facts.architecture)
    found, kept = await _look_around(store, ports.clock, config.timings.retry)
    _log.info("%s runs %s in slot %s", instance, boot.release, boot.slot.value)
    async with asyncio.TaskGroup() as group:
        agent = _Agent(me, found, kept, ports, config, stop, group)
        agent.start(group)
        await stop.wait()
        agent.end()
    await ports.bus.close()
    ports.lock.release()
    return agent.code


async def _look_around(store: Store, clock: Clock, retry: Duration) -> tuple[Found, KeptWorkloads | None]:
    """Everything that the disk remembers, however badly it reads: without it, the device still has an agent."""

    async def patiently(read: Callable[[], Awaitable[T]], otherwise: T) -> T:
        for _ in range(READINGS):
            try:
                return await read()
            except (Definite, Unknown) as error:
                _log.warning("the disk cannot be read: %s", error)
            await clock.sleep(retry)
        return otherwise

    found = Found(
        verified=await patiently(store.verified, None),
        attempt=await patiently(store.attempt, None),
        current=await patiently(store.current, None),
        condemned=await patiently(store.quarantined, {}),
        on_disk=await patiently(store.releases, ()),
    )
    return found, await patiently(store.kept, None)


class _Agent:
    """The parts of one process, and what they tell one another."""

    def __init__(
        self,
        me: Me,
        found: Found,
        kept: KeptWorkloads | None,
        ports: AgentPorts,
        config: AgentConfig,
        stop: asyncio.Event,
        group: asyncio.TaskGroup,
    ) -> None:
        timings = config.timings
        self.code = 0
        self._me = me
        self._found = found
        self._ports = ports
        self._timings = timings
        self._stop = stop
        self._store = store = Store(ports.disk)
        self._reports = reports = Reports(ports.bus, ports.clock, timings.retry)
        self._desired = Desired(config.device, ports.bus, self, kept)
        shop = Workshop(config.device, ports.containers, ports.clock, timings, store, reports)
        self._reconciler = Reconciler(shop, self._desired, kept)
        brain = Upgrade(me, found, timings.overlap)
        tools = Tools(me, ports, timings, store, reports, self._desired, self._reconciler, self._leave)
        self._hands = Hands(brain, tools, group)
        self._known_health: tuple[tuple[int, int, int], Health] | None = None
        self._vitals = Vitals(Role.STANDBY, self._health)
        self._heart = Heart(ports, timings, AgentBoot(me.release, me.slot), me.instance, self._vitals)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin everything that goes on until the end."""
        self._hands.begin()
        self._ports.bus.serve(layout.stop(self._me.instance.device).name, self._stop_asked)
        self._tasks = [
            group.create_task(self._heart.run()),
            group.create_task(self._reports.run()),
            group.create_task(self._desired.run(self._ports.clock, Pace(self._timings.reread, self._timings.retry))),
            group.create_task(self._reconciler.run()),
            group.create_task(self._reconciler.look_for_drift()),
            group.create_task(self._manage()),
            group.create_task(self._become_stable()),
        ]

    def end(self) -> None:
        """Drop everything that still goes on."""
        self._hands.end()
        for task in self._tasks:
            task.cancel()

    # --- told by the parts ---------------------------------------------------------------------------------

    def stream_went_back(self) -> None:
        """See `desired.Listener`."""
        self._hands.tell(StreamWentBack())

    def desired_agent(self, desired: DesiredAgent, revision: Revision) -> None:
        """See `desired.Listener`."""
        self._hands.tell(DesiredSeen(revision, desired))

    def withdrawn_agent(self, revision: Revision) -> None:
        """See `desired.Listener`."""
        self._hands.tell(DesiredWithdrawn(revision))

    def desired_workloads(self) -> None:
        """See `desired.Listener`."""
        self._reconciler.kick()

    def _leave(self, code: int) -> None:
        self.code = code
        self._stop.set()

    def _stop_asked(self, request: Request) -> bytes | None:
        """Only the named instance answers: both of an overlap are asked."""
        try:
            asked = layout.decode(StopRequest, request.payload)
        except InvalidValue as error:
            _log.warning("a stop request cannot be read: %s", error)
            return None
        leaves = self._hands.stop_asked(asked)
        return layout.encode(StopReply(instance=self._me.instance)) if leaves else None

    # --- what goes on ----------------------------------------------------------------------------------------

    async def _manage(self) -> None:
        """Wait for the host lock; from then on this instance manages and speaks for the device."""
        await self._ports.lock.acquire()
        self._vitals.role = Role.MANAGING
        self._reports.open()
        self._reports.want(self._info())
        self._reconciler.manage()
        self._hands.tell(BecameManaging())
        self._heart.beat()

    async def _become_stable(self) -> None:
        await self._ports.clock.sleep(STABLE)
        try:
            if await self._store.verified() == self._me.release:
                await self._store.forget_starts(self._me.release)
        except (Definite, Unknown) as error:
            _log.warning("the count of starts stays: %s", error)

    def _info(self) -> DeviceInfo:
        facts = self._ports.facts
        return DeviceInfo(
            device=self._me.instance.device,
            machine_id=facts.machine_id,
            hardware=facts.hardware,
            operating_system=facts.operating_system,
            architecture=facts.architecture,
            releases_on_disk=self._found.on_disk,
        )

    def _health(self) -> Health:
        now = (*self._reconciler.counts(), len(self._desired.invalid))
        if self._known_health is None or self._known_health[0] != now:
            workloads, healthy, invalid = now
            self._known_health = now, Health(workloads=workloads, healthy=healthy, invalid_entries=invalid)
        return self._known_health[1]
