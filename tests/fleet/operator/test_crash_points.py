"""The operator is killed before and after every single write of a small rollout, and the rollout ends all the same.

Brain and hands run as they are, in a world with a bus and an object store. The devices are scripts of the hand-over
protocol. A write is a desired record, a status, the lease, or a stop; it is a point twice: killed before it is sent,
and killed when it has been made and nothing has been done with the answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from fleet.capabilities.bus import Request, Stored
from fleet.capabilities.objects import Listing, WatchEvent
from fleet.contracts import layout
from fleet.contracts.errors import FleetError
from fleet.contracts.ids import Architecture, AttemptId, BootId, DeviceId, InstanceId, ObjectName, Revision, Slot
from fleet.contracts.layout import BUCKETS, Bucket
from fleet.contracts.lease import Lease
from fleet.contracts.objects import (
    AgentRollout,
    Device,
    MaxUnavailable,
    Metadata,
    Object,
    RolloutPhase,
    RolloutSpec,
)
from fleet.contracts.permissions import EVERYTHING
from fleet.contracts.records import (
    DesiredAgent,
    DeviceInfo,
    InProgress,
    LockGranted,
    LockReply,
    LockRequest,
    Record,
    Role,
    StopReply,
    StopRequest,
    Succeeded,
    UpgradePhase,
    UpgradeState,
    UpgradeStatus,
)
from fleet.contracts.time import Duration
from fleet.operator.loop import run_operator
from fleet.operator.ports import OperatorConfig, OperatorPorts
from sim.clock import SimClock
from sim.nats.client import SimBus
from sim.nats.server import NatsServer
from sim.objects import SimObjects
from sim.process import Process, spawn
from sim.random import SimChance
from sim.world import World
from tests.fleet.operator.rollout_world import NEW, OLD, artefact, group, heartbeat

O = TypeVar("O", bound=Object)  # noqa: E741 - the one-letter name of the type variable, as in the ports
R = TypeVar("R")

STEP = Duration.seconds(20)
LIMIT = 120
"""Steps after which a rollout that has not ended stands still: four times what it takes."""
CHUNKS = 4
NAME = ObjectName("move")
PHASES = (UpgradePhase.DRAINING, UpgradePhase.OVERLAPPING)


@dataclass
class Aim:
    """Where to kill: before write n is point 2n, after it 2n + 1. None kills nowhere."""

    point: int | None
    writes: list[str] = field(default_factory=list)

    async def write(self, process: Process, name: str, call: Callable[[], Awaitable[R]]) -> R:
        number = len(self.writes)
        self.writes.append(name)
        if self.point == 2 * number:
            process.kill()
        process.check()
        answer = await call()
        if self.point == 2 * number + 1:
            process.kill()
        process.check()
        return answer


class MortalBus:
    """A bus whose writes are points."""

    def __init__(self, bus: SimBus, aim: Aim, process: Process) -> None:
        self._bus, self._aim, self._process = bus, aim, process

    def __getattr__(self, name: str) -> object:
        return getattr(self._bus, name)

    async def update(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> Revision:
        return await self._aim.write(
            self._process, f"desired {key}", lambda: self._bus.update(bucket, key, value, last)
        )

    async def delete(self, bucket: Bucket, key: str, last: Revision | None = None) -> None:
        await self._aim.write(self._process, f"delete {key}", lambda: self._bus.delete(bucket, key, last))

    async def request(self, subject: str, payload: bytes, timeout: Duration) -> bytes:
        return await self._aim.write(self._process, subject, lambda: self._bus.request(subject, payload, timeout))


class MortalObjects:
    """A store whose writes are points."""

    def __init__(self, objects: SimObjects, aim: Aim, process: Process) -> None:
        self._objects, self._aim, self._process = objects, aim, process

    async def list(self, kind: type[O]) -> Listing[O]:
        return await self._objects.list(kind)

    async def get(self, kind: type[O], name: ObjectName) -> O:
        return await self._objects.get(kind, name)

    async def create(self, item: O) -> O:
        return await self._write("create", item, self._objects.create)

    async def replace(self, item: O) -> O:
        return await self._write("replace", item, self._objects.replace)

    async def replace_status(self, item: O) -> O:
        return await self._write("status of", item, self._objects.replace_status)

    async def delete(self, kind: type[O], name: ObjectName) -> None:
        await self._objects.delete(kind, name)

    def watch(self, kind: type[O], since: str) -> AsyncIterator[WatchEvent[O]]:
        return self._objects.watch(kind, since)

    async def _write(self, verb: str, item: O, write: Callable[[O], Awaitable[O]]) -> O:
        return await self._aim.write(self._process, f"{verb} {item.kind_name} {item.name}", lambda: write(item))


class Pi:
    """A device that follows the hand-over protocol, one step at a time."""

    def __init__(self, bus: SimBus, name: str) -> None:
        self.device = DeviceId(name)
        self._bus = bus
        self.instance = self._made(1)
        self.new: InstanceId | None = None
        self.attempt: AttemptId | None = None
        self.phase: UpgradePhase | None = None
        self.slot = Slot.A
        self.release = OLD
        self.upgraded = False
        bus.serve(layout.stop(self.device).name, self._stopped)

    def _made(self, start: int) -> InstanceId:
        version = OLD.version if start == 1 else NEW.version
        return InstanceId(device=self.device, version=version, boot=BootId("boot-1"), start=start)

    async def step(self) -> None:
        await self._write(heartbeat(self.instance, self.slot, self.release, Role.MANAGING))
        if self.new is not None:
            await self._write(heartbeat(self.new, self.slot.other, NEW, Role.STANDBY))
        entry = await self._bus.get(Bucket.DESIRED, layout.desired_agent(self.device).key)
        if isinstance(entry, Stored):
            await self._act(layout.decode(DesiredAgent, entry.value))

    async def _act(self, desired: DesiredAgent) -> None:
        if self.attempt is None:
            self.attempt, self.phase = desired.attempt, UpgradePhase.LOCKING
            await self._report(InProgress(phase=UpgradePhase.LOCKING))
        elif self.phase is UpgradePhase.LOCKING:
            await self._ask(desired)
        elif self.phase is UpgradePhase.DRAINING:
            self.phase, self.new = UpgradePhase.OVERLAPPING, self._made(2)
            await self._report(InProgress(phase=UpgradePhase.OVERLAPPING))
        elif self.phase is UpgradePhase.OVERLAPPING and self.new is None and not self.upgraded:
            assert desired.confirmed == self.instance
            self.upgraded = True
            await self._report(Succeeded())
        assert desired.attempt == self.attempt

    async def _ask(self, desired: DesiredAgent) -> None:
        request = LockRequest(device=self.device, attempt=desired.attempt, instance=self.instance)
        try:
            answer = await self._bus.request(layout.lock(self.device).name, layout.encode(request), Duration.seconds(5))
        except FleetError:
            return
        if isinstance(layout.decode(LockReply, answer).answer, LockGranted):
            self.phase = UpgradePhase.DRAINING
            await self._report(InProgress(phase=UpgradePhase.DRAINING))

    def _stopped(self, request: Request) -> bytes | None:
        stop = layout.decode(StopRequest, request.payload)
        assert stop.instance.version == OLD.version, "the new instance was told to stop"
        if self.new is not None:
            assert stop.successor == self.new
            self.instance, self.slot, self.release, self.new = self.new, self.slot.other, NEW, None
        return layout.encode(StopReply(instance=stop.instance))

    async def _report(self, status: UpgradeStatus) -> None:
        assert self.attempt is not None
        await self._write(
            UpgradeState(device=self.device, attempt=self.attempt, release=NEW, reporter=self.instance, status=status)
        )

    async def _write(self, record: Record) -> None:
        address = layout.address_of(record)
        await self._bus.put(address.bucket, address.key, layout.encode(record))

    async def introduce(self) -> None:
        await self._write(
            DeviceInfo(
                device=self.device,
                machine_id="m",
                hardware="h",
                operating_system="o",
                architecture=Architecture.AARCH64,
                releases_on_disk=(OLD,),
            )
        )


class Stage:
    """One run: the world, an operator that is started again, and two devices in two groups."""

    def __init__(self, aim: Aim) -> None:
        self.aim = aim
        self.world = World(1)
        for node in ("nats", "operator", "devices"):
            self.world.network.add_node(node)
        self.server = NatsServer(self.world.kernel, self.world.network)
        for spec in BUCKETS:
            self.server.ensure_bucket(spec)
        for name in ("operator", "devices"):
            self.server.permit(name, EVERYTHING)
        self.objects = SimObjects(self.world.kernel, SimChance(self.world.streams.stream("objects")))
        self.clock = SimClock(self.world.loop)
        self.operator: Process | None = None
        self.deaths = 0
        self.most_at_once = 0

    def start_operator(self) -> None:
        async def main(process: Process) -> int:
            chance = SimChance(self.world.streams.stream("operator"))
            bus = MortalBus(SimBus(self.server, "operator", "operator", process, chance), self.aim, process)
            objects = MortalObjects(self.objects, self.aim, process)
            ports = OperatorPorts(self.clock, chance, bus, objects)  # type: ignore[arg-type]  # the rest is forwarded
            return await run_operator(ports, OperatorConfig(), process.stop)

        self.operator = spawn(self.world.loop, "operator", main, self._died)

    def _died(self, process: Process, code: int) -> None:
        assert process.error is None, process.traceback
        self.deaths += 1
        self.operator = None

    async def play(self, process: Process) -> int:
        chance = SimChance(self.world.streams.stream("devices"))
        bus = SimBus(self.server, "devices", "devices", process, chance)
        await self.clock.sleep(Duration.seconds(1))
        pis = [Pi(bus, "pi-0"), Pi(bus, "pi-1")]
        for pi in pis:
            metadata = Metadata(name=ObjectName(pi.device), labels={"of": pi.device})
            await self.objects.create(Device(metadata=metadata))
            await pi.introduce()
        groups = tuple(group(pi.device, MaxUnavailable(count=1), of=pi.device) for pi in pis)
        spec = RolloutSpec(artefacts=(artefact(NEW),), groups=groups)
        await self.objects.create(AgentRollout(metadata=Metadata(name=NAME), spec=spec))
        for _ in range(LIMIT):
            if self.operator is None:
                self.start_operator()
            for pi in pis:
                await pi.step()
            busy = sum(pi.phase in PHASES and not pi.upgraded for pi in pis)
            self.most_at_once = max(self.most_at_once, busy)
            if await self._is_over() and all(pi.upgraded for pi in pis):
                return 0
            await self.clock.sleep(STEP)
        return 1

    async def _is_over(self) -> bool:
        rollout = await self.objects.get(AgentRollout, NAME)
        return rollout.status.phase is RolloutPhase.COMPLETE

    def run(self) -> int | None:
        codes: list[int] = []

        async def whole() -> None:
            playing = spawn(self.world.loop, "devices", self.play, lambda _, code: codes.append(code))
            while not codes:
                await self.clock.sleep(Duration.seconds(1))
            assert playing.error is None, playing.traceback
            if self.operator is not None:
                self.operator.kill()

        with self.world:
            self.world.run(whole())
        return codes[0]


def writes_of_a_whole_run() -> list[str]:
    aim = Aim(None)
    assert Stage(aim).run() == 0
    return aim.writes


def test_a_whole_run_has_every_kind_of_write() -> None:
    writes = writes_of_a_whole_run()
    for kind in ("desired", f"create {Lease.kind_name}", f"replace {Lease.kind_name}", "status of", "fleet.stop"):
        assert any(write.startswith(kind) for write in writes), kind


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_write_can_be_the_last_one_of_a_process(chunk: int) -> None:
    for point in range(chunk, 2 * len(writes_of_a_whole_run()), CHUNKS):
        stage = Stage(Aim(point))
        where = f"point {point} ({'after' if point % 2 else 'before'} {stage.aim.writes[point // 2 : point // 2 + 1]})"
        assert stage.run() == 0, where
        assert stage.deaths == 2, where
        assert stage.most_at_once == 1, where
