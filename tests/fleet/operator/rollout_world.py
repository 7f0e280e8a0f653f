"""A small world of buckets, objects and agents around one operator brain, for the tests of its rules.

No simulation of timing: each step is one thing happening, so that a property test can put a crash of the operator
between any two of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fleet.capabilities.bus import Deleted, Entry, Stored
from fleet.capabilities.objects import Applied, InvalidObject, Listing, Removed
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import (
    Architecture,
    AttemptId,
    BootId,
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
    Device,
    MaxUnavailable,
    Metadata,
    Object,
    RolloutGroup,
    RolloutSpec,
    Selector,
)
from fleet.contracts.records import (
    Artefact,
    DeferredUpgrade,
    DesiredAgent,
    DeviceInfo,
    Health,
    Heartbeat,
    InProgress,
    LockGranted,
    LockRequest,
    Record,
    RefusedUpgrade,
    Role,
    RolledBack,
    StopRequest,
    Succeeded,
    UpgradePhase,
    UpgradeState,
    UpgradeStatus,
)
from fleet.contracts.time import Duration, Instant
from fleet.operator.brain import KINDS, Brain
from fleet.operator.events import (
    BucketRead,
    Delete,
    EntrySeen,
    Instruction,
    KeyWriteEnded,
    KindListed,
    ObjectSeen,
    ReadAgain,
    Report,
    SendStop,
    SessionBegan,
    StatusWriteEnded,
    StopEnded,
    Ticked,
    Update,
    WriteStatus,
)
from fleet.operator.fleet_state import READ_BUCKETS
from fleet.operator.ports import OperatorTimings

EPOCH = Instant(1_790_000_000 * 10**9)
OLD = Release(version=Version("1.0.0"), sha256=Sha256("a" * 64))
NEW = Release(version=Version("1.1.0"), sha256=Sha256("b" * 64))
NEWER = Release(version=Version("1.2.0"), sha256=Sha256("c" * 64))
BEAT = Duration.seconds(30)


def artefact(release: Release, architecture: Architecture = Architecture.AARCH64) -> Artefact:
    return Artefact(release=release, architecture=architecture, size=10, url=f"http://127.0.0.1/{release.sha256}")


def group(name: str, limit: MaxUnavailable, **labels: str) -> RolloutGroup:
    return RolloutGroup(name=ObjectName(name), selector=Selector(match_labels=labels), max_unavailable=limit)


@dataclass
class Agent:
    """A device that follows the hand-over protocol, one step at a time."""

    device: DeviceId
    release: Release = OLD
    slot: Slot = Slot.A
    boot: int = 1
    starts: int = 1
    attempt: AttemptId | None = None
    phase: UpgradePhase | None = None
    held: bool = False
    unreported: bool = False
    new: InstanceId | None = None
    quarantined: dict[str, None] = field(default_factory=dict)
    instance: InstanceId = field(init=False)

    def __post_init__(self) -> None:
        self.instance = self.make(self.release)

    def make(self, release: Release) -> InstanceId:
        self.starts += 1
        return InstanceId(
            device=self.device, version=release.version, boot=BootId(f"boot-{self.boot}"), start=self.starts
        )


class World:
    """Buckets, objects and agents around one operator brain."""

    def __init__(self, count: int, limit: MaxUnavailable | None = None) -> None:
        self.timings = OperatorTimings()
        self.now = Instant(0)
        self.buckets: dict[Bucket, dict[str, Entry]] = {bucket: {} for bucket in Bucket}
        self.revisions: dict[Bucket, int] = dict.fromkeys(Bucket, 0)
        self.objects: dict[tuple[str, ObjectName], Object] = {}
        self.broken: dict[tuple[str, str], str] = {}
        self.version = 0
        self.agents = {DeviceId(f"pi-{i}"): Agent(DeviceId(f"pi-{i}")) for i in range(count)}
        self.limit = limit or MaxUnavailable(count=1)
        self.pending: list[Instruction] = []
        self.stops: list[StopRequest] = []
        self.reports: list[str] = []
        self.silent: dict[DeviceId, None] = {}
        self.ailing: dict[DeviceId, None] = {}
        """Devices with a workload that does not run."""
        self.lossy = False
        """The bus pushes nothing to the operator."""
        self.deaf = False
        """No stop reaches any device."""
        self.brain = Brain(self.timings)
        for agent in self.agents.values():
            self.store_object(Device(metadata=Metadata(name=ObjectName(agent.device))))
            self.write(self.info(agent))

    # --- stores

    def info(self, agent: Agent) -> DeviceInfo:
        return DeviceInfo(
            device=agent.device,
            machine_id="m",
            hardware="h",
            operating_system="o",
            architecture=Architecture.AARCH64,
            releases_on_disk=(),
        )

    def put(self, bucket: Bucket, key: str, value: bytes) -> Revision:
        self.revisions[bucket] += 1
        revision = Revision(self.revisions[bucket])
        entry = Stored(bucket, key, revision, value)
        self.buckets[bucket][key] = entry
        if not self.lossy:
            self.take(self.brain.entry(EntrySeen(entry, True, self.now)))
        return revision

    def write(self, record: Record) -> Revision:
        address = layout.address_of(record)
        return self.put(address.bucket, address.key, layout.encode(record))

    def desired(self, device: DeviceId) -> DesiredAgent | None:
        entry = self.buckets[Bucket.DESIRED].get(layout.desired_agent(device).key)
        if not isinstance(entry, Stored):
            return None
        try:
            return layout.decode(DesiredAgent, entry.value)
        except InvalidValue:
            return None

    def store_object(self, item: Object) -> Object:
        self.version += 1
        stored = item.changed(metadata=item.metadata.model_copy(update={"resource_version": str(self.version)}))
        self.objects[item.kind_name, item.name] = stored
        self.tell(ObjectSeen(Applied(stored), self.now))
        return stored

    def remove_object(self, kind: type[Object], name: str) -> None:
        del self.objects[kind.kind_name, ObjectName(name)]
        self.tell(ObjectSeen(Removed(kind.kind_name, ObjectName(name)), self.now))

    def rollout(self, name: str, release: Release, *groups: RolloutGroup, generation: int = 1) -> None:
        spec = RolloutSpec(artefacts=(artefact(release),), groups=groups or (group("all", self.limit),))
        known = self.objects.get(("AgentRollout", ObjectName(name)))
        item = AgentRollout(metadata=Metadata(name=ObjectName(name), generation=generation), spec=spec)
        if isinstance(known, AgentRollout):
            item = item.changed(status=known.status)
        self.store_object(item)

    def plan(self, name: str, spec: RolloutSpec) -> None:
        """A person writes a rollout."""
        self.store_object(AgentRollout(metadata=Metadata(name=ObjectName(name), generation=1), spec=spec))
        self.carry_out()

    def edit(self, name: str, **parts: object) -> None:
        """A person changes parts of a rollout's spec."""
        item = self.status(name)
        metadata = item.metadata.model_copy(update={"generation": item.metadata.generation + 1})
        self.store_object(item.changed(metadata=metadata, spec=item.spec.model_copy(update=parts)))

    def label(self, device: str, **labels: str) -> None:
        """A person gives a device other labels."""
        item = self.device(device)
        self.store_object(item.changed(metadata=item.metadata.model_copy(update={"labels": labels})))

    def status(self, name: str) -> AgentRollout:
        item = self.objects["AgentRollout", ObjectName(name)]
        assert isinstance(item, AgentRollout)
        return item

    def device(self, device: str) -> Device:
        item = self.objects["Device", ObjectName(device)]
        assert isinstance(item, Device)
        return item

    # --- the operator

    def tell(self, event: SessionBegan | BucketRead | KindListed | ObjectSeen | Ticked | KeyWriteEnded) -> None:
        self.take(self.brain.handle(event))

    def take(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Report):
                self.reports.append(instruction.text)
            else:
                self.pending.append(instruction)

    def start(self) -> None:
        """A new operator process: it knows nothing, and reads everything."""
        self.brain, self.pending = Brain(self.timings), []
        self.tell(Ticked(self.now, self.wall, True))
        self.tell(SessionBegan(self.now))
        for bucket in READ_BUCKETS:
            self.read(bucket)
        for kind in KINDS:
            self.list(kind)

    def read(self, bucket: Bucket) -> None:
        entries = tuple(sorted(self.buckets[bucket].values(), key=lambda entry: entry.revision))
        self.tell(BucketRead(bucket, entries, self.brain.state.high[bucket], self.now))

    def list(self, kind: type[Object]) -> None:
        items = tuple(item for (name, _), item in sorted(self.objects.items()) if name == kind.kind_name)
        bad = tuple(InvalidObject(k, n, reason) for (k, n), reason in self.broken.items() if k == kind.kind_name)
        self.tell(KindListed(kind, Listing(items, bad, str(self.version)), self.now))

    @property
    def wall(self) -> Instant:
        return EPOCH + self.now

    def carry_out(self) -> None:
        """Do everything the operator asked for, and everything that follows from it."""
        for _ in range(10_000):
            if not self.pending:
                return
            self.carry_out_one()
        raise AssertionError("the operator never rests")

    def carry_out_one(self) -> None:
        instruction = self.pending.pop(0)
        match instruction:
            case Update(key=key, record=record, last=last):
                if self.last(key) == last:
                    self.put(Bucket.DESIRED, key, layout.encode(record))
                    own = self.buckets[Bucket.DESIRED][key]
                    self.take(self.brain.entry(EntrySeen(own, False, self.now)))
                elif key in self.buckets[Bucket.DESIRED]:
                    self.take(self.brain.entry(EntrySeen(self.buckets[Bucket.DESIRED][key], False, self.now)))
                self.tell(KeyWriteEnded(key, self.now))
            case Delete(key=key, last=last):
                if self.last(key) == last:
                    self.revisions[Bucket.DESIRED] += 1
                    gone = Deleted(Bucket.DESIRED, key, Revision(self.revisions[Bucket.DESIRED]))
                    self.buckets[Bucket.DESIRED][key] = gone
                    self.take(self.brain.entry(EntrySeen(gone, True, self.now)))
                self.tell(KeyWriteEnded(key, self.now))
            case WriteStatus(item=item):
                stands = self.objects.get((item.kind_name, item.name))
                if stands is not None and stands.metadata.resource_version == item.metadata.resource_version:
                    self.store_object(item)
                elif stands is not None:
                    self.tell(ObjectSeen(Applied(stands), self.now))
                self.take(self.brain.handle(StatusWriteEnded(item.kind_name, item.name, self.now)))
            case SendStop(request=request):
                self.stopped(request)
                self.take(self.brain.handle(StopEnded(request.device, self.now)))
            case ReadAgain(bucket=bucket):
                self.read(bucket)
            case Report():
                raise AssertionError("reports are taken apart before")

    def last(self, key: str) -> int:
        entry = self.buckets[Bucket.DESIRED].get(key)
        return entry.revision if isinstance(entry, Stored) else 0

    def pass_time(self, length: Duration) -> None:
        end = self.now + length
        while self.now < end:
            self.now = self.now + self.timings.tick
            self.tell(Ticked(self.now, self.wall, True))
            if self.now % BEAT == 0:
                for device in self.agents:
                    self.beat(device)
            self.carry_out()

    # --- the agents

    def beat(self, device: DeviceId, healthy: bool = True) -> None:
        if device in self.silent:
            return
        agent, healthy = self.agents[device], healthy and device not in self.ailing
        self.write(heartbeat(agent.instance, agent.slot, agent.release, Role.MANAGING, healthy))
        if agent.new is not None:
            desired = self.desired(device)
            release = NEW if desired is None else desired.artefact.release
            self.write(heartbeat(agent.new, agent.slot.other, release, Role.STANDBY, healthy))

    def report(self, agent: Agent, status: UpgradeStatus, reporter: InstanceId | None = None) -> None:
        desired = self.desired(agent.device)
        assert desired is not None
        assert agent.attempt is not None
        state = UpgradeState(
            device=agent.device,
            attempt=agent.attempt,
            release=desired.artefact.release,
            reporter=reporter or agent.instance,
            status=status,
        )
        self.write(state)

    def act(self, device: DeviceId) -> None:
        """One step of an agent."""
        agent, desired = self.agents[device], self.desired(device)
        if desired is None or device in self.silent:
            return
        if agent.phase is None:
            self.begin(agent, desired)
        elif agent.phase is UpgradePhase.LOCKING:
            self.ask(agent, desired)
        elif agent.unreported:
            agent.unreported = False
            self.report(agent, InProgress(phase=UpgradePhase.DRAINING))
        elif agent.phase is UpgradePhase.OVERLAPPING:
            self.finish(agent, desired)
        else:
            phases = list(UpgradePhase)
            agent.phase = phases[phases.index(agent.phase) + 1]
            if agent.phase is UpgradePhase.OVERLAPPING:
                agent.new = agent.make(desired.artefact.release)
            self.report(agent, InProgress(phase=agent.phase))

    def begin(self, agent: Agent, desired: DesiredAgent) -> None:
        if desired.attempt == agent.attempt:
            return
        agent.attempt = desired.attempt
        if desired.lift_quarantine:
            agent.quarantined.pop(desired.artefact.release.sha256, None)
        if desired.artefact.release == agent.release:
            self.report(agent, Succeeded())
        elif desired.artefact.release.sha256 in agent.quarantined:
            self.report(agent, RefusedUpgrade(phase=UpgradePhase.LOCKING, reason="quarantined"))
        else:
            agent.phase = UpgradePhase.LOCKING
            self.report(agent, InProgress(phase=UpgradePhase.LOCKING))

    def ask(self, agent: Agent, desired: DesiredAgent) -> None:
        if desired.attempt != agent.attempt:
            agent.phase = None
            return
        request = LockRequest(device=agent.device, attempt=desired.attempt, instance=agent.instance)
        reply, instructions = self.brain.lock(request, self.now)
        self.take(instructions)
        if reply is not None and isinstance(reply.answer, LockGranted):
            agent.held, agent.phase, agent.unreported = True, UpgradePhase.DRAINING, True

    def finish(self, agent: Agent, desired: DesiredAgent) -> None:
        """The new instance: confirmed, and managing because the old one is gone."""
        if agent.new is None and desired.confirmed == agent.instance:
            self.end(agent, Succeeded())

    def stopped(self, request: StopRequest) -> None:
        """The operator's explicit stop arrives."""
        self.stops.append(request)
        desired, agent = self.desired(request.device), self.agents[request.device]
        assert desired is not None
        assert desired.confirmed == request.successor, "stopped before the successor was confirmed"
        assert request.instance.version != desired.artefact.release.version
        if self.deaf or request.device in self.silent:
            return
        if agent.new is not None and request.instance == agent.instance:
            agent.instance, agent.slot, agent.new = agent.new, agent.slot.other, None
            agent.release = desired.artefact.release
            self.beat(agent.device)

    def end(self, agent: Agent, status: UpgradeStatus) -> None:
        """The attempt ends."""
        self.report(agent, status)
        agent.phase, agent.held, agent.unreported, agent.new = None, False, False, None

    def fail(self, device: DeviceId) -> None:
        """The release is bad on this device."""
        agent, desired = self.agents[device], self.desired(device)
        if agent.phase is UpgradePhase.OVERLAPPING and agent.new is not None and desired is not None:
            agent.quarantined[desired.artefact.release.sha256] = None
            self.end(agent, RolledBack(phase=UpgradePhase.OVERLAPPING, reason="it crashes"))

    def defer(self, device: DeviceId) -> None:
        """The drain took too long."""
        agent = self.agents[device]
        if agent.phase is UpgradePhase.DRAINING:
            self.end(agent, DeferredUpgrade(phase=UpgradePhase.DRAINING, reason="busy"))

    def reboot(self, device: DeviceId) -> None:
        """Power is cut: whatever the link names starts in slot a, as a trial if it is new."""
        agent, desired = self.agents[device], self.desired(device)
        agent.boot += 1
        if agent.new is not None and desired is not None:
            agent.release = desired.artefact.release
        elif agent.phase is not None and agent.phase is not UpgradePhase.OVERLAPPING and agent.held:
            self.end(agent, DeferredUpgrade(phase=agent.phase, reason="power cut"))
        elif agent.phase is UpgradePhase.LOCKING:
            agent.phase, agent.attempt = None, None
        agent.new, agent.slot = None, Slot.A
        agent.instance = agent.make(agent.release)
        self.beat(device)

    def settle(self, hours: int = 1) -> None:
        """Everything goes well from here on."""
        self.silent.clear()
        for _ in range(hours * 12):
            self.pass_time(Duration.minutes(5))
            for device in self.agents:
                for _ in range(4):
                    self.act(device)
                    self.carry_out()

    def hurry(self, minutes: int = 30) -> None:
        """Agents act and beat twice a minute for a while."""
        for _ in range(minutes * 2):
            self.pass_time(BEAT)
            for device in self.agents:
                self.act(device)
                self.carry_out()

    @property
    def holding(self) -> int:
        return sum(agent.held for agent in self.agents.values())


def heartbeat(instance: InstanceId, slot: Slot, release: Release, role: Role, healthy: bool = True) -> Heartbeat:
    return Heartbeat(
        instance=instance,
        slot=slot,
        release=release,
        sent=Instant(0),
        uptime=Duration(0),
        role=role,
        health=Health(workloads=1, healthy=int(healthy), invalid_entries=0),
    )


def started(count: int, limit: MaxUnavailable | None = None) -> World:
    world = World(count, limit)
    world.start()
    world.pass_time(Duration.minutes(1))
    return world


PI = DeviceId("pi-0")


def overlapping() -> World:
    """One device whose new instance has just started."""
    world = started(1)
    world.rollout("r", NEW)
    world.carry_out()
    for _ in range(8):
        world.act(PI)
        world.carry_out()
    assert world.agents[PI].phase is UpgradePhase.OVERLAPPING
    return world
