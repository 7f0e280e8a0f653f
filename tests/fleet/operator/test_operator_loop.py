"""The operator's hands on virtual time: a real bus model, a real object store model, and operators that are killed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fleet.capabilities.bus import Bus, Entry, Stored
from fleet.contracts import layout
from fleet.contracts.errors import Conflict, TimedOut
from fleet.contracts.ids import (
    Architecture,
    AttemptId,
    BootId,
    DeploymentName,
    DeviceId,
    InstanceId,
    ObjectName,
    Release,
    Revision,
    Sha256,
    Slot,
    Version,
)
from fleet.contracts.layout import BUCKETS, Bucket
from fleet.contracts.objects import (
    AgentRollout,
    Deployment,
    DeploymentSpec,
    Device,
    DevicePhase,
    MaxUnavailable,
    Metadata,
    RolloutGroup,
    RolloutSpec,
    Selector,
)
from fleet.contracts.permissions import EVERYTHING
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import (
    Artefact,
    ContainerCondition,
    ContainerReport,
    DesiredAgent,
    DesiredWorkload,
    DesiredWorkloads,
    DeviceInfo,
    Health,
    Heartbeat,
    LockDenied,
    LockGranted,
    LockReply,
    LockRequest,
    Record,
    Role,
    WorkloadState,
)
from fleet.contracts.time import ZERO, Duration, Instant
from fleet.operator.loop import run_operator
from fleet.operator.ports import OperatorConfig, OperatorPorts
from sim.clock import SimClock
from sim.nats.client import SimBus
from sim.nats.server import NatsServer
from sim.objects import SimObjects
from sim.process import Process, spawn
from sim.random import SimChance
from sim.world import World

OLD = Release(version=Version("1.0.0"), sha256=Sha256("a" * 64))
NEW = Release(version=Version("1.1.0"), sha256=Sha256("b" * 64))
PI = DeviceId("pi-1")
WEB = DeploymentName("web")


class Control:
    """A control plane with one operator, and a client that plays everything else."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        for node in ("nats", "operator", "tester"):
            self.world.network.add_node(node)
        self.server = NatsServer(self.world.kernel, self.world.network)
        for spec in BUCKETS:
            self.server.ensure_bucket(spec)
        for name in ("operator", "tester"):
            self.server.permit(name, EVERYTHING)
        self.objects = SimObjects(self.world.kernel, self.chance("objects"))
        self.clock = SimClock(self.world.loop)
        self.ended: list[int] = []
        self.processes: list[Process] = []
        self.instance = InstanceId(device=PI, version=OLD.version, boot=BootId("boot-1"), start=1)
        self.wrap: Callable[[Bus], Bus] = lambda bus: bus

    def chance(self, name: str) -> SimChance:
        return SimChance(self.world.streams.stream(name))

    def bus(self, name: str, process: Process) -> SimBus:
        return SimBus(self.server, name, name, process, self.chance(f"bus/{name}"))

    def operator(self) -> Process:
        async def main(process: Process) -> int:
            bus = self.wrap(self.bus("operator", process))
            ports = OperatorPorts(self.clock, self.chance("operator"), bus, self.objects)
            return await run_operator(ports, OperatorConfig(), process.stop)

        process = spawn(self.world.loop, "operator", main, lambda process, code: self.ended.append(code))
        self.processes.append(process)
        return process

    def run(self, story: Callable[[SimBus], Coroutine[Any, Any, None]]) -> tuple[int, ...]:
        """Run a story with the tester's own bus to its end; answers the exit codes of operators that ended in it."""
        done: list[BaseException | None] = []

        async def main(process: Process) -> int:
            bus = self.bus("tester", process)
            await self.clock.sleep(Duration.seconds(1))
            await story(bus)
            return 0

        async def whole() -> None:
            process = spawn(self.world.loop, "tester", main, lambda ended, code: done.append(ended.error))
            while not done:
                await self.clock.sleep(Duration.seconds(1))
            assert process.error is None, process.traceback
            codes.extend(self.ended)
            for operator in self.processes:
                operator.kill()

        codes: list[int] = []
        with self.world:
            self.world.run(whole())
        return tuple(codes)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.sleep(Duration.seconds(seconds))

    async def device(self, bus: Bus, name: DeviceId = PI) -> None:
        await self.objects.create(Device(metadata=Metadata(name=ObjectName(name))))
        info = DeviceInfo(
            device=name,
            machine_id="m",
            hardware="h",
            operating_system="o",
            architecture=Architecture.AARCH64,
            releases_on_disk=(OLD,),
        )
        await write(bus, info)
        await self.beat(bus)

    async def beat(self, bus: Bus) -> None:
        beat = Heartbeat(
            instance=self.instance,
            slot=Slot.A,
            release=OLD,
            sent=Instant(0),
            uptime=ZERO,
            role=Role.MANAGING,
            health=Health(workloads=0, healthy=0, invalid_entries=0),
        )
        await write(bus, beat)

    async def rollout(self) -> None:
        artefact = Artefact(release=NEW, architecture=Architecture.AARCH64, size=1, url="http://127.0.0.1/x")
        group = RolloutGroup(name=ObjectName("all"), max_unavailable=MaxUnavailable(count=1))
        spec = RolloutSpec(artefacts=(artefact,), groups=(group,))
        await self.objects.create(AgentRollout(metadata=Metadata(name=ObjectName("r")), spec=spec))

    async def deploy(self, image: str, **labels: str) -> None:
        score = PodmanScore(containers=(Container(name=WEB, image=image),))
        spec = DeploymentSpec(selector=Selector(match_labels=labels), score=score)
        await self.objects.create(Deployment(metadata=Metadata(name=ObjectName(WEB)), spec=spec))

    async def phase(self) -> DevicePhase:
        return (await self.objects.get(Device, ObjectName(PI))).status.phase


