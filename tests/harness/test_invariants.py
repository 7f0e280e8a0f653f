"""Each invariant catches its planted bug and passes the same story without it; none is forgotten."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import harness.invariants
from fleet.contracts import layout
from fleet.contracts.ids import AttemptId, BootId, DeviceId, InstanceId, ObjectName, Percent, Revision, Slot, Version
from fleet.contracts.layout import Bucket
from fleet.contracts.lease import OPERATOR_LEASE, Lease, LeaseSpec, micro_time
from fleet.contracts.objects import (
    AgentRollout,
    Cloned,
    Device,
    DevicePhase,
    DeviceStatus,
    GroupPhase,
    GroupStatus,
    MaxUnavailable,
    Metadata,
    RolloutGroup,
    RolloutPhase,
    RolloutSpec,
    RolloutStatus,
    Selector,
)
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import (
    Admitted,
    DesiredAgent,
    DesiredWorkload,
    Enrolment,
    InProgress,
    RefusedUpgrade,
    Revoked,
    RolledBack,
    Succeeded,
    UpgradePhase,
    WorkloadState,
)
from fleet.contracts.time import Duration, Instant
from harness.convergence import Convergence, rollout_of
from harness.invariants import ALL, Ground, Invariant
from harness.scenario import Cast, parse
from harness.targets.scripted import BEAT, Story, artefact_of, release_of
from harness.view import FleetView
from sim.journal import (
    AgentEnded,
    ContainerCrashed,
    ContainerEnded,
    ContainerStarted,
    CopyMade,
    CurrentRelease,
    FaultInjected,
    FileDamaged,
    ForeignRead,
    InstallRefused,
    Journal,
    KvDeleted,
    KvStored,
    LockLeft,
    LockTaken,
    OperatorEnded,
    OperatorStarted,
    PhaseEntered,
    PowerCut,
    PowerRestored,
    QuarantineMarks,
    ReleasesOnDisk,
    ReleasesUnsettled,
    RequestSent,
    SecretDamaged,
    SecretMended,
    SecretRotated,
    SecretShown,
    SecretsInstalled,
    SecretStands,
)

SCENARIO: Final = """\
schema = 1
installed = "1.0.0"
scenario = { name = "t", proves = "the test" }
fleet = { devices = 4, groups = [{ name = "pair", percent = 50 }] }
releases = [{ version = "1.0.0" }, { version = "1.1.0" }]
checks = [{ check = "final", that = { fact = "device-phase", phase = "Ready", over = "all" } }]
"""
KILL: Final = '[[faults]]\nfault = "kill-operator"\ndown = "1s"\nat = "1s"\n'
STOP: Final = KILL.replace("kill-", "stop-")
CUT_OFF: Final = '[[faults]]\nfault = "isolate-operator"\nlength = "1m"\nat = "1s"\n'
ONE, TWO, THREE = DeviceId("device-001"), DeviceId("device-002"), DeviceId("device-003")
COPY = DeviceId("device-001-copy")
OLD, NEW = release_of("1.0.0"), release_of("1.1.0")
ATTEMPT: Final = f"move-1-{NEW.sha256.short}"
SCORE = PodmanScore(containers=(Container(name="front", image="i:1"), Container(name="back", image="b:1")))  # type: ignore[arg-type]  # parsed


@dataclass
class Bench:
    """One invariant over a journal that is written by hand. Every device is up."""

    cast: Cast
    journal: Journal
    story: Story
    found: list[str]
    invariant: Invariant
    time: list[int]

    @property
    def now(self) -> Instant:
        return Instant(self.time[0])

    def wait(self, length: Duration) -> None:
        self.time[0] += length

    async def sleep(self, length: Duration) -> None:
        self.wait(length)

    def upgrade(self, device: DeviceId, beats: int = 3) -> None:
        """A whole hand-over."""
        _finish(self.story.upgrade(device, ATTEMPT, "1.1.0", self.sleep, beats))

    def rollout(self, phase: RolloutPhase, limit: int = 1, passed: tuple[str, ...] = ()) -> None:
        spec = RolloutSpec(
            artefacts=(artefact_of("1.1.0"),),
            groups=(
                RolloutGroup(
                    name=ObjectName("pair"),
                    selector=Selector(match_labels={"group": "pair"}),
                    max_unavailable=MaxUnavailable(count=limit),
                ),
                RolloutGroup(name=ObjectName("all"), max_unavailable=MaxUnavailable(percent=Percent(50))),
            ),
        )
        groups = tuple(GroupStatus(name=ObjectName(name), phase=GroupPhase.PASSED) for name in passed)
        status = RolloutStatus(observed_generation=1, sequence=len(passed), phase=phase, total=4, groups=groups)
        metadata = Metadata(name=ObjectName("move"), generation=1)
        self.story.store(AgentRollout(metadata=metadata, spec=spec, status=status))

    def begin(self, device: DeviceId, phase: UpgradePhase = UpgradePhase.DRAINING) -> None:
        self.story.report(device, ATTEMPT, "1.1.0", InProgress(phase=phase))

    def end(self, device: DeviceId, attempt: str = ATTEMPT) -> None:
        rolled = RolledBack(phase=UpgradePhase.OVERLAPPING, reason="silent")
        self.story.report(device, attempt, "1.1.0", rolled)

    def finish(self) -> None:
        self.invariant.finish()


def _finish(work: Awaitable[None]) -> None:
    """Run a coroutine that never really waits."""
    steps = work.__await__()
    with pytest.raises(StopIteration):
        next(steps)


def make(kind: type[Invariant], more: str = "") -> Bench:
    cast, journal = parse(SCENARIO + more, Path("t.toml")).cast(), Journal()
    found: list[str] = []
    time = [0]

    def report(rule: str, evidence: str, device: DeviceId | None) -> None:
        assert rule == kind.name
        found.append(evidence)

    view = FleetView(cast.devices, journal)
    invariant = kind(Ground(cast, view, Convergence(cast, view), report))
    invariant.subscribe(journal)
    bench = Bench(cast, journal, Story(journal, lambda: Instant(time[0])), found, invariant, time)
    bench.story.operator()
    for device in cast.devices:
        bench.story.boot(device, "1.0.0")
    return bench


Tale = Callable[[Bench], None]


SECRET: Final = "idp-master-key"


@dataclass(frozen=True)
class Plant:
    """A bug, the words that name it, and what may happen in its stead."""

    invariant: str
    bug: Tale
    words: str
    sound: Tale
    more: str = ""


# --- the stories -------------------------------------------------------------------------------------


def torn_link(bench: Bench) -> None:
    bench.journal.record(CurrentRelease(bench.now, ONE, None, "no manifest"))


def current_release_torn(bench: Bench) -> None:
    bench.journal.record(ReleasesOnDisk(bench.now, ONE, (NEW,)))


def moved_link(bench: Bench) -> None:
    bench.story.disk_gets(ONE, NEW)
    bench.story.link(ONE, NEW)
    bench.story.link(ONE, OLD)


def erased(bench: Bench) -> None:
    bench.story.disk_gets(ONE, NEW)
    bench.journal.record(ReleasesOnDisk(bench.now, ONE, (NEW,)))


def two_holders(bench: Bench) -> None:
    bench.journal.record(LockTaken(bench.now, ONE, Slot.B))


def handed_over(bench: Bench) -> None:
    bench.journal.record(LockLeft(bench.now, ONE, Slot.A))
    bench.journal.record(LockTaken(bench.now, ONE, Slot.B))
    bench.journal.record(LockLeft(bench.now, ONE, Slot.A))  # says nothing: it does not hold it
    bench.journal.record(AgentEnded(bench.now, ONE, Slot.B, -9))
    bench.journal.record(LockTaken(bench.now, ONE, Slot.A))
    bench.journal.record(PowerCut(bench.now, ONE))
    bench.journal.record(LockTaken(bench.now, ONE, Slot.A))


def left_by_another(bench: Bench) -> None:
    bench.journal.record(LockLeft(bench.now, ONE, Slot.B))
    bench.journal.record(LockTaken(bench.now, ONE, Slot.B))


def sound_upgrade(bench: Bench) -> None:
    bench.upgrade(ONE)
    bench.upgrade(TWO, beats=12)


def stopped_too_early(bench: Bench) -> None:
    bench.upgrade(ONE, beats=2)


def _overlap(bench: Bench, length: Duration = BEAT, spoil: Callable[[int], None] = lambda _: None) -> InstanceId:
    story = bench.story
    story.desire(ONE, ATTEMPT, "1.1.0")
    new = story.start(ONE, Slot.B, NEW)
    for number in range(3):
        spoil(number)
        story.beat(ONE, Slot.B)
        bench.wait(length)
    return new


def _stop(bench: Bench, new: InstanceId, confirmed: InstanceId | None, attempt: str = ATTEMPT) -> None:
    bench.story.desire(ONE, ATTEMPT, "1.1.0", confirmed)
    bench.story.stop(ONE, attempt, bench.story.instances[ONE, Slot.A][0], new)


def stopped_without_confirmation(bench: Bench) -> None:
    _stop(bench, _overlap(bench), None)


def stopped_in_a_hurry(bench: Bench) -> None:
    new = _overlap(bench, Duration.seconds(10))
    _stop(bench, new, new)


def stopped_for_another_attempt(bench: Bench) -> None:
    new = _overlap(bench)
    _stop(bench, new, new, "move-2-000000000000")


def stopped_after_a_restart(bench: Bench) -> None:
    def restart(number: int) -> None:
        if number == 2:
            bench.story.start(ONE, Slot.B, NEW)

    _overlap(bench, spoil=restart)
    new = bench.story.instances[ONE, Slot.B][0]
    _stop(bench, new, new)


def stopped_for_itself(bench: Bench) -> None:
    old = bench.story.instances[ONE, Slot.A][0]
    _overlap(bench)
    _stop(bench, old, old)


def stopped_for_another_release(bench: Bench) -> None:
    bench.story.desire(ONE, ATTEMPT, "1.1.0")
    new = bench.story.start(ONE, Slot.B, OLD)
    for _ in range(3):
        bench.story.beat(ONE, Slot.B)
        bench.wait(BEAT)
    _stop(bench, new, new)


def unreadable_stop(bench: Bench) -> None:
    bench.journal.record(RequestSent(bench.now, f"fleet.stop.{ONE}", "operator", b"stop it"))


def repeated_stop(bench: Bench) -> None:
    new = _overlap(bench)
    _stop(bench, new, new)
    bench.story.leave(ONE, Slot.A)
    bench.story.lock(ONE, Slot.B)
    bench.story.report(ONE, ATTEMPT, "1.1.0", Succeeded())
    _stop(bench, new, new)
    bench.journal.record(RequestSent(bench.now, f"fleet.lock.{ONE}", ONE, b"not a stop"))


def _container(bench: Bench, event: type[ContainerStarted | ContainerEnded], name: str) -> None:
    if event is ContainerStarted:
        bench.journal.record(ContainerStarted(bench.now, ONE, "web", name, "f"))
    else:
        bench.journal.record(ContainerEnded(bench.now, ONE, "web", name))


def restarted_by_upgrade(bench: Bench) -> None:
    bench.story.deploy(ONE, "web", SCORE)
    bench.upgrade(ONE)
    _container(bench, ContainerEnded, "front")
    _container(bench, ContainerStarted, "front")


def restarted_with_its_neighbour(bench: Bench) -> None:
    bench.story.deploy(ONE, "web", SCORE)
    changed = SCORE.model_copy(update={"containers": (SCORE.containers[0], Container(name="back", image="b:2"))})  # type: ignore[arg-type]  # parsed
    bench.story.write(DesiredWorkload(device=ONE, deployment="web", score=changed))  # type: ignore[arg-type]  # parsed
    _container(bench, ContainerEnded, "front")
    _container(bench, ContainerStarted, "front")


def stopped_for_ever(bench: Bench) -> None:
    bench.story.deploy(ONE, "web", SCORE)
    _container(bench, ContainerEnded, "back")
    bench.finish()


def restarted_with_reason(bench: Bench) -> None:
    bench.story.deploy(ONE, "web", SCORE)
    bench.story.write(DesiredWorkload(device=ONE, deployment="web", score=SCORE))  # type: ignore[arg-type]  # parsed
    bench.upgrade(ONE)
    bench.journal.record(PowerCut(bench.now, ONE))
    bench.journal.record(PowerRestored(bench.now, ONE))
    _container(bench, ContainerStarted, "front")
    _container(bench, ContainerStarted, "back")
    bench.journal.record(KvDeleted(bench.now, Bucket.DESIRED, f"{ONE}.workload.web", Revision(99), "operator"))
    _container(bench, ContainerEnded, "front")
    _container(bench, ContainerEnded, "back")
    bench.finish()
    bench.story.put(Bucket.DESIRED, f"{ONE}.workload.web", b"garbage", "harness")
    bench.story.put(Bucket.DESIRED, "nobody.workload.web", b"garbage", "harness")


def operator_fell(bench: Bench) -> None:
    bench.journal.record(OperatorEnded(bench.now, 0, 1))


def operator_left(bench: Bench) -> None:
    bench.journal.record(OperatorEnded(bench.now, 0, 0))


def operator_killed_once_too_often(bench: Bench) -> None:
    operator_killed(bench)
    bench.journal.record(OperatorEnded(bench.now, 0, -9))
    bench.finish()


def operator_killed(bench: Bench) -> None:
    bench.journal.record(OperatorEnded(bench.now, 0, -9))
    bench.journal.record(FaultInjected(bench.now, 1, "kill-operator", "operator"))
    bench.journal.record(OperatorStarted(bench.now, 0))
    bench.finish()


def operator_lost_its_lease(bench: Bench) -> None:
    bench.journal.record(OperatorEnded(bench.now, 0, 75))
    bench.finish()


def operator_stopped(bench: Bench) -> None:
    bench.journal.record(OperatorEnded(bench.now, 0, 0))
    bench.journal.record(FaultInjected(bench.now, 1, "stop-operator", "operator"))
    bench.finish()


def operator_stopped_once_too_often(bench: Bench) -> None:
    operator_stopped(bench)
    operator_stopped(bench)
    bench.journal.record(OperatorEnded(bench.now, 0, 0))
    bench.finish()


def _lease_goes_to(bench: Bench, holder: str) -> None:
    now = micro_time(bench.now)
    spec = LeaseSpec(holder_identity=holder, lease_duration_seconds=15, acquire_time=now, renew_time=now)
    bench.story.store(Lease(metadata=Metadata(name=OPERATOR_LEASE), spec=spec))


def _operator_desires(bench: Bench, replica: str) -> None:
    bench.story.put(Bucket.DESIRED, f"{ONE}.agent", b"{}", replica)


def standby_desires(bench: Bench) -> None:
    _lease_goes_to(bench, "operator-0_0")
    _operator_desires(bench, "operator-1")


def standby_deletes(bench: Bench) -> None:
    _lease_goes_to(bench, "operator-0_0")
    bench.journal.record(KvDeleted(bench.now, Bucket.DESIRED, f"{ONE}.workload.web", Revision(9), "operator-1"))


def old_leader_stops(bench: Bench) -> None:
    _lease_goes_to(bench, "operator-0_0")
    _lease_goes_to(bench, "operator-1_0")
    bench.journal.record(RequestSent(bench.now, f"fleet.stop.{ONE}", "operator-0", b"stop it"))


def acts_without_a_lease(bench: Bench) -> None:
    _operator_desires(bench, "operator-0")


def leader_acts(bench: Bench) -> None:
    bench.story.put(Bucket.DESIRED, f"{ONE}.agent", b"{}", "operator")  # whichever it was
    _lease_goes_to(bench, "operator-0_0")
    _operator_desires(bench, "operator-0")
    _lease_goes_to(bench, "")
    _operator_desires(bench, "operator-0")
    _lease_goes_to(bench, "operator-1_1")
    _operator_desires(bench, "operator-1")
    bench.journal.record(RequestSent(bench.now, f"fleet.stop.{ONE}", "operator-1", b"stop it"))


def run_over(bench: Bench) -> None:
    bench.journal.record(PhaseEntered(bench.now, "tear-down"))
    bench.journal.record(OperatorEnded(bench.now, 0, 0))


def foreign_heartbeat(bench: Bench) -> None:
    bench.story.beat(ONE, Slot.A, writer=TWO)


def foreign_state(bench: Bench) -> None:
    bench.story.put(Bucket.STATE, f"{ONE}.upgrade", b"{}", "device-00")


def foreign_info(bench: Bench) -> None:
    bench.story.put(Bucket.INFO, f"{ONE}.more", b"{}", ONE)


def device_desires(bench: Bench) -> None:
    bench.story.desire(ONE, ATTEMPT, "1.1.0")
    bench.story.put(Bucket.DESIRED, f"{ONE}.agent", b"{}", ONE)


def device_deletes(bench: Bench) -> None:
    bench.journal.record(KvDeleted(bench.now, Bucket.STATE, f"{TWO}.upgrade", Revision(9), ONE))


def device_stops(bench: Bench) -> None:
    bench.journal.record(RequestSent(bench.now, f"fleet.stop.{ONE}", ONE, b""))


def foreign_lock(bench: Bench) -> None:
    bench.journal.record(RequestSent(bench.now, f"fleet.lock.{ONE}", TWO, b""))


def own_keys(bench: Bench) -> None:
    bench.upgrade(ONE)
    bench.story.deploy(ONE, "web", SCORE)
    bench.story.put(Bucket.INFO, ONE, b"{}", ONE)
    bench.story.put(Bucket.STATE, "Not A Device\udcff", b"", "harness")
    bench.journal.record(RequestSent(bench.now, f"fleet.lock.{ONE}", ONE, b""))


def revoke(bench: Bench, standing: Admitted | Revoked) -> None:
    record = Enrolment(device=ONE, user="1", standing=standing)
    bench.story.put(Bucket.IDENTITY, ONE, layout.encode(record), "enrolment")


def revoked_and_there(bench: Bench) -> None:
    revoke(bench, Revoked(at=bench.now))
    bench.wait(Duration.seconds(61))
    bench.story.put(Bucket.INFO, ONE, b"{}", ONE)


def call_cloned(bench: Bench) -> None:
    cloned = Cloned(since=bench.now, boots=(BootId("boot-1"), BootId("boot-2")))
    status = DeviceStatus(phase=DevicePhase.READY, cloned=cloned)
    bench.story.store(Device(metadata=Metadata(name=ObjectName(ONE)), status=status))


def cloned_long_ago(bench: Bench) -> None:
    bench.journal.record(CopyMade(bench.now, ONE, COPY))
    bench.journal.record(PowerCut(bench.now, COPY))
    bench.wait(Duration.minutes(6))
    call_cloned(bench)


def another_is_cloned(bench: Bench) -> None:
    bench.journal.record(CopyMade(bench.now, TWO, COPY))
    call_cloned(bench)


def cloned(bench: Bench) -> None:
    bench.journal.record(CopyMade(bench.now, ONE, COPY))
    call_cloned(bench)
    bench.journal.record(PowerCut(bench.now, COPY))
    bench.wait(Duration.minutes(60))
    call_cloned(bench)
    bench.story.phase(ONE, DevicePhase.READY)


def cloned_and_given_a_slot(bench: Bench) -> None:
    bench.rollout(RolloutPhase.PROGRESSING)
    call_cloned(bench)
    bench.wait(Duration.seconds(61))
    bench.story.desire(ONE, ATTEMPT, "1.1.0", granted=bench.now)


def cloned_and_given_one_before_or_after(bench: Bench) -> None:
    bench.rollout(RolloutPhase.PROGRESSING)
    call_cloned(bench)
    bench.wait(Duration.seconds(59))
    bench.story.desire(ONE, ATTEMPT, "1.1.0", granted=bench.now)
    bench.story.phase(ONE, DevicePhase.READY)
    bench.wait(Duration.minutes(30))
    bench.story.desire(ONE, f"{ATTEMPT}-r1", "1.1.0", granted=bench.now)


def copy_with_two_holders(bench: Bench) -> None:
    one_manager_each(bench)
    bench.journal.record(LockTaken(bench.now, COPY, Slot.B))


def one_manager_each(bench: Bench) -> None:
    bench.journal.record(CopyMade(bench.now, ONE, COPY))
    bench.journal.record(LockTaken(bench.now, COPY, Slot.A))


def restarted_on_the_copy(bench: Bench) -> None:
    containers_on_both(bench)
    bench.journal.record(ContainerStarted(bench.now, COPY, "web", "front", "f"))


def containers_on_both(bench: Bench) -> None:
    bench.story.deploy(ONE, "web", SCORE)
    bench.journal.record(CopyMade(bench.now, ONE, COPY))
    bench.journal.record(ContainerStarted(bench.now, COPY, "web", "front", "f"))
    bench.journal.record(PowerCut(bench.now, COPY))
    bench.journal.record(ContainerStarted(bench.now, COPY, "web", "front", "f"))


def revoked_and_gone(bench: Bench) -> None:
    revoke(bench, Revoked(at=bench.now))
    bench.wait(Duration.seconds(59))
    bench.story.put(Bucket.INFO, ONE, b"{}", ONE)
    bench.wait(Duration.minutes(10))
    bench.story.put(Bucket.INFO, TWO, b"{}", TWO)
    revoke(bench, Admitted(tokens_from=bench.now))
    bench.story.put(Bucket.INFO, ONE, b"{}", ONE)


def unfinished(bench: Bench) -> None:
    bench.rollout(RolloutPhase.COMPLETE)
    bench.begin(ONE, UpgradePhase.STAGING)
    bench.finish()


def unfinished_rollout(bench: Bench) -> None:
    bench.rollout(RolloutPhase.PROGRESSING)
    bench.upgrade(ONE)
    bench.finish()


def still_asking(bench: Bench) -> None:
    bench.rollout(RolloutPhase.COMPLETE)
    bench.begin(ONE, UpgradePhase.LOCKING)
    bench.finish()


def all_finished(bench: Bench) -> None:
    bench.rollout(RolloutPhase.FAILED)
    bench.upgrade(ONE)
    bench.end(TWO)
    bench.begin(THREE, UpgradePhase.LOCKING)
    bench.finish()


def started_again(bench: Bench) -> None:
    bench.story.desire(ONE, ATTEMPT, "1.1.0")
    bench.end(ONE)
    bench.story.desire(ONE, ATTEMPT, "1.1.0")
    bench.story.start(ONE, Slot.B, NEW)


def started_elsewhere_or_asked_for(bench: Bench) -> None:
    bench.story.desire(ONE, ATTEMPT, "1.1.0")
    bench.end(ONE)
    bench.story.start(TWO, Slot.B, NEW)
    bench.story.start(ONE, Slot.A, OLD)
    bench.story.desire(ONE, f"move-2-{NEW.sha256.short}", "1.1.0")
    bench.story.start(ONE, Slot.B, NEW)


def started_although_marked(bench: Bench) -> None:
    journal = bench.journal
    journal.record(ReleasesOnDisk(bench.now, ONE, (OLD, NEW)))
    journal.record(QuarantineMarks(bench.now, ONE, (NEW.sha256,)))
    bench.story.start(ONE, Slot.B, NEW)


def mark_vanished(bench: Bench) -> None:
    bench.journal.record(QuarantineMarks(bench.now, ONE, (NEW.sha256,)))
    bench.journal.record(PowerCut(bench.now, ONE))
    bench.journal.record(PowerRestored(bench.now, ONE))
    bench.journal.record(QuarantineMarks(bench.now, ONE, ()))


def marks_with_reason(bench: Bench) -> None:
    journal = bench.journal
    journal.record(QuarantineMarks(bench.now, ONE, (NEW.sha256,)))
    journal.record(ReleasesOnDisk(bench.now, ONE, (NEW,)))
    bench.story.start(ONE, Slot.B, NEW)  # nothing else is whole
    journal.record(PowerCut(bench.now, ONE))
    journal.record(QuarantineMarks(bench.now, ONE, ()))
    journal.record(QuarantineMarks(bench.now, ONE, (NEW.sha256,)))
    journal.record(FileDamaged(bench.now, ONE, f"/var/lib/fleet-agent/quarantine/{NEW.sha256}"))
    journal.record(QuarantineMarks(bench.now, ONE, ()))
    journal.record(QuarantineMarks(bench.now, ONE, (NEW.sha256,)))
    bench.story.write(
        DesiredAgent(device=ONE, attempt=AttemptId("move-1-again"), artefact=artefact_of("1.1.0"), lift_quarantine=True)
    )
    journal.record(QuarantineMarks(bench.now, ONE, ()))


def lifted_twice(bench: Bench) -> None:
    marks_with_reason(bench)
    bench.journal.record(QuarantineMarks(bench.now, ONE, (NEW.sha256,)))
    bench.journal.record(QuarantineMarks(bench.now, ONE, ()))


def erased_twice(bench: Bench) -> None:
    damaged_once(bench)
    bench.journal.record(ReleasesOnDisk(bench.now, ONE, (OLD,)))


def settled_by_a_power_cut_and_erased(bench: Bench) -> None:
    lost_before_its_last_sync(bench)
    bench.journal.record(ReleasesOnDisk(bench.now, ONE, (OLD,)))


def lost_although_it_ran(bench: Bench) -> None:
    bench.story.start(ONE, Slot.B, NEW)
    lost_before_its_last_sync(bench)


def lost_before_its_last_sync(bench: Bench) -> None:
    journal = bench.journal
    journal.record(ReleasesOnDisk(bench.now, ONE, (OLD, NEW)))
    journal.record(PowerCut(bench.now, ONE))
    journal.record(ReleasesUnsettled(bench.now, ONE, (NEW,)))
    journal.record(ReleasesOnDisk(bench.now, ONE, (OLD,)))
    journal.record(PowerRestored(bench.now, ONE))
    journal.record(ReleasesOnDisk(bench.now, ONE, (OLD, NEW)))


def damaged_once(bench: Bench) -> None:
    bench.journal.record(ReleasesOnDisk(bench.now, ONE, (OLD, NEW)))
    bench.journal.record(FileDamaged(bench.now, ONE, "/usr/bin/fleet-agent-v1.1.0.manifest.json"))
    bench.journal.record(ReleasesOnDisk(bench.now, ONE, (OLD,)))
    bench.journal.record(ReleasesOnDisk(bench.now, ONE, (OLD, NEW)))


def restarted_twice_after_one_crash(bench: Bench) -> None:
    crashed_once(bench)
    bench.journal.record(ContainerEnded(bench.now, ONE, "web", "front"))
    bench.journal.record(ContainerStarted(bench.now, ONE, "web", "front", "f"))


def crashed_once(bench: Bench) -> None:
    bench.journal.record(ContainerStarted(bench.now, ONE, "web", "front", "f"))
    bench.journal.record(ContainerCrashed(bench.now, ONE, "web", "front"))
    bench.journal.record(ContainerEnded(bench.now, ONE, "web", "front"))
    bench.journal.record(ContainerStarted(bench.now, ONE, "web", "front", "f"))


def reads_a_neighbour(bench: Bench) -> None:
    bench.journal.record(ForeignRead(bench.now, "device-001", "desired/device-002.agent", False))


def group_passes(bench: Bench, *upgraded: DeviceId) -> None:
    for device in upgraded:
        bench.story.report(device, ATTEMPT, "1.1.0", Succeeded())
    bench.rollout(RolloutPhase.PROGRESSING, passed=("pair",))


def passed_before_all_were_done(bench: Bench) -> None:
    group_passes(bench, ONE)


def passed_when_all_were_done(bench: Bench) -> None:
    group_passes(bench, ONE, TWO)


def too_many_at_once(bench: Bench) -> None:
    bench.rollout(RolloutPhase.PROGRESSING)
    bench.begin(ONE)
    bench.begin(TWO)


def begun_without_a_slot(bench: Bench) -> None:
    bench.story.desire(ONE, ATTEMPT, "1.1.0")
    bench.begin(ONE, UpgradePhase.LOCKING)
    bench.begin(ONE)


def slot_of_another_attempt(bench: Bench) -> None:
    bench.story.desire(ONE, ATTEMPT, "1.1.0", granted=bench.now)
    bench.story.desire(ONE, f"{ATTEMPT}-r1", "1.1.0")
    bench.story.report(ONE, f"{ATTEMPT}-r1", "1.1.0", InProgress(phase=UpgradePhase.STAGING))


def begun_with_a_slot(bench: Bench) -> None:
    bench.upgrade(ONE)
    bench.begin(TWO, UpgradePhase.OVERLAPPING)  # after a reboot, or in place of another attempt
    bench.story.desire(THREE, ATTEMPT, "1.1.0", granted=bench.now)
    bench.story.desire(THREE, ATTEMPT, "1.1.0")  # the bus forgot the grant, and the operator may not know it yet
    bench.begin(THREE)


def within_limits(bench: Bench) -> None:
    bench.rollout(RolloutPhase.PROGRESSING)
    bench.begin(TWO, UpgradePhase.LOCKING)
    bench.begin(THREE)
    bench.begin(ONE)
    bench.begin(ONE, UpgradePhase.STAGING)
    bench.end(ONE)
    bench.begin(TWO)
    bench.wait(Duration.minutes(61))  # its lease is over, and so is the claim to its slot
    bench.begin(ONE)


def answers_an_older_attempt(bench: Bench) -> None:
    bench.story.desire(ONE, ATTEMPT, "1.1.0")
    bench.story.desire(ONE, "move-2-000000000000", "1.0.0")
    refused = RefusedUpgrade(phase=UpgradePhase.LOCKING, reason="no")
    bench.story.report(ONE, "move-2-000000000000", "1.0.0", refused)
    bench.begin(ONE)


def answers_an_older_workload(bench: Bench) -> None:
    bench.story.deploy(ONE, "web", SCORE)
    old = WorkloadState(device=ONE, deployment="web", desired=Revision(1), containers=())  # type: ignore[arg-type]  # parsed
    bench.story.write(old)


def answers_in_order(bench: Bench) -> None:
    bench.upgrade(ONE)
    bench.story.desire(ONE, "move-2-000000000000", "1.0.0")
    refused = RefusedUpgrade(phase=UpgradePhase.LOCKING, reason="no")
    bench.story.report(ONE, ATTEMPT, "1.1.0", Succeeded())  # not yet aware of the newer one
    bench.story.report(ONE, "move-2-000000000000", "1.0.0", refused)
    bench.story.deploy(ONE, "web", SCORE)
    bench.story.deploy(ONE, "web", SCORE)
    old = WorkloadState(device=ONE, deployment="web", desired=Revision(1), containers=())  # type: ignore[arg-type]  # parsed
    lost = KvStored(bench.now, Bucket.STATE, "device-001.workload.web", Revision(1), "harness", layout.encode(old))
    bench.journal.record(lost)  # the bus lost its tail, and nobody reported anything


def lost_again(bench: Bench) -> None:
    bench.story.leave(ONE, Slot.A)
    bench.finish()


def forgot_its_release(bench: Bench) -> None:
    bench.upgrade(ONE)
    bench.story.start(ONE, Slot.B, OLD)
    bench.story.link(ONE, OLD)
    bench.finish()


def as_desired(bench: Bench) -> None:
    bench.rollout(RolloutPhase.COMPLETE)
    bench.upgrade(ONE)
    bench.finish()


def first_installation(bench: Bench) -> None:
    bench.journal.record(SecretStands(bench.now, SECRET, "made"))
    bench.journal.record(SecretsInstalled(bench.now, 1, bench.now, (SECRET,), ()))
    bench.wait(Duration.seconds(1))


def installed_again(bench: Bench) -> None:
    first_installation(bench)
    bench.journal.record(SecretRotated(bench.now, SECRET, 2))
    bench.journal.record(SecretsInstalled(bench.now, 2, bench.now, (), (SECRET,)))


def made_twice(bench: Bench) -> None:
    first_installation(bench)
    bench.journal.record(SecretsInstalled(bench.now, 2, bench.now, (SECRET,), ()))


def changed_by_nobody(bench: Bench) -> None:
    first_installation(bench)
    bench.journal.record(SecretStands(bench.now, SECRET, "changed"))


def secret_gone(bench: Bench) -> None:
    first_installation(bench)
    bench.journal.record(SecretStands(bench.now, SECRET, "gone"))


def unreadable_by_itself(bench: Bench) -> None:
    first_installation(bench)
    bench.journal.record(SecretStands(bench.now, SECRET, "unreadable"))


def damaged(bench: Bench) -> Instant:
    """Damages the secret, and answers when an installation that begins a second later does."""
    first_installation(bench)
    bench.journal.record(SecretDamaged(bench.now, SECRET, "empty"))
    bench.journal.record(SecretStands(bench.now, SECRET, "unreadable"))
    bench.wait(Duration.seconds(1))
    return bench.now


def damaged_and_mended(bench: Bench) -> None:
    began = damaged(bench)
    bench.journal.record(InstallRefused(bench.now, 2, began, f"the secret in {SECRET}.json is damaged"))
    bench.wait(Duration.seconds(1))
    began = bench.now
    bench.wait(Duration.seconds(1))
    bench.journal.record(SecretStands(bench.now, SECRET, "same"))
    bench.journal.record(SecretMended(bench.now, SECRET))
    bench.journal.record(SecretsInstalled(bench.now, 3, began, (), (SECRET,)))


def damaged_and_accepted(bench: Bench) -> None:
    bench.journal.record(SecretsInstalled(bench.now, 2, damaged(bench), (), (SECRET,)))


def refused_without_naming(bench: Bench) -> None:
    bench.journal.record(InstallRefused(bench.now, 2, damaged(bench), "something is wrong"))


def refused_for_nothing(bench: Bench) -> None:
    first_installation(bench)
    bench.journal.record(InstallRefused(bench.now, 2, bench.now, f"the secret in {SECRET}.json is damaged"))


def shown_in_a_log(bench: Bench) -> None:
    first_installation(bench)
    bench.journal.record(SecretShown(bench.now, SECRET, "the log of fleet"))


PLANTS: Final = (
    Plant("current-link-complete", torn_link, "leads to no complete release: no manifest", moved_link),
    Plant(
        "current-link-complete", current_release_torn, "the current release of device-001, is not complete", moved_link
    ),
    Plant("no-release-erased", erased, "device-001 no longer has 1.0.0@", moved_link),
    Plant("no-release-erased", erased_twice, "device-001 no longer has 1.1.0@", damaged_once),
    Plant(
        "no-release-erased",
        settled_by_a_power_cut_and_erased,
        "device-001 no longer has 1.1.0@",
        lost_before_its_last_sync,
    ),
    Plant("no-release-erased", lost_although_it_ran, "device-001 no longer has 1.1.0@", lost_before_its_last_sync),
    Plant("one-manager", two_holders, "slot b of device-001 took the host lock while slot a held it", handed_over),
    Plant("one-manager", left_by_another, "slot b of device-001 took the host lock while slot a held it", handed_over),
    Plant("stop-only-after-verified", stopped_too_early, "only 2 healthy heartbeats", sound_upgrade),
    Plant("stop-only-after-verified", stopped_without_confirmation, "what was confirmed is None", repeated_stop),
    Plant("stop-only-after-verified", stopped_in_a_hurry, "only 3 healthy heartbeats", repeated_stop),
    Plant("stop-only-after-verified", stopped_for_another_attempt, "is not desired", repeated_stop),
    Plant("stop-only-after-verified", stopped_after_a_restart, "only 1 healthy heartbeats", repeated_stop),
    Plant("stop-only-after-verified", stopped_for_itself, "the same instance", repeated_stop),
    Plant("stop-only-after-verified", stopped_for_another_release, "only 0 healthy heartbeats", repeated_stop),
    Plant("stop-only-after-verified", unreadable_stop, "cannot be read", repeated_stop),
    Plant(
        "unaffected-containers-not-restarted", restarted_by_upgrade, "web/front on device-001", restarted_with_reason
    ),
    Plant("quarantined-not-retried", lifted_twice, "no longer condemns", marks_with_reason),
    Plant("slot-stored-first", begun_without_a_slot, "and no slot for it is stored", begun_with_a_slot),
    Plant("slot-stored-first", slot_of_another_attempt, "is staging in attempt", begun_with_a_slot),
    Plant("unaffected-containers-not-restarted", restarted_twice_after_one_crash, "web/front", crashed_once),
    Plant("unaffected-containers-not-restarted", restarted_with_its_neighbour, "web/front", restarted_with_reason),
    Plant(
        "unaffected-containers-not-restarted",
        stopped_for_ever,
        "web/back on device-001 is desired",
        restarted_with_reason,
    ),
    Plant(
        "operator-never-restarts-because-of-data", operator_fell, "ended by itself with code 1", operator_killed, KILL
    ),
    Plant("operator-never-restarts-because-of-data", operator_left, "ended by itself with code 0", run_over),
    Plant(
        "operator-never-restarts-because-of-data",
        operator_killed_once_too_often,
        "2 times, by 1",
        operator_killed,
        KILL,
    ),
    Plant("no-foreign-keys", reads_a_neighbour, "asked for desired/device-002.agent, and was told nothing", own_keys),
    Plant(
        "operator-never-restarts-because-of-data",
        operator_lost_its_lease,
        "ended by itself with code 75",
        operator_killed,
        KILL,
    ),
    Plant(
        "operator-never-restarts-because-of-data",
        operator_stopped_once_too_often,
        "stopped 3 times, by 2",
        operator_stopped,
        STOP,
    ),
    Plant("operator-never-restarts-because-of-data", operator_fell, "code 1", operator_lost_its_lease, CUT_OFF),
    Plant("no-clone-imagined", call_cloned, "device-001 is said to be cloned (boots boot-1 and boot-2)", cloned),
    Plant("no-clone-imagined", cloned_long_ago, "and is one machine", cloned),
    Plant("no-clone-imagined", another_is_cloned, "and is one machine", cloned),
    Plant(
        "rollout-limits",
        cloned_and_given_a_slot,
        "although two machines are it",
        cloned_and_given_one_before_or_after,
    ),
    Plant("one-manager", copy_with_two_holders, "slot b of device-001-copy took the host lock", one_manager_each),
    Plant(
        "unaffected-containers-not-restarted",
        restarted_on_the_copy,
        "web/front on device-001-copy was started again",
        containers_on_both,
    ),
    Plant("revoked-stay-out", revoked_and_there, "device-001 wrote info/device-001", revoked_and_gone),
    Plant("secrets-stay", made_twice, "installation 2 made idp-master-key anew", installed_again),
    Plant("secrets-stay", changed_by_nobody, "idp-master-key is changed, and nobody asked", damaged_and_mended),
    Plant("secrets-stay", secret_gone, "idp-master-key is gone", damaged_and_mended),
    Plant("secrets-stay", unreadable_by_itself, "unreadable, and nothing has damaged it", damaged_and_mended),
    Plant("secrets-stay", damaged_and_accepted, "took the damaged idp-master-key for good", damaged_and_mended),
    Plant("secrets-stay", refused_without_naming, "was refused (something is wrong)", damaged_and_mended),
    Plant("secrets-stay", refused_for_nothing, "no secret is damaged", installed_again),
    Plant("secrets-stay", shown_in_a_log, "idp-master-key appears in the log of fleet", installed_again),
    Plant("one-operator-acts", standby_desires, "wrote device-001.agent while operator-0 held", leader_acts),
    Plant("one-operator-acts", standby_deletes, "operator-1 wrote device-001.workload.web", leader_acts),
    Plant("one-operator-acts", old_leader_stops, "operator-0 sent a request on fleet.stop", leader_acts),
    Plant("one-operator-acts", acts_without_a_lease, "while nobody held the lease", leader_acts),
    Plant("no-foreign-keys", foreign_heartbeat, "device-002 wrote heartbeat/device-001.a", own_keys),
    Plant("no-foreign-keys", foreign_state, "device-00 wrote state/device-001.upgrade", own_keys),
    Plant("no-foreign-keys", foreign_info, "device-001 wrote info/device-001.more", own_keys),
    Plant("no-foreign-keys", device_desires, "device-001 wrote desired/device-001.agent", own_keys),
    Plant("no-foreign-keys", device_deletes, "device-001 wrote state/device-002.upgrade", own_keys),
    Plant("no-foreign-keys", device_stops, "device-001 sent a request on fleet.stop.device-001", own_keys),
    Plant("no-foreign-keys", foreign_lock, "device-002 sent a request on fleet.lock.device-001", own_keys),
    Plant("every-attempt-terminal", unfinished, "of device-001 is still staging at the end", all_finished),
    Plant("every-attempt-terminal", unfinished_rollout, "rollout move is still Progressing", all_finished),
    Plant("every-attempt-terminal", still_asking, "of device-001 is still locking", all_finished),
    Plant(
        "quarantined-not-retried",
        started_again,
        "which it rolled back in attempt move-1",
        started_elsewhere_or_asked_for,
    ),
    Plant("quarantined-not-retried", started_although_marked, "which its disk condemns", marks_with_reason),
    Plant("quarantined-not-retried", mark_vanished, "no longer condemns", marks_with_reason),
    Plant(
        "rollout-limits", too_many_at_once, "2 devices of group pair are in an upgrade at once, 1 are", within_limits
    ),
    Plant("health-gate", passed_before_all_were_done, "before device-002 was done", passed_when_all_were_done),
    Plant("no-lower-revision", answers_an_older_attempt, "which is newer", answers_in_order),
    Plant("no-lower-revision", answers_an_older_workload, "at desired revision 1 after revision", answers_in_order),
    Plant("desired-equals-observed", lost_again, "device-001 to be managed by an agent", as_desired),
    Plant("desired-equals-observed", forgot_its_release, "device-001 to run 1.1.0@", as_desired),
)
KINDS: Final = {kind.name: kind for kind in ALL}


def _id(plant: Plant) -> str:
    return f"{plant.invariant}: {plant.bug.__name__}"


@pytest.mark.parametrize("plant", PLANTS, ids=_id)
def test_a_planted_bug_is_caught(plant: Plant) -> None:
    bench = make(KINDS[plant.invariant], plant.more)
    assert bench.found == []
    plant.bug(bench)
    assert bench.found, "the planted bug was not caught"
    assert plant.words in bench.found[0]


@pytest.mark.parametrize("plant", PLANTS, ids=_id)
def test_the_story_without_the_bug_passes(plant: Plant) -> None:
    bench = make(KINDS[plant.invariant], plant.more)
    plant.sound(bench)
    assert bench.found == []


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_sound_upgrade_contradicts_no_invariant(kind: type[Invariant]) -> None:
    bench = make(kind)
    bench.story.deploy(ONE, "web", SCORE)
    bench.rollout(RolloutPhase.COMPLETE)
    bench.upgrade(ONE)
    bench.upgrade(TWO)
    if kind.name != "desired-equals-observed":  # the workload belongs to no deployment
        bench.finish()
    assert bench.found == []


def test_every_file_is_registered_and_has_a_planted_bug() -> None:
    folder = Path(harness.invariants.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    assert {Path(inspect.getfile(kind)).stem for kind in ALL} == files
    assert {kind.name for kind in ALL} == {stem.replace("_", "-") for stem in files}
    assert {plant.invariant for plant in PLANTS} == set(KINDS)


def test_attempts_name_their_rollout() -> None:
    assert rollout_of("move-1-0123456789ab") == "move"
    assert rollout_of("move-2-fast-12-0123456789ab-r3") == "move-2-fast"
    assert rollout_of("something else") == "something else"
    assert Version("1.1.0") == NEW.version
