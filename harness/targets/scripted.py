"""A target whose fleet is a script: it writes the journal that a correct system would write, and can be bent.

It proves the harness without the system: the runner, the checks and the invariants are tested on it, and so are their
planted bugs. `Story` writes events, one method per thing that happens; `ScriptedTarget` runs a coroutine over a
session whose operator and devices are such stories on virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

from fleet.capabilities.objects import Objects
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue, NotFound
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
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import (
    AgentRollout,
    Deployment,
    DeploymentStatus,
    Device,
    DevicePhase,
    DeviceStatus,
    Metadata,
    Object,
    RolloutPhase,
    RolloutStatus,
)
from fleet.contracts.podman import PodmanScore
from fleet.contracts.records import (
    Artefact,
    ContainerCondition,
    ContainerReport,
    DesiredAgent,
    DesiredWorkload,
    Health,
    Heartbeat,
    InProgress,
    Record,
    Role,
    StopRequest,
    Succeeded,
    UpgradePhase,
    UpgradeState,
    UpgradeStatus,
    WorkloadState,
)
from fleet.contracts.time import Duration, Instant
from harness.faults import Fault, KillOperator, WriteRaw
from harness.targets.port import FleetPlan, IdentityDesk, Need, SecretDesk, Session
from harness.view import fingerprint
from sim.clock import SimClock
from sim.journal import (
    AgentEnded,
    AgentStarted,
    ContainerStarted,
    CurrentRelease,
    HeartbeatStored,
    Journal,
    KvStored,
    LockLeft,
    LockTaken,
    ObjectRemoved,
    ObjectStored,
    OperatorEnded,
    OperatorStarted,
    ReleasesOnDisk,
    RequestSent,
)
from sim.world import World

T = TypeVar("T")
BEAT = Duration.seconds(30)


def release_of(version: str) -> Release:
    """A release with a digest that follows from its version."""
    return Release(version=Version(version), sha256=Sha256(sha256(version.encode()).hexdigest()))


def artefact_of(version: str) -> Artefact:
    """That release as a rollout names it."""
    release = release_of(version)
    url = f"http://127.0.0.1/{release.sha256}"
    return Artefact(release=release, architecture=Architecture.AARCH64, size=1000, url=url)


@dataclass
class Story:
    """Writes what happens, at the time that `now` says."""

    journal: Journal
    now: Callable[[], Instant]
    revision: int = 0
    starts: int = 0
    disk: dict[DeviceId, tuple[Release, ...]] = field(default_factory=dict)
    slots: dict[DeviceId, Slot] = field(default_factory=dict)
    instances: dict[tuple[DeviceId, Slot], tuple[InstanceId, Release]] = field(default_factory=dict)

    def put(self, bucket: Bucket, key: str, value: bytes, writer: str) -> Revision:
        """A write is accepted."""
        self.revision += 1
        kind = HeartbeatStored if bucket is Bucket.HEARTBEAT else KvStored
        self.journal.record(kind(self.now(), bucket, key, Revision(self.revision), writer, value))
        return Revision(self.revision)

    def write(self, record: Record, writer: str | None = None) -> Revision:
        """A record is stored by whom it belongs to."""
        address = layout.address_of(record)
        owner = "operator" if address.bucket is Bucket.DESIRED else address.key.split(".", 1)[0]
        return self.put(address.bucket, address.key, layout.encode(record), writer or owner)

    def store(self, item: Object) -> None:
        """An object is stored."""
        value = item.model_dump_json(by_alias=True).encode()
        self.journal.record(ObjectStored(self.now(), item.kind_name, item.name, value))

    def operator(self) -> None:
        """The operator starts."""
        self.journal.record(OperatorStarted(self.now(), 0))

    def start(self, device: DeviceId, slot: Slot, release: Release) -> InstanceId:
        """An agent process starts in a slot."""
        self.starts += 1
        instance = InstanceId(device=device, version=release.version, boot=BootId("boot-1"), start=self.starts)
        self.instances[device, slot] = (instance, release)
        self.journal.record(AgentStarted(self.now(), device, slot, release))
        return instance

    def disk_gets(self, device: DeviceId, release: Release) -> None:
        """A release is complete on the disk."""
        known = self.disk.get(device, ())
        self.disk[device] = known if release in known else (*known, release)
        self.journal.record(ReleasesOnDisk(self.now(), device, self.disk[device]))

    def link(self, device: DeviceId, release: Release | None, broken: str = "") -> None:
        """The current link moves."""
        self.journal.record(CurrentRelease(self.now(), device, release, broken))

    def lock(self, device: DeviceId, slot: Slot) -> None:
        """An instance takes the host lock."""
        self.slots[device] = slot
        self.journal.record(LockTaken(self.now(), device, slot))

    def leave(self, device: DeviceId, slot: Slot, code: int = 0) -> None:
        """The instance in a slot ends."""
        self.journal.record(LockLeft(self.now(), device, slot))
        self.journal.record(AgentEnded(self.now(), device, slot, code))

    def phase(self, device: DeviceId, phase: DevicePhase) -> None:
        """The operator makes up its mind about a device."""
        item = Device(metadata=Metadata(name=ObjectName(device)), status=DeviceStatus(phase=phase))
        self.store(item)

    def boot(self, device: DeviceId, version: str) -> None:
        """A device comes up with its first release."""
        release = release_of(version)
        self.disk_gets(device, release)
        self.link(device, release)
        self.start(device, Slot.A, release)
        self.lock(device, Slot.A)
        self.beat(device, Slot.A)
        self.phase(device, DevicePhase.READY)

    def beat(self, device: DeviceId, slot: Slot, writer: str | None = None, invalid: int = 0) -> None:
        """A heartbeat of the instance in a slot."""
        instance, release = self.instances[device, slot]
        role = Role.MANAGING if self.slots.get(device) is slot else Role.STANDBY
        health = Health(workloads=0, healthy=0, invalid_entries=invalid)
        at = self.now()
        beat = Heartbeat(
            instance=instance, slot=slot, release=release, sent=at, uptime=Duration(0), role=role, health=health
        )
        self.write(beat, writer)

    def desire(
        self,
        device: DeviceId,
        attempt: str,
        version: str,
        confirmed: InstanceId | None = None,
        granted: Instant | None = None,
    ) -> Revision:
        """The operator asks for a release, gives the slot for it, or confirms it."""
        record = DesiredAgent(
            device=device,
            attempt=AttemptId(attempt),
            artefact=artefact_of(version),
            granted=granted,
            confirmed=confirmed,
        )
        return self.write(record)

    def report(self, device: DeviceId, attempt: str, version: str, status: UpgradeStatus) -> None:
        """The device reports its upgrade."""
        reporter = self.instances[device, self.slots[device]][0]
        self.write(
            UpgradeState(
                device=device,
                attempt=AttemptId(attempt),
                release=release_of(version),
                reporter=reporter,
                status=status,
            )
        )

    def stop(self, device: DeviceId, attempt: str, old: InstanceId, new: InstanceId) -> None:
        """The operator tells an instance to stop."""
        request = StopRequest(device=device, instance=old, successor=new, attempt=AttemptId(attempt))
        self.journal.record(RequestSent(self.now(), f"fleet.stop.{device}", "operator", layout.encode(request)))

    def deploy(self, device: DeviceId, name: str, score: PodmanScore) -> None:
        """A workload is desired, runs and is reported."""
        deployment = DeploymentName(name)
        desired = self.write(DesiredWorkload(device=device, deployment=deployment, score=score))
        for container in score.containers:
            self.journal.record(ContainerStarted(self.now(), device, name, container.name, fingerprint(container)))
        reports = tuple(
            ContainerReport(name=item.name, image=item.image, condition=ContainerCondition.RUNNING)
            for item in score.containers
        )
        self.write(WorkloadState(device=device, deployment=deployment, desired=desired, containers=reports))

    async def upgrade(
        self,
        device: DeviceId,
        attempt: str,
        version: str,
        sleep: Callable[[Duration], Awaitable[None]],
        beats: int = 3,
    ) -> None:
        """One hand-over, as the protocol has it."""
        old_slot = self.slots[device]
        old, new_slot, release = self.instances[device, old_slot][0], old_slot.other, release_of(version)
        self.desire(device, attempt, version)
        self.report(device, attempt, version, InProgress(phase=UpgradePhase.LOCKING))
        granted = self.now()
        self.desire(device, attempt, version, granted=granted)
        await sleep(Duration.seconds(1))
        for phase in (UpgradePhase.DRAINING, UpgradePhase.STAGING):
            self.report(device, attempt, version, InProgress(phase=phase))
            await sleep(Duration.seconds(1))
        self.disk_gets(device, release)
        self.report(device, attempt, version, InProgress(phase=UpgradePhase.SWAPPING))
        self.link(device, release)
        new = self.start(device, new_slot, release)
        self.report(device, attempt, version, InProgress(phase=UpgradePhase.OVERLAPPING))
        for _ in range(beats):
            self.beat(device, new_slot)
            await sleep(BEAT)
        self.desire(device, attempt, version, new, granted)
        self.stop(device, attempt, old, new)
        self.leave(device, old_slot)
        self.lock(device, new_slot)
        self.report(device, attempt, version, Succeeded())


# --- a target ----------------------------------------------------------------------------------------


class ScriptedObjects:
    """Objects in a dictionary; what is written sets the scripted operator off."""

    def __init__(self, session: ScriptedSession) -> None:
        self._session = session
        self.items: dict[tuple[str, str], Object] = {}
        self.before: Callable[[], None] = lambda: None
        """Called before each read: may raise what a store raises."""

    async def get(self, kind: type[Object], name: ObjectName) -> Object:
        """See `Objects.get`."""
        self.before()
        if (kind.kind_name, name) not in self.items:
            raise NotFound(f"{kind.kind_name} {name}")
        return self.items[kind.kind_name, name]

    async def create(self, item: Object) -> Object:
        """See `Objects.create`."""
        return self.put(item.changed(metadata=item.metadata.model_copy(update={"generation": 1})))

    async def replace(self, item: Object) -> Object:
        """See `Objects.replace`."""
        generation = item.metadata.generation + 1
        return self.put(item.changed(metadata=item.metadata.model_copy(update={"generation": generation})))

    async def delete(self, kind: type[Object], name: ObjectName) -> None:
        """See `Objects.delete`."""
        await self.get(kind, name)
        del self.items[kind.kind_name, name]
        session = self._session
        session.journal.record(ObjectRemoved(session.clock.monotonic(), kind.kind_name, name))

    def put(self, item: Object) -> Object:
        """The user's write is stored, and acted upon."""
        self.items[item.kind_name, item.name] = item
        self._session.story.store(item)
        self._session.act(item)
        return item

    def status(self, item: Object) -> None:
        """The operator's write of a status."""
        self.items[item.kind_name, item.name] = item
        self._session.story.store(item)


