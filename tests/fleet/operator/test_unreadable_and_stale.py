"""What the operator makes of unreadable entries and objects, of silence, and of revisions that go back."""

from __future__ import annotations

from fleet.capabilities.bus import Stored
from fleet.contracts import layout
from fleet.contracts.ids import (
    DeviceId,
    ObjectName,
    Revision,
    Slot,
)
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import (
    DevicePhase,
    RolloutPhase,
)
from fleet.contracts.records import (
    Role,
)
from fleet.contracts.time import Duration
from fleet.operator.events import (
    EntrySeen,
    ReadAgain,
    SessionBegan,
    Ticked,
    WriteStatus,
)
from tests.fleet.operator.rollout_world import (
    BEAT,
    NEW,
    OLD,
    PI,
    Agent,
    World,
    heartbeat,
    overlapping,
    started,
)

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


def test_what_a_lost_tail_took_is_written_until_devices_that_saw_it_take_it_up() -> None:
    """The bucket ends at revision 1 again. A device that has seen 9 passes over all that comes before."""
    world = started(1)
    world.rollout("r", NEW)
    world.carry_out()
    key = layout.desired_agent(PI).key
    seen = Revision(world.revisions[Bucket.DESIRED] + 8)
    desired = world.desired(PI)
    assert desired is not None
    stored = Stored(Bucket.DESIRED, key, seen, layout.encode(desired))
    world.take(world.brain.entry(EntrySeen(stored, True, world.now)))
    del world.buckets[Bucket.DESIRED][key]
    world.revisions[Bucket.DESIRED] = 1
    world.read(Bucket.DESIRED)
    world.carry_out()
    world.pass_time(Duration.minutes(1))
    assert world.buckets[Bucket.DESIRED][key].revision >= seen


def test_a_lost_tail_forgets_no_grant() -> None:
    world = started(1)
    world.rollout("r", NEW)
    world.carry_out()
    key = layout.desired_agent(PI).key
    asked, last = world.buckets[Bucket.DESIRED][key], world.revisions[Bucket.DESIRED]
    while not world.agents[PI].held:
        world.act(PI)
        world.carry_out()
        world.pass_time(Duration.seconds(5))
    granted = world.desired(PI)
    assert granted is not None
    assert granted.granted is not None
    world.buckets[Bucket.DESIRED][key] = asked
    world.revisions[Bucket.DESIRED] = last
    for _ in range(2):
        world.read(Bucket.DESIRED)
        world.carry_out()
        world.pass_time(Duration.minutes(1))
    restored = world.desired(PI)
    assert restored is not None
    assert restored.granted == granted.granted


def test_of_two_instances_of_the_new_release_the_one_that_manages_is_confirmed() -> None:
    """The old one died, and the device had lost the record of the attempt: its slot came back in the new release."""
    world = overlapping()
    agent = world.agents[PI]
    assert agent.new is not None
    agent.instance, agent.slot, agent.release = agent.new, agent.slot.other, NEW
    agent.new = agent.make(NEW)
    world.pass_time(Duration.minutes(10))
    world.carry_out()
    desired = world.desired(PI)
    assert desired is not None
    assert desired.confirmed == agent.instance