async def write(bus: Bus, record: Record) -> Revision:
    address = layout.address_of(record)
    return await bus.put(address.bucket, address.key, layout.encode(record))


async def read(bus: Bus, address: layout.Address[layout.R]) -> layout.R | None:
    entry = await bus.get(address.bucket, address.key)
    return layout.decode(address.record, entry.value) if isinstance(entry, Stored) else None


@pytest.fixture
def control() -> Control:
    return Control()


def test_a_device_becomes_ready_and_stale(control: Control) -> None:
    async def story(bus: SimBus) -> None:
        control.operator()
        await control.pass_time(5)
        await control.device(bus)
        await control.pass_time(2)
        assert await control.phase() is DevicePhase.READY
        await control.pass_time(120)
        assert await control.phase() is DevicePhase.STALE

    assert control.run(story) == ()


def test_a_lock_request_is_granted_after_the_grant_was_stored(control: Control) -> None:
    async def story(bus: SimBus) -> None:
        control.operator()
        await control.device(bus)
        await control.rollout()
        await control.pass_time(5)
        desired = await read(bus, layout.desired_agent(PI))
        assert desired is not None
        request = layout.encode(LockRequest(device=PI, attempt=desired.attempt, instance=control.instance))
        answers = []
        for _ in range(2):
            answer = await bus.request(layout.lock(PI).name, request, Duration.seconds(5))
            answers.append(type(layout.decode(LockReply, answer).answer))
            await control.pass_time(2)
        assert answers == [LockDenied, LockGranted]
        stored = await read(bus, layout.desired_agent(PI))
        assert stored is not None
        assert stored.granted is not None

    control.run(story)


def test_nonsense_and_requests_in_the_name_of_others_are_not_answered(control: Control) -> None:
    async def story(bus: SimBus) -> None:
        control.operator()
        await control.device(bus)
        await control.pass_time(5)
        other = LockRequest(device=DeviceId("other"), attempt=AttemptId("x"), instance=control.instance)
        for payload in (b"\xff\x00", b"", b"{}", layout.encode(other)):
            with pytest.raises(TimedOut):
                await bus.request(layout.lock(PI).name, payload, Duration.seconds(5))

    assert control.run(story) == ()


def test_workloads_are_placed_counted_and_taken_away(control: Control) -> None:
    async def story(bus: SimBus) -> None:
        control.operator()
        await control.device(bus)
        await control.deploy("web:1")
        await control.pass_time(3)
        workload = await read(bus, layout.desired_workload(PI, WEB))
        assert isinstance(workload, DesiredWorkload)
        assert workload.score.containers[0].image == "web:1"
        index = await read(bus, layout.desired_workloads(PI))
        assert index == DesiredWorkloads(device=PI, deployments=(WEB,))
        entry = await bus.get(Bucket.DESIRED, layout.desired_workload(PI, WEB).key)
        assert entry is not None
        report = ContainerReport(name=WEB, image="web:1", condition=ContainerCondition.RUNNING)
        await write(bus, WorkloadState(device=PI, deployment=WEB, desired=entry.revision, containers=(report,)))
        await control.pass_time(15)
        status = (await control.objects.get(Deployment, ObjectName(WEB))).status
        assert (status.observed_generation, status.desired, status.ready) == (1, 1, 1)
        await control.objects.delete(Deployment, ObjectName(WEB))
        await control.pass_time(3)
        assert await read(bus, layout.desired_workload(PI, WEB)) is None
        assert await read(bus, layout.desired_workloads(PI)) == DesiredWorkloads(device=PI, deployments=())

    control.run(story)


