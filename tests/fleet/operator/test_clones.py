"""Two machines under one identity: found, told once, left alone in rollouts, and over; and what is none of it."""

from __future__ import annotations

import pytest

from fleet.capabilities.bus import Stored
from fleet.contracts import layout
from fleet.contracts.ids import BootId, Revision, Slot
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import Cloned, Device, GroupPhase, MaxFailed, MaxUnavailable, RolloutPhase
from fleet.contracts.records import LockDenied, LockReply, LockRequest, Role, Succeeded, UpgradePhase
from fleet.contracts.time import Duration, Instant
from fleet.operator import clones
from fleet.operator.clones import Boots
from fleet.operator.events import EntrySeen
from fleet.operator.ports import OperatorTimings
from tests.fleet.operator.rollout_world import BEAT, NEW, OLD, PI, Agent, World, heartbeat, overlapping, started

FOUND = Duration.minutes(4)
"""Two machines that beat as they should are found out within this."""
ANY = MaxUnavailable(count=10)


def copy_of(world: World) -> Agent:
    """A second machine, with a boot of its own."""
    return Agent(PI, release=world.agents[PI].release, boot=1000)


def copy_beats(world: World, copy: Agent) -> None:
    world.write(heartbeat(copy.instance, copy.slot, copy.release, Role.MANAGING))


