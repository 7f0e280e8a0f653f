"""Rollouts, slots, confirmations and stops, judged by what a small world goes through."""

from __future__ import annotations

from fleet.contracts.ids import (
    Architecture,
    AttemptId,
    DeviceId,
    ObjectName,
    Percent,
    Slot,
)
from fleet.contracts.objects import (
    AgentRollout,
    Device,
    MaxUnavailable,
    Metadata,
    RolloutPhase,
    RolloutSpec,
)
from fleet.contracts.records import (
    DeferredUpgrade,
    LockDenied,
    LockGranted,
    LockRequest,
    RefusedUpgrade,
    Role,
    UpgradePhase,
)
from fleet.contracts.time import Duration
from fleet.operator.brain import Brain
from fleet.operator.standing import retry_number
from tests.fleet.operator.rollout_world import (
    BEAT,
    NEW,
    NEWER,
    OLD,
    PI,
    Agent,
    World,
    artefact,
    group,
    heartbeat,
    overlapping,
    started,
)

# --- the path of one device --------------------------------------------------------------------------


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
    assert first is not None
    assert isinstance(first.answer, LockDenied)
    assert first.answer.retry_after == world.timings.retry
    impatient, _ = world.brain.lock(request, world.now)
    assert impatient is not None
    assert isinstance(impatient.answer, LockDenied)
    world.carry_out()
    stored = world.desired(PI)
    assert stored is not None
    assert stored.granted == world.wall
    second, _ = world.brain.lock(request, world.now + Duration.minutes(1))
    assert second is not None
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


def test_a_twin_on_standby_keeps_nobody_from_being_verified() -> None:
    world = overlapping()
    new = world.agents[PI].new
    assert new is not None
    twin = world.agents[PI].make(NEW)
    world.silent[PI] = None
    for _ in range(4):
        world.pass_time(BEAT)
        world.write(heartbeat(new, Slot.B, NEW, Role.MANAGING))
        world.write(heartbeat(twin, Slot.A, NEW, Role.STANDBY))
    assert world.desired(PI).confirmed == new  # type: ignore[union-attr]  # the attempt is under way


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


def test_an_old_instance_that_came_back_on_standby_is_stopped_although_the_new_one_manages() -> None:
    world = overlapping()
    agent = world.agents[PI]
    new, slot = agent.new, agent.slot
    assert new is not None
    old = agent.make(agent.release)
    world.silent[PI] = None
    for _ in range(5):
        world.pass_time(BEAT)
        world.write(heartbeat(new, slot.other, NEW, Role.MANAGING))
        world.write(heartbeat(old, slot, agent.release, Role.STANDBY))
    assert world.desired(PI).confirmed == new  # type: ignore[union-attr]  # the attempt is under way
    assert {stop.instance for stop in world.stops} == {old}
    before = len(world.stops)
    for _ in range(8):
        world.pass_time(BEAT)
        world.write(heartbeat(new, slot.other, NEW, Role.MANAGING))
    gone = len(world.stops)
    assert gone > before
    world.pass_time(BEAT)
    assert len(world.stops) == gone


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
    assert before is not None
    world.hurry(60)
    world.start()
    world.hurry(60)
    assert world.desired(PI) == before.model_copy(update={"granted": None})


def test_whoever_stood_by_for_an_earlier_attempt_is_no_sign_of_a_slot() -> None:
    world = started(2, MaxUnavailable(count=1))
    world.rollout("r", NEW)
    world.hurry(5)
    first = next(agent for agent in world.agents.values() if agent.new is not None)
    second = next(agent for agent in world.agents.values() if agent is not first)
    world.end(first, DeferredUpgrade(phase=UpgradePhase.OVERLAPPING, reason="damaged"))
    while not second.held:
        world.hurry(1)
    world.silent[second.device] = None
    world.hurry(20)
    assert (first.phase, first.held) == (UpgradePhase.LOCKING, False)


def test_a_device_that_forgot_how_its_attempt_ended_has_to_ask_for_a_slot_again() -> None:
    world = started(2, MaxUnavailable(count=1))
    world.rollout("r", NEW)
    world.hurry(2)
    first = next(agent for agent in world.agents.values() if agent.held)
    world.end(first, RefusedUpgrade(phase=UpgradePhase.STAGING, reason="disk full"))
    world.silent[first.device] = None
    world.hurry(2)
    assert world.holding == 1
    world.silent.clear()
    first.attempt = None  # its disk was full: after a power cut nothing is left of the attempt
    world.act(first.device)
    world.act(first.device)
    world.carry_out()
    world.act(first.device)
    assert world.holding == 1


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


def test_a_rollout_of_which_all_devices_are_away_is_not_complete() -> None:
    world = World(2)
    world.silent |= dict.fromkeys(world.agents)
    world.start()
    world.rollout("r", NEW)
    world.hurry(40)
    status = world.status("r").status
    assert (status.phase, status.upgraded, status.total) == (RolloutPhase.PROGRESSING, 0, 2)
    assert "2 offline, to be upgraded when back: pi-0, pi-1" in status.message
    world.start()
    world.hurry(5)
    assert world.status("r").status.phase is RolloutPhase.PROGRESSING
    del world.silent[PI]
    world.hurry(20)
    status = world.status("r").status
    assert (status.phase, status.upgraded, status.total) == (RolloutPhase.COMPLETE, 1, 2)


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
    assert "2 follow another rollout: pi-0 (aa), pi-1 (aa)" in world.status("zz").status.message
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
    reply = Brain(world.timings).lock(request, world.now)[0]
    assert reply is not None
    answer = reply.answer
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


def test_retry_numbers() -> None:
    first = AttemptId("r-1-abc")
    assert retry_number(first, first) == 0
    assert retry_number(AttemptId("r-1-abc-r12"), first) == 12
    assert retry_number(AttemptId("r-1-abcd"), first) is None
    assert retry_number(AttemptId("r-1-abc-rx"), first) is None
    assert retry_number(None, first) is None