def test_a_killed_operator_goes_on_where_it_was(control: Control) -> None:
    async def story(bus: SimBus) -> None:
        first = control.operator()
        await control.device(bus)
        await control.rollout()
        await control.pass_time(0.05)
        first.kill()
        await control.pass_time(5)
        control.operator()
        await control.pass_time(15)
        desired = await read(bus, layout.desired_agent(PI))
        assert isinstance(desired, DesiredAgent)
        assert desired.artefact.release == NEW

    assert control.run(story) == (-9,)


def test_the_operator_ends_in_order(control: Control) -> None:
    async def story(bus: SimBus) -> None:
        process = control.operator()
        await control.device(bus)
        await control.pass_time(5)
        process.terminate()
        await control.pass_time(1)

    assert control.run(story) == (0,)


def test_hostile_entries_do_not_end_it_and_others_are_served(control: Control) -> None:
    async def story(bus: SimBus) -> None:
        control.operator()
        for bucket in (Bucket.DESIRED, Bucket.STATE, Bucket.INFO, Bucket.HEARTBEAT):
            for key in (b"pi-1.agent", b"pi-1.a", b"pi-1", b"pi-1.upgrade", b"\xff\xfe", b"UPPER.agent"):
                control.server.store_raw(bucket, key, b"\x00\xffgarbage")
        await control.pass_time(5)
        await control.device(bus)
        await control.rollout()
        await control.pass_time(5)
        desired = await read(bus, layout.desired_agent(PI))
        assert desired is not None
        assert await control.phase() is DevicePhase.READY
        for bucket in (Bucket.DESIRED, Bucket.STATE, Bucket.INFO, Bucket.HEARTBEAT):
            control.server.store_raw(bucket, b"pi-1.agent", b"again")
        await control.pass_time(5)
        assert await read(bus, layout.desired_agent(PI)) == desired

    assert control.run(story) == ()


def test_a_restart_of_the_bus_and_of_the_object_store_is_survived(control: Control) -> None:
    async def story(bus: SimBus) -> None:
        control.operator()
        await control.pass_time(1)
        await control.device(bus)
        await control.pass_time(5)
        control.server.stop()
        control.objects.stop()
        await control.pass_time(60)
        control.server.start()
        control.objects.start()
        await control.pass_time(10)
        assert await control.phase() is DevicePhase.READY
        await control.rollout()
        await control.pass_time(5)
        assert await read(bus, layout.desired_agent(PI)) is not None

    assert control.run(story) == ()


class Unsure:
    """A bus whose first conditional writes land although they fail as if they had not."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.failures = 4

    def __getattr__(self, name: str) -> object:
        return getattr(self._bus, name)

    async def update(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> Revision:
        self.failures -= 1
        if self.failures == 3:
            raise TimedOut("lost")
        if self.failures == 2:
            raise Conflict("someone was faster")
        revision = await self._bus.update(bucket, key, value, last)
        if self.failures > 0:
            raise TimedOut("landed")
        return revision


def test_a_write_of_unknown_outcome_is_looked_at_and_done_once(control: Control) -> None:
    control.wrap = lambda bus: Unsure(bus)  # type: ignore[assignment,return-value]  # the rest is forwarded

    async def story(bus: SimBus) -> None:
        seen: list[Entry] = []
        bus.listen(Bucket.DESIRED, "", seen.append)
        control.operator()
        await control.device(bus)
        await control.rollout()
        await control.pass_time(30)
        assert [entry.key for entry in seen] == ["pi-1.agent"]

    control.run(story)


def test_a_defect_ends_the_process_with_code_1(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fleet.operator.brain.FleetState.fold", broken)

    async def story(bus: SimBus) -> None:
        control.operator()
        await control.pass_time(5)
        await control.device(bus)
        await control.pass_time(5)

    assert control.run(story) == (1,)