def together(world: World, length: Duration, *copies: Agent) -> None:
    """Time in which the device and its copies beat in turn."""
    for _ in range(length // BEAT):
        world.pass_time(BEAT)
        for copy in copies:
            copy_beats(world, copy)
        world.carry_out()


def is_cloned(world: World) -> bool:
    return world.device(PI).status.cloned is not None


def told(world: World) -> list[str]:
    return [text for text in world.reports if "identity" in text]


def ask(world: World) -> LockReply | None:
    desired = world.desired(PI)
    assert desired is not None
    request = LockRequest(device=PI, attempt=desired.attempt, instance=world.agents[PI].instance)
    reply, instructions = world.brain.lock(request, world.now)
    world.take(instructions)
    world.carry_out()
    return reply


def test_two_machines_are_found_out_and_told_once_and_once_again_when_one_is_left() -> None:
    world = started(2)
    copy = copy_of(world)
    together(world, FOUND, copy)
    stored = world.device(PI).status.cloned
    assert stored is not None
    assert stored.boots == (BootId("boot-1"), BootId("boot-1000"))
    together(world, Duration.minutes(30), copy)
    assert len(told(world)) == 1
    assert "fleet device revoke pi-0" in told(world)[0]
    assert "boot-1000" in told(world)[0]
    assert world.device("pi-1").status.cloned is None
    world.pass_time(Duration.minutes(9))
    assert is_cloned(world)
    world.pass_time(Duration.minutes(2))
    assert not is_cloned(world)
    assert len(told(world)) == 2
    assert "one machine has its identity again" in told(world)[1]
    world.pass_time(Duration.minutes(30))
    assert len(told(world)) == 2


def test_three_machines_are_found_out_too() -> None:
    world = started(1)
    together(world, FOUND, copy_of(world), Agent(PI, boot=2000))
    assert is_cloned(world)


def test_the_copy_may_be_in_the_other_slot() -> None:
    world = started(1)
    together(world, FOUND, Agent(PI, boot=1000, slot=Slot.B))
    assert is_cloned(world)


def test_nothing_is_over_while_nobody_is_heard() -> None:
    world = started(1)
    together(world, FOUND, copy_of(world))
    world.silent[PI] = None
    world.pass_time(Duration.minutes(60))
    assert is_cloned(world)
    world.silent.clear()
    world.pass_time(Duration.minutes(9))
    assert is_cloned(world)
    world.pass_time(Duration.minutes(2))
    assert not is_cloned(world)


def test_a_device_that_is_taken_out_of_the_fleet_is_forgotten() -> None:
    world = started(1)
    together(world, FOUND, copy_of(world))
    world.remove_object(Device, PI)
    assert world.brain.state.devices[PI].cloned is None


# --- what is no clone ---------------------------------------------------------------------------------


def test_reboots_are_no_clone() -> None:
    world = started(1)
    for _ in range(40):
        world.reboot(PI)
        world.carry_out()
        world.pass_time(BEAT)
    assert not is_cloned(world)
    assert not told(world)


def test_heartbeats_that_the_network_held_back_over_a_reboot_are_no_clone() -> None:
    world = started(1)
    for _ in range(20):
        before = world.agents[PI].instance
        world.reboot(PI)
        for _ in range(5):
            world.write(heartbeat(before, Slot.A, OLD, Role.MANAGING))
        world.carry_out()
        world.pass_time(BEAT)
    assert not is_cloned(world)


def test_what_is_only_read_is_no_clone() -> None:
    world = started(1)
    key = layout.heartbeat(PI, Slot.A).key
    old = world.buckets[Bucket.HEARTBEAT][key]
    world.reboot(PI)
    for _ in range(20):
        world.pass_time(BEAT)
        newest, revisions = world.buckets[Bucket.HEARTBEAT][key], world.revisions[Bucket.HEARTBEAT]
        world.buckets[Bucket.HEARTBEAT][key] = old
        world.read(Bucket.HEARTBEAT)  # an older store: read twice before it is believed
        world.carry_out()
        world.buckets[Bucket.HEARTBEAT][key], world.revisions[Bucket.HEARTBEAT] = newest, revisions
    assert not is_cloned(world)


def test_what_is_pushed_out_of_order_is_no_clone() -> None:
    world = started(1)
    old = world.buckets[Bucket.HEARTBEAT][layout.heartbeat(PI, Slot.A).key]
    assert isinstance(old, Stored)
    other_slot = heartbeat(world.agents[PI].instance, Slot.B, OLD, Role.STANDBY)
    late = Stored(Bucket.HEARTBEAT, layout.heartbeat(PI, Slot.B).key, old.revision, layout.encode(other_slot))
    world.reboot(PI)
    for step in range(20):
        world.pass_time(BEAT)
        again = Stored(late.bucket, late.key, Revision(late.revision + step % 2), late.value)
        world.take(world.brain.entry(EntrySeen(again, True, world.now)))
        world.carry_out()
    assert not is_cloned(world)


def test_a_bus_that_lost_its_order_begins_anew() -> None:
    boots = Boots(returns={BootId("a"): (Instant(1),) * 8, BootId("b"): (Instant(1),) * 8})
    assert clones.found(boots, Instant(2), OperatorTimings())
    boots.forget()
    assert not clones.found(boots, Instant(2), OperatorTimings())


def test_few_boots_are_remembered() -> None:
    boots = Boots()
    for number in range(1000):
        boots.hear(BootId(f"b-{number}"), Revision(number + 1), Instant(number), BEAT)
    for number in range(1000):
        boots.hear(BootId(f"b-{number % 2}"), Revision(number + 1001), Instant(1000 + number), BEAT)
    assert len(boots.returns) <= clones.KEPT
    assert max(len(returns) for returns in boots.returns.values()) <= 8


@pytest.mark.parametrize("pause", [1, 4])
def test_returns_count_within_a_window(pause: int) -> None:
    boots, timings, at = Boots(), OperatorTimings(), Instant(0)
    for number in range(12):
        at = Instant(number * Duration.minutes(pause) // 2)
        boots.hear(BootId(f"b-{number % 2}"), Revision(number + 1), at, BEAT)
    assert bool(clones.found(boots, at, timings)) is (pause == 1)


# --- rollouts -----------------------------------------------------------------------------------------


def test_a_cloned_device_gets_no_slot_and_all_the_others_do() -> None:
    world = started(3, MaxUnavailable(count=1))
    copy = copy_of(world)
    together(world, FOUND, copy)
    world.rollout("r", NEW)
    world.carry_out()
    reply = ask(world)
    assert reply is not None
    assert isinstance(reply.answer, LockDenied)
    assert reply.answer.reason.startswith(
        "two machines have the identity of this device: run `fleet device revoke pi-0`"
    )
    for _ in range(60):
        together(world, BEAT, copy)
        for device in world.agents:
            world.act(device)
            world.carry_out()
    assert world.agents[PI].release == OLD
    assert all(agent.release == NEW for device, agent in world.agents.items() if device != PI)
    status = world.status("r").status
    assert status.phase is RolloutPhase.COMPLETE
    assert (status.upgraded, status.failed, status.groups[0].offline) == (2, 0, 1)
    assert status.groups[0].phase is GroupPhase.PASSED
    assert "1 left alone: pi-0 (two machines have the identity of this device)" in status.message
    desired = world.desired(PI)
    assert desired is not None
    assert desired.granted is None
    world.hurry(30)
    assert world.agents[PI].release == NEW
    assert world.status("r").status.upgraded == 3


def test_two_machines_with_two_releases_fail_no_rollout() -> None:
    world = started(2, ANY)
    world.rollout("r", NEW)
    world.carry_out()
    world.hurry(20)
    assert world.agents[PI].release == NEW
    old = Agent(PI, release=OLD, boot=1000)
    together(world, Duration.minutes(20), old)
    assert is_cloned(world)
    assert world.device(PI).status.release == NEW
    assert world.status("r").status.failed == 0
    world.pass_time(Duration.minutes(11))
    status = world.status("r").status
    assert (status.phase, status.upgraded, status.failed) == (RolloutPhase.COMPLETE, 2, 0)


def test_a_copy_with_the_old_release_halts_nothing_before_it_is_found_out() -> None:
    world = started(2, ANY)
    world.rollout("r", NEW)
    world.edit("r", max_failed=MaxFailed(count=0))
    world.carry_out()
    world.hurry(20)
    assert world.agents[PI].release == NEW
    old, failed = Agent(PI, release=OLD, boot=1000), 0
    for _ in range(8):
        for _ in range(2):  # twice in a row
            world.pass_time(world.timings.tick)
            copy_beats(world, old)
            world.carry_out()
        world.pass_time(world.timings.tick)
        failed = max(failed, world.status("r").status.failed)
    assert is_cloned(world)
    assert failed == 0
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_a_device_that_fell_back_in_a_reboot_has_failed() -> None:
    world = started(1, ANY)
    world.rollout("r", NEW)
    world.carry_out()
    world.hurry(20)
    agent = world.agents[PI]
    agent.release = OLD
    world.reboot(PI)
    world.pass_time(Duration.seconds(90))
    assert world.status("r").status.failed == 1
    world.reboot(PI)
    world.pass_time(world.timings.tick)
    assert world.status("r").status.failed == 1


def test_a_standby_of_a_copy_takes_no_slot() -> None:
    world = started(1, ANY)
    copy = copy_of(world)
    together(world, FOUND, copy)
    world.rollout("r", NEW)
    world.carry_out()
    for _ in range(4):
        world.pass_time(BEAT)
        world.write(heartbeat(copy.make(NEW), Slot.B, NEW, Role.STANDBY))
        world.carry_out()
    desired = world.desired(PI)
    assert desired is not None
    assert desired.granted is None


# --- an attempt that is under way ---------------------------------------------------------------------


def test_nobody_is_confirmed_or_stopped_while_two_machines_are_the_device_and_the_attempt_ends_after_that() -> None:
    world = overlapping()
    copy = copy_of(world)
    view = world.brain.state.devices[PI]
    for _ in range(FOUND // BEAT):  # the new instance of the device is not heard yet
        copy_beats(world, copy)
        world.write(heartbeat(world.agents[PI].instance, Slot.A, OLD, Role.MANAGING))
        world.now = world.now + BEAT
    world.carry_out()
    assert view.cloned is not None
    together(world, Duration.minutes(20), copy)
    desired = world.desired(PI)
    assert desired is not None
    assert desired.granted is not None
    assert desired.confirmed is None
    assert not world.stops
    assert ask(world) is None, "an answer would let the device blame the release for not being confirmed"
    world.pass_time(Duration.minutes(11))
    assert not is_cloned(world)
    assert ask(world) is not None
    world.hurry(10)
    assert world.agents[PI].release == NEW
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_a_stop_that_was_due_waits_for_the_end() -> None:
    world = overlapping()
    world.deaf = True
    world.pass_time(Duration.minutes(3))
    assert world.stops
    copy = copy_of(world)
    together(world, FOUND, copy)
    assert is_cloned(world)
    sent = len(world.stops)
    together(world, Duration.minutes(10), copy)
    assert len(world.stops) == sent
    world.deaf = False
    world.hurry(30)
    assert world.agents[PI].release == NEW
    upgrade = world.brain.state.devices[PI].upgrade
    assert upgrade is not None
    assert isinstance(upgrade.status, Succeeded)


def test_an_attempt_outlives_its_lease_under_a_clone_and_ends_all_the_same() -> None:
    world = overlapping()
    copy = copy_of(world)
    together(world, FOUND, copy)
    desired = world.desired(PI)
    assert desired is not None
    if desired.confirmed is None:
        together(world, Duration.minutes(90), copy)
        assert ask(world) is None
    world.hurry(30)
    assert world.agents[PI].phase is not UpgradePhase.OVERLAPPING
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


# --- operators come and go ----------------------------------------------------------------------------


def test_an_operator_that_starts_knows_it_at_once_and_does_not_tell_it_again() -> None:
    world = started(1)
    together(world, FOUND, copy_of(world))
    world.rollout("r", NEW)
    world.carry_out()
    world.reports.clear()
    world.start()
    world.carry_out()
    assert isinstance(getattr(ask(world), "answer", None), LockDenied)
    assert is_cloned(world)
    world.pass_time(Duration.minutes(9))
    assert is_cloned(world)
    assert not told(world)
    world.pass_time(Duration.minutes(2))
    assert len(told(world)) == 1
    assert not is_cloned(world)


def test_what_was_not_stored_is_found_again() -> None:
    world = started(1)
    copy = copy_of(world)
    together(world, Duration.minutes(1), copy)
    world.start()
    world.carry_out()
    together(world, FOUND, copy)
    assert is_cloned(world)


def test_a_replica_that_stood_by_takes_over_what_the_other_one_found() -> None:
    world = started(1)
    world.brain.stand_by()
    together(world, FOUND, copy_of(world))
    assert not told(world)
    assert not is_cloned(world)
    stored = world.device(PI)
    found = world.brain.state.devices[PI].boots.returns
    status = stored.status.model_copy(update={"cloned": Cloned(since=world.wall, boots=tuple(sorted(found)))})
    world.store_object(stored.changed(status=status))
    world.brain.take_office()
    for bucket in (Bucket.DESIRED, Bucket.STATE, Bucket.INFO, Bucket.HEARTBEAT):
        world.read(bucket)
    world.list(Device)
    assert world.brain.state.devices[PI].cloned == status.cloned
    assert not told(world)