class NoSecrets:
    """A SecretDesk of an installation that has none."""

    async def install(self, at_once: int) -> None:
        """See `SecretDesk`."""
        raise InvalidValue("the scripted fleet has no secrets")

    async def rotate(self, secret: ObjectName) -> None:
        """See `SecretDesk`."""
        raise InvalidValue("the scripted fleet has no secrets")

    async def search(self) -> None:
        """See `SecretDesk`."""

    def shown_in(self, text: str) -> tuple[str, ...]:
        """See `SecretDesk`."""
        return ()


class ScriptedSession:
    """A fleet that does what it should, unless `bend` says otherwise."""

    def __init__(self, plan: FleetPlan, world: World, target: ScriptedTarget) -> None:
        self.plan = plan
        self.clock = SimClock(world.loop)
        self.journal = Journal()
        self.story = Story(self.journal, self.clock.monotonic)
        self.store = ScriptedObjects(self)
        self.target = target
        self.tasks: list[asyncio.Task[None]] = []
        self.desk: SecretDesk = NoSecrets()

    @property
    def objects(self) -> Objects:
        return self.store  # type: ignore[return-value]  # the methods that the harness uses

    @property
    def identities(self) -> IdentityDesk:
        raise InvalidValue("the scripted devices have no identities")

    @property
    def secrets(self) -> SecretDesk:
        return self.desk

    def artefacts(self, version: Version) -> tuple[Artefact, ...]:
        return (artefact_of(version),)

    async def start(self) -> None:
        self.story.operator()
        for device in self.plan.devices:
            self.story.boot(device, self.plan.installed)
        self.target.bend(self)

    def later(self, after: Duration, action: Callable[[], object]) -> None:
        """Do something that the script did not foresee."""

        async def wait() -> None:
            await self.clock.sleep(after)
            action()

        self.tasks.append(asyncio.get_running_loop().create_task(wait()))

    async def inject(self, fault: Fault) -> Callable[[], Awaitable[None]] | None:
        self.target.injected.append(fault)
        match fault:
            case KillOperator():
                self.journal.record(OperatorEnded(self.clock.monotonic(), 0, -9))

                async def again() -> None:
                    self.story.operator()

                return again
            case WriteRaw():
                self.story.put(fault.bucket, fault.key.decode("utf-8", "surrogateescape"), fault.value, "harness")
                return None
            case _:
                raise NotFound("there is nothing to hit")

    async def settle(self) -> None:
        """Everything is recorded at once."""

    def act(self, item: Object) -> None:
        """The scripted operator and devices begin to do what an object asks for."""
        loop = asyncio.get_running_loop()
        match item:
            case AgentRollout():
                self.tasks.append(loop.create_task(self._roll(item)))
            case Deployment():
                self.tasks.append(loop.create_task(self._place(item)))
            case _:
                return

    async def _place(self, item: Deployment) -> None:
        await self.clock.sleep(Duration.seconds(2))
        labels = dict(zip(self.plan.devices, self.plan.labels, strict=True))
        chosen = [device for device, pairs in labels.items() if item.spec.selector.matches(pairs)]
        for device in chosen:
            self.story.deploy(device, item.name, item.spec.score)
        status = DeploymentStatus(observed_generation=item.metadata.generation, desired=len(chosen), ready=len(chosen))
        self.store.status(item.changed(status=status))

    async def _roll(self, item: AgentRollout) -> None:
        artefact = item.spec.artefacts[0].release
        attempt = f"{item.name}-1-{artefact.sha256.short}"
        for index, device in enumerate(self.plan.devices, 1):
            await self.story.upgrade(device, attempt, artefact.version, self.clock.sleep)
            done = index == len(self.plan.devices)
            status = RolloutStatus(
                observed_generation=item.metadata.generation,
                phase=RolloutPhase.COMPLETE if done else RolloutPhase.PROGRESSING,
                total=len(self.plan.devices),
                upgraded=index,
            )
            self.store.status(item.changed(status=status))


def straight(session: ScriptedSession) -> None:
    """Nothing goes wrong."""


@dataclass
class ScriptedTarget:
    """Runs sessions of the scripted fleet on virtual time."""

    bend: Callable[[ScriptedSession], None] = straight
    name: str = "scripted"
    default_devices: int | None = None
    cannot: dict[type[Fault], str] = field(default_factory=dict)
    lacks: dict[Need, str] = field(default_factory=dict)
    injected: list[Fault] = field(default_factory=list)
    runs: int = 0

    def run(self, plan: FleetPlan, seed: int, main: Callable[[Session], Awaitable[T]]) -> T:
        """As the port says."""
        self.runs += 1
        with World(seed) as world:

            async def body() -> T:
                session = ScriptedSession(plan, world, self)
                try:
                    return await main(session)
                finally:
                    for task in session.tasks:
                        task.cancel()
                    await asyncio.gather(*session.tasks, return_exceptions=True)

            return world.run(body())


def target() -> ScriptedTarget:
    """For the registry of targets."""
    return ScriptedTarget()
