"""Rollouts, slots, confirmations and stops, judged by what a small world of buckets, objects and agents goes through.

The world here is no simulation of timing: each step is one thing happening, so that a property test can put an
operator crash between any two of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

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
    Percent,
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
    DevicePhase,
    MaxUnavailable,
    Metadata,
    Object,
    RolloutGroup,
    RolloutPhase,
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
    LockDenied,
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
from fleet.operator.rollout import retry_number

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
        agent = self.agents[device]
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
        if isinstance(reply.answer, LockGranted):
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


# --- the path of one device --------------------------------------------------------------------------


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


def test_a_device_is_asked_to_upgrade_once_its_rollout_is_accepted() -> None:
    world = started(1)
    world.rollout("r", NEW)
    world.carry_out()
    desired = world.desired(PI)
    assert desired is not None
    assert (desired.attempt, desired.artefact.release) == (f"r-1-{'b' * 12}", NEW)
    assert (desired.granted, desired.confirmed) == (None, None)
    assert world.status("r").status.sequence == 1


def test_a_slot_is_stored_before_it_is_given() -> None:
    world = started(1)
    world.rollout("r", NEW)
    world.carry_out()
    desired = world.desired(PI)
    assert desired is not None
    request = LockRequest(device=PI, attempt=desired.attempt, instance=world.agents[PI].instance)
    first, instructions = world.brain.lock(request, world.now)
    world.take(instructions)
    assert isinstance(first.answer, LockDenied)
    assert first.answer.retry_after == world.timings.retry
    impatient, _ = world.brain.lock(request, world.now)
    assert isinstance(impatient.answer, LockDenied)
    world.carry_out()
    stored = world.desired(PI)
    assert stored is not None
    assert stored.granted == world.wall
    second, _ = world.brain.lock(request, world.now + Duration.minutes(1))
    assert second.answer == LockGranted(lease=Duration.minutes(59))


def test_one_rollout_ends_in_success() -> None:
    world = started(3)
    world.rollout("r", NEW)
    world.hurry()
    assert [agent.release for agent in world.agents.values()] == [NEW] * 3
    status = world.status("r").status
    assert (status.phase, status.total, status.upgraded, status.failed) == (RolloutPhase.COMPLETE, 3, 3, 0)
    assert world.device("pi-0").status.release == NEW


def test_the_new_instance_is_confirmed_after_enough_heartbeats_over_enough_time() -> None:
    world = overlapping()
    for beats in range(4):
        desired = world.desired(PI)
        assert desired is not None
        assert (desired.confirmed is not None) == (beats >= 3), beats
        world.pass_time(BEAT)


def test_an_unhealthy_heartbeat_starts_the_count_again() -> None:
    world = overlapping()
    world.pass_time(BEAT * 2)
    world.beat(PI, healthy=False)
    world.pass_time(BEAT * 2)
    assert world.desired(PI).confirmed is None  # type: ignore[union-attr]  # the attempt is under way
    world.pass_time(BEAT)
    assert world.desired(PI).confirmed is not None  # type: ignore[union-attr]  # as above


def test_heartbeats_that_were_only_read_do_not_verify_anything() -> None:
    world = overlapping()
    world.pass_time(BEAT * 2)
    for _ in range(5):
        world.start()
        world.carry_out()
        world.now = world.now + BEAT
    assert world.desired(PI).confirmed is None  # type: ignore[union-attr]  # the attempt is under way
    assert not world.stops


def test_heartbeats_of_two_instances_do_not_add_up() -> None:
    world, agent = overlapping(), None
    agent = world.agents[PI]
    for _ in range(6):
        world.pass_time(BEAT * 2)
        agent.new = agent.make(NEW)
    assert world.desired(PI).confirmed is None  # type: ignore[union-attr]  # the attempt is under way


def test_heartbeats_far_apart_do_not_verify() -> None:
    world = overlapping()
    for _ in range(4):
        world.beat(PI)
        world.silent[PI] = None
        world.pass_time(Duration.minutes(3))
        world.silent.clear()
    assert world.desired(PI).confirmed is None  # type: ignore[union-attr]  # the attempt is under way


def test_the_stop_is_repeated_until_the_new_instance_manages() -> None:
    world = overlapping()
    agent = world.agents[PI]
    old = agent.instance
    world.deaf = True
    world.pass_time(BEAT * 4)
    assert {stop.instance for stop in world.stops} == {old}
    assert {stop.successor for stop in world.stops} == {agent.new}
    before = len(world.stops)
    world.pass_time(Duration.minutes(1))
    assert len(world.stops) == before + 6
    assert agent.new is not None
    agent.instance, agent.slot, agent.new, agent.release = agent.new, agent.slot.other, None, NEW
    world.beat(PI)
    before = len(world.stops)
    world.pass_time(Duration.minutes(5))
    assert len(world.stops) == before


def test_no_stop_while_the_confirmed_instance_is_not_heard() -> None:
    world = overlapping()
    agent = world.agents[PI]
    world.deaf = True
    world.pass_time(BEAT * 4)
    agent.new = None
    world.pass_time(Duration.minutes(3))
    before = len(world.stops)
    world.pass_time(Duration.minutes(3))
    assert len(world.stops) == before


def test_an_instance_that_replaces_the_confirmed_one_is_verified_and_confirmed_in_turn() -> None:
    world = overlapping()
    agent = world.agents[PI]
    world.deaf = True
    world.pass_time(BEAT * 4)
    agent.new = agent.make(NEW)
    world.pass_time(BEAT * 4)
    assert world.desired(PI).confirmed == agent.new  # type: ignore[union-attr]  # the attempt is under way


def test_after_a_power_cut_in_the_overlap_the_new_release_is_confirmed_and_nothing_stopped() -> None:
    world = overlapping()
    world.reboot(PI)
    world.pass_time(BEAT * 4)
    assert world.desired(PI).confirmed == world.agents[PI].instance  # type: ignore[union-attr]  # under way
    assert not world.stops
    world.hurry(5)
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_after_a_power_cut_that_follows_the_stop_the_next_instance_is_confirmed_too() -> None:
    world = overlapping()
    world.pass_time(BEAT * 4)
    agent = world.agents[PI]
    assert (agent.new, agent.release) == (None, NEW)
    world.reboot(PI)
    world.hurry(5)
    assert world.desired(PI).confirmed == agent.instance  # type: ignore[union-attr]  # the attempt has ended
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_an_instance_of_an_earlier_boot_is_not_asked_to_stop() -> None:
    world = overlapping()
    agent = world.agents[PI]
    agent.boot += 1
    agent.new = agent.make(NEW)
    world.silent[PI] = None
    for _ in range(8):
        world.pass_time(BEAT)
        world.write(heartbeat(agent.new, Slot.A, NEW, Role.STANDBY))
    assert world.desired(PI).confirmed == agent.new  # type: ignore[union-attr]  # the attempt is under way
    assert not world.stops


def test_a_confirmation_survives_a_restart_of_the_operator() -> None:
    world = overlapping()
    agent = world.agents[PI]
    world.deaf = True
    world.pass_time(BEAT * 4)
    world.deaf = False
    confirmed = world.desired(PI)
    world.start()
    world.pass_time(BEAT * 2)
    assert world.desired(PI) == confirmed
    assert agent.release == NEW


# --- how attempts end --------------------------------------------------------------------------------


def test_a_rolled_back_device_fails_the_rollout_and_is_named() -> None:
    world = overlapping()
    world.fail(PI)
    world.pass_time(Duration.minutes(1))
    status = world.status("r").status
    assert (status.phase, status.failed, status.upgraded) == (RolloutPhase.FAILED, 1, 0)
    assert "pi-0 (rolled back in overlapping: it crashes)" in status.message
    assert not world.stops


def test_a_failed_attempt_is_not_repeated() -> None:
    world = overlapping()
    world.fail(PI)
    before = world.desired(PI)
    world.hurry(60)
    world.start()
    world.hurry(60)
    assert world.desired(PI) == before


def test_a_deferred_attempt_is_made_again_three_times() -> None:
    world = started(1)
    world.rollout("r", NEW)
    seen: dict[str, None] = {}
    for _ in range(120):
        world.pass_time(BEAT)
        world.act(PI)
        world.carry_out()
        world.defer(PI)
        desired = world.desired(PI)
        assert desired is not None
        seen[desired.attempt] = None
    first = f"r-1-{'b' * 12}"
    assert list(seen) == [first, f"{first}-r1", f"{first}-r2", f"{first}-r3"]
    status = world.status("r").status
    assert (status.phase, status.failed) == (RolloutPhase.FAILED, 1)
    assert "deferred 4 times" in status.message


def test_an_attempt_without_an_end_fails_when_its_lease_is_over_and_frees_its_slot() -> None:
    world = started(2)
    world.rollout("r", NEW)
    world.carry_out()
    for _ in range(4):
        world.act(PI)
        world.carry_out()
    assert world.agents[PI].held
    world.silent[PI] = None
    world.pass_time(Duration.minutes(30))
    world.start()
    world.pass_time(Duration.minutes(31))
    assert "pi-0 (no terminal status within 1h)" in world.status("r").status.message
    for _ in range(8):
        world.act(DeviceId("pi-1"))
        world.carry_out()
    assert world.agents[DeviceId("pi-1")].held


def test_a_device_that_falls_back_after_success_counts_as_failed() -> None:
    world = started(1)
    world.rollout("r", NEW)
    world.hurry(15)
    agent = world.agents[PI]
    assert agent.release == NEW
    agent.release, agent.instance = OLD, agent.make(OLD)
    world.pass_time(Duration.minutes(2))
    status = world.status("r").status
    assert (status.phase, status.upgraded, status.failed) == (RolloutPhase.COMPLETE, 0, 1)
    assert "fell back" in status.message


# --- who is next -------------------------------------------------------------------------------------


def test_no_more_than_the_limit_hold_a_slot() -> None:
    world = started(8, MaxUnavailable(percent=Percent(25)))
    world.rollout("r", NEW)
    most = 0
    for _ in range(200):
        world.pass_time(BEAT)
        for device in world.agents:
            world.act(device)
            world.carry_out()
            most = max(most, world.holding)
    assert most == 2
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_groups_go_in_order() -> None:
    world = World(3)
    for name, ring in (("pi-0", "first"), ("pi-1", "second"), ("pi-2", "second")):
        item = world.device(name)
        world.store_object(item.changed(metadata=item.metadata.model_copy(update={"labels": {"ring": ring}})))
    world.start()
    world.pass_time(Duration.minutes(1))
    world.rollout("r", NEW, group("a", world.limit, ring="first"), group("b", world.limit, ring="second"))
    world.carry_out()
    assert [world.desired(device) is not None for device in world.agents] == [True, False, False]
    world.hurry(30)
    assert world.status("r").status.phase is RolloutPhase.COMPLETE
    assert world.status("r").status.upgraded == 3


def test_a_group_in_which_nobody_succeeds_ends_the_rollout() -> None:
    world = World(2)
    item = world.device("pi-0")
    world.store_object(item.changed(metadata=item.metadata.model_copy(update={"labels": {"ring": "first"}})))
    world.start()
    world.pass_time(Duration.minutes(1))
    world.rollout("r", NEW, group("a", world.limit, ring="first"), group("b", world.limit))
    world.carry_out()
    for _ in range(8):
        world.act(PI)
        world.carry_out()
    world.fail(PI)
    world.hurry(30)
    status = world.status("r").status
    assert status.phase is RolloutPhase.FAILED
    assert "stopped after group a" in status.message
    assert world.desired(DeviceId("pi-1")) is None


def test_an_offline_device_is_passed_over_and_upgraded_when_it_comes_back() -> None:
    world = World(3)
    world.silent[PI] = None
    world.start()
    world.rollout("r", NEW)
    world.hurry(40)
    status = world.status("r").status
    assert (status.phase, status.upgraded) == (RolloutPhase.COMPLETE, 2)
    assert "1 offline, to be upgraded when back: pi-0" in status.message
    world.silent.clear()
    world.hurry(20)
    assert world.status("r").status.upgraded == 3
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_a_device_that_is_newly_stale_takes_up_room() -> None:
    world = started(2)
    world.silent[PI] = None
    world.pass_time(Duration.minutes(2))
    world.rollout("r", NEW)
    world.carry_out()
    other = DeviceId("pi-1")
    for _ in range(3):
        world.act(other)
        world.carry_out()
    assert world.agents[other].phase is UpgradePhase.LOCKING
    world.pass_time(world.timings.offline)
    for _ in range(3):
        world.act(other)
        world.carry_out()
    assert world.agents[other].held


def test_a_device_follows_the_rollout_accepted_last() -> None:
    world = started(2)
    world.rollout("zz", NEW)
    world.hurry(20)
    world.rollout("aa", NEWER)
    world.hurry(20)
    assert [agent.release for agent in world.agents.values()] == [NEWER] * 2
    assert "2 follow a later rollout: pi-0 (aa), pi-1 (aa)" in world.status("zz").status.message
    world.start()
    world.hurry(20)
    assert [agent.release for agent in world.agents.values()] == [NEWER] * 2
    world.rollout("zz", NEW, generation=2)
    world.hurry(20)
    assert [agent.release for agent in world.agents.values()] == [NEW] * 2


def test_an_attempt_under_way_is_not_exchanged_for_another() -> None:
    world = overlapping()
    before = world.desired(PI)
    world.rollout("s", NEWER)
    world.pass_time(BEAT)
    assert world.desired(PI) == before
    world.hurry(30)
    assert world.agents[PI].release == NEWER


def test_rolling_back_is_a_rollout_of_the_former_release() -> None:
    world = started(2)
    world.rollout("r", NEW)
    world.hurry(20)
    world.rollout("back", OLD)
    world.hurry(20)
    assert [agent.release for agent in world.agents.values()] == [OLD] * 2
    assert world.status("back").status.phase is RolloutPhase.COMPLETE


def test_an_attempt_under_way_is_brought_to_its_end_without_its_rollout() -> None:
    world = overlapping()
    world.remove_object(AgentRollout, "r")
    world.hurry(10)
    assert world.agents[PI].release == NEW
    assert world.stops


def test_no_slot_for_an_attempt_whose_rollout_is_gone() -> None:
    world = started(1)
    world.rollout("r", NEW)
    world.carry_out()
    world.remove_object(AgentRollout, "r")
    world.hurry(5)
    assert world.agents[PI].phase is UpgradePhase.LOCKING
    assert not world.agents[PI].held


def test_the_next_group_begins_when_the_devices_of_the_one_before_are_deleted() -> None:
    world = World(2)
    item = world.device("pi-0")
    world.store_object(item.changed(metadata=item.metadata.model_copy(update={"labels": {"ring": "first"}})))
    world.start()
    world.pass_time(Duration.minutes(1))
    world.rollout("r", NEW, group("a", world.limit, ring="first"), group("b", world.limit))
    world.carry_out()
    assert world.desired(DeviceId("pi-1")) is None
    world.remove_object(Device, "pi-0")
    world.hurry(20)
    status = world.status("r").status
    assert (status.phase, status.total, status.upgraded) == (RolloutPhase.COMPLETE, 1, 1)


def test_a_device_that_joins_later_is_upgraded_too() -> None:
    world = started(1)
    world.rollout("r", NEW)
    world.hurry(20)
    late = DeviceId("late")
    world.agents[late] = Agent(late)
    world.write(world.info(world.agents[late]))
    world.store_object(Device(metadata=Metadata(name=ObjectName(late))))
    world.hurry(20)
    assert world.agents[late].release == NEW
    assert world.status("r").status.upgraded == 2


def test_no_slot_before_everything_was_read() -> None:
    world = overlapping()
    desired = world.desired(PI)
    assert desired is not None
    request = LockRequest(device=PI, attempt=desired.attempt, instance=world.agents[PI].instance)
    answer = Brain(world.timings).lock(request, world.now)[0].answer
    assert isinstance(answer, LockDenied)
    assert answer.reason == "the operator is starting"


def test_a_device_that_already_runs_the_release_needs_no_attempt() -> None:
    world = started(1)
    world.rollout("r", OLD)
    world.hurry(2)
    assert world.desired(PI) is None
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_a_machine_without_an_artefact_fails() -> None:
    world = World(1)
    world.write(world.info(world.agents[PI]).model_copy(update={"architecture": Architecture.X86_64}))
    world.start()
    world.rollout("r", NEW)
    world.hurry(2)
    assert "no artefact for x86_64" in world.status("r").status.message


def test_artefacts_of_two_versions_are_objected_to() -> None:
    world = started(1)
    spec = RolloutSpec(
        artefacts=(artefact(NEW), artefact(NEWER, Architecture.X86_64)), groups=(group("all", world.limit),)
    )
    world.store_object(AgentRollout(metadata=Metadata(name=ObjectName("r"), generation=1), spec=spec))
    world.pass_time(Duration.minutes(1))
    status = world.status("r").status
    assert status.phase is RolloutPhase.FAILED
    assert "several versions" in status.message
    assert world.desired(PI) is None


def test_a_rollout_without_devices_waits_for_some() -> None:
    world = World(0)
    world.start()
    world.rollout("r", NEW)
    world.pass_time(Duration.minutes(1))
    assert world.status("r").status.phase is RolloutPhase.PENDING
    assert world.status("r").status.message == "no device is selected"


# --- hostile entries and objects ---------------------------------------------------------------------


def test_garbage_over_the_desired_release_is_overwritten_and_told_once() -> None:
    world = started(2)
    world.rollout("r", NEW)
    world.carry_out()
    before = world.desired(PI)
    world.put(Bucket.DESIRED, "pi-0.agent", b"\xff garbage")
    world.carry_out()
    assert world.desired(PI) == before
    assert len(world.reports) == 1
    assert not world.brain.state.problems
    world.hurry(20)
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_garbage_over_the_desired_release_in_the_overlap_survives_a_restart_too() -> None:
    world = overlapping()
    before = world.desired(PI)
    assert before is not None
    world.buckets[Bucket.DESIRED]["pi-0.agent"] = Stored(Bucket.DESIRED, "pi-0.agent", Revision(999), b"garbage")
    world.revisions[Bucket.DESIRED] = 999
    world.start()
    world.carry_out()
    after = world.desired(PI)
    assert after is not None
    assert (after.attempt, after.artefact) == (before.attempt, before.artefact)
    assert after.granted is not None
    world.hurry(10)
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_unreadable_entries_are_told_once_and_heal() -> None:
    world = started(1)
    world.put(Bucket.HEARTBEAT, "nobody.a", b"{}")
    world.put(Bucket.STATE, "x y\udcff", b"")
    world.put(Bucket.STATE, "pi-0.upgrade", b"[]")
    assert len(world.reports) == 3
    world.read(Bucket.STATE)
    world.read(Bucket.HEARTBEAT)
    assert len(world.reports) == 3
    assert len(world.brain.state.problems) == 3
    world.rollout("r", NEW)
    world.hurry(20)
    assert world.agents[PI].release == NEW
    assert (Bucket.STATE, "pi-0.upgrade") not in world.brain.state.problems


def test_an_unreadable_rollout_leaves_its_devices_to_no_other() -> None:
    world = started(1)
    world.rollout("first", OLD)
    world.rollout("second", NEW)
    world.hurry(20)
    before = world.desired(PI)
    del world.objects["AgentRollout", ObjectName("second")]
    world.broken["AgentRollout", "second"] = "not an AgentRollout"
    world.start()
    world.hurry(5)
    assert world.desired(PI) == before


def test_an_unreadable_device_is_left_alone() -> None:
    world = started(1)
    del world.objects["Device", ObjectName("pi-0")]
    world.broken["Device", "pi-0"] = "not a Device"
    world.start()
    world.rollout("r", NEW)
    world.hurry(2)
    assert world.desired(PI) is None


def test_heartbeats_of_unknown_devices_are_counted_and_nothing_else() -> None:
    world = started(1)
    stranger = Agent(DeviceId("stranger"))
    before = list(world.pending)
    for _ in range(3):
        world.write(heartbeat(stranger.instance, Slot.A, OLD, Role.MANAGING))
    assert world.brain.state.unknown_heartbeats == 3
    assert world.pending == before


# --- life --------------------------------------------------------------------------------------------


def test_a_device_is_pending_then_ready_then_stale_then_ready() -> None:
    world = World(1)
    world.silent[PI] = None
    world.start()
    world.pass_time(Duration.minutes(3))
    assert world.device("pi-0").status.phase is DevicePhase.PENDING
    world.silent.clear()
    world.pass_time(BEAT)
    assert world.device("pi-0").status.phase is DevicePhase.READY
    assert world.device("pi-0").status.release == OLD
    world.silent[PI] = None
    world.pass_time(Duration.seconds(90))
    assert world.device("pi-0").status.phase is DevicePhase.READY
    world.pass_time(Duration.seconds(20))
    assert world.device("pi-0").status.phase is DevicePhase.STALE
    world.silent.clear()
    world.pass_time(BEAT)
    assert world.device("pi-0").status.phase is DevicePhase.READY


def test_a_status_is_written_when_it_changes_and_not_with_each_heartbeat() -> None:
    world = started(3)
    world.hurry(1)
    before = world.version
    world.hurry(30)
    assert world.version == before


def test_a_restarted_operator_does_not_doubt_devices_before_it_listened_for_a_while() -> None:
    world = started(1)
    world.start()
    world.silent[PI] = None
    world.pass_time(Duration.seconds(90))
    assert world.device("pi-0").status.phase is DevicePhase.READY
    world.pass_time(Duration.seconds(30))
    assert world.device("pi-0").status.phase is DevicePhase.STALE


def test_nobody_turns_stale_while_the_operator_itself_is_cut_off() -> None:
    world = started(1)
    for _ in range(60):
        world.now = world.now + world.timings.tick
        world.tell(Ticked(world.now, world.wall, False))
    world.tell(SessionBegan(world.now))
    world.pass_time(BEAT)
    assert world.device("pi-0").status.phase is DevicePhase.READY
    assert not any(isinstance(instruction, WriteStatus) for instruction in world.pending)


def test_entries_below_a_revision_already_seen_are_ignored() -> None:
    world = started(1)
    agent = world.agents[PI]
    old = Stored(
        Bucket.HEARTBEAT,
        "pi-0.a",
        Revision(1),
        layout.encode(heartbeat(agent.make(NEW), Slot.A, NEW, Role.MANAGING)),
    )
    world.take(world.brain.entry(EntrySeen(old, True, world.now)))
    world.carry_out()
    assert world.device("pi-0").status.release == OLD


def test_a_bucket_that_lost_its_tail_is_believed_at_the_second_reading() -> None:
    world = started(1)
    world.pass_time(Duration.minutes(10))
    world.buckets[Bucket.HEARTBEAT].clear()
    world.revisions[Bucket.HEARTBEAT] = 0
    agent = world.agents[PI]
    agent.release, agent.instance = NEW, agent.make(NEW)
    world.beat(PI)
    assert world.brain.state.devices[PI].release == OLD
    world.read(Bucket.HEARTBEAT)
    assert any(isinstance(instruction, ReadAgain) for instruction in world.pending)
    world.carry_out()
    assert world.brain.state.devices[PI].release == NEW


def test_retry_numbers() -> None:
    first = AttemptId("r-1-abc")
    assert retry_number(first, first) == 0
    assert retry_number(AttemptId("r-1-abc-r12"), first) == 12
    assert retry_number(AttemptId("r-1-abcd"), first) is None
    assert retry_number(AttemptId("r-1-abc-rx"), first) is None
    assert retry_number(None, first) is None


# --- any interruption --------------------------------------------------------------------------------

STEPS = (
    *("act", "stride", "stride", "stride", "stride", "minute", "minute", "minute", "beat", "write", "time"),
    *("fail", "defer", "reboot", "silence", "crash", "crash", "lose"),
)


def test_a_slot_that_was_given_just_before_a_crash_is_not_given_again() -> None:
    world = started(2)
    world.rollout("r", NEW)
    world.carry_out()
    for _ in range(3):
        world.act(PI)
        world.carry_out()
    assert world.agents[PI].unreported
    world.start()
    for _ in range(4):
        world.act(DeviceId("pi-1"))
        world.carry_out()
    assert world.holding == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3), st.booleans()), min_size=20, max_size=60))
def test_limits_and_order_hold_through_any_crash_and_everything_ends(steps: list[tuple[str, int, bool]]) -> None:
    world = started(4, MaxUnavailable(count=2))
    world.rollout("r", NEW)
    for step, index, flag in steps:
        device = DeviceId(f"pi-{index}")
        match step:
            case "act":
                world.act(device)
            case "stride":
                for _ in range(4):
                    world.act(device)
                    world.carry_out()
            case "beat":
                world.beat(device)
            case "minute":
                world.pass_time(BEAT * 2)
            case "write":
                if world.pending:
                    world.carry_out_one()
            case "time":
                world.now = world.now + BEAT
                world.tell(Ticked(world.now, world.wall, True))
            case "fail":
                world.fail(device)
            case "defer":
                world.defer(device)
            case "reboot":
                world.reboot(device)
            case "silence":
                world.silent.pop(device, None)
                if flag:
                    world.silent[device] = None
            case "lose":
                world.lossy = flag
            case "crash":
                if flag and world.pending:
                    late = world.pending[0]
                    world.start()
                    world.pending.insert(0, late)
                    world.carry_out_one()
                else:
                    world.start()
        assert world.holding <= 2
    world.lossy = False
    for bucket in READ_BUCKETS:
        world.read(bucket)
    world.settle()
    world.hurry(60)
    assert world.holding == 0
    status = world.status("r").status
    assert status.upgraded + status.failed == status.total == 4, status
    assert status.phase in (RolloutPhase.COMPLETE, RolloutPhase.FAILED)
    for agent in world.agents.values():
        assert (agent.release == NEW) != (NEW.sha256 in agent.quarantined or _deferred_out(world, agent))


def _deferred_out(world: World, agent: Agent) -> bool:
    desired = world.desired(agent.device)
    return desired is not None and desired.attempt.endswith("-r3") and agent.release == OLD
