"""Soaks, health gates, halts, ways back, pauses, windows and rollouts beside each other, event by event."""

from __future__ import annotations

import pytest

from fleet.contracts.ids import DeviceId, Percent
from fleet.contracts.objects import (
    AgentRollout,
    Device,
    GroupPhase,
    HaltOnly,
    MaxFailed,
    MaxUnavailable,
    RollBackGroup,
    RolloutGroup,
    RolloutPhase,
    RolloutSpec,
    RunState,
)
from fleet.contracts.records import LockDenied, LockRequest, UpgradePhase
from fleet.contracts.time import ZERO, Duration
from fleet.contracts.windows import MaintenanceWindows, Window
from tests.fleet.operator.rollout_world import BEAT, NEW, NEWER, OLD, World, artefact, group

A, B, C, D = (DeviceId(f"pi-{i}") for i in range(4))
MINUTE = Duration.minutes(1)
ONE = MaxUnavailable(count=1)


def fleet(*rings: str) -> World:
    """One device per word, which is its ring."""
    world = World(len(rings))
    for device, ring in zip(world.agents, rings, strict=True):
        world.label(device, ring=ring)
    world.start()
    world.pass_time(MINUTE)
    return world


def ring(name: str, soak: Duration = ZERO) -> RolloutGroup:
    return group(name, ONE, ring=name).model_copy(update={"soak": soak})


def spec(*groups: RolloutGroup, **parts: object) -> RolloutSpec:
    plain = RolloutSpec(artefacts=(artefact(NEW),), groups=groups)
    return RolloutSpec.model_validate(plain.model_copy(update=parts).model_dump())


BACK = RollBackGroup(artefacts=(artefact(OLD),))


def phases(world: World, name: str = "r") -> list[GroupPhase]:
    return [stands.phase for stands in world.status(name).status.groups]


def to_overlap(world: World, device: DeviceId) -> None:
    for _ in range(10):
        if world.agents[device].phase is UpgradePhase.OVERLAPPING:
            return
        world.act(device)
        world.carry_out()
    raise AssertionError(f"{device} does not get to its overlap")


def failing(world: World, device: DeviceId) -> None:
    """The new release is bad on this device."""
    to_overlap(world, device)
    world.fail(device)
    world.carry_out()


def upgrading(world: World, device: DeviceId) -> None:
    """The new release is good on this device."""
    to_overlap(world, device)
    for _ in range(10):
        world.pass_time(BEAT)
        world.act(device)
        world.carry_out()
        if world.agents[device].release == NEW and world.agents[device].phase is None:
            return
    raise AssertionError(f"{device} was not upgraded")


def ask(world: World, device: DeviceId) -> str:
    """Why a device that asks for its slot does not get it."""
    desired = world.desired(device)
    assert desired is not None
    request = LockRequest(device=device, attempt=desired.attempt, instance=world.agents[device].instance)
    reply, instructions = world.brain.lock(request, world.now)
    world.take(instructions)
    world.carry_out()
    assert reply is not None
    return reply.answer.reason if isinstance(reply.answer, LockDenied) else ""


RECORDED = "the slot is being recorded"


# --- soak and health gate ----------------------------------------------------------------------------


def test_the_next_group_opens_after_the_soak_and_not_before() -> None:
    world = fleet("a", "b")
    world.plan("r", spec(ring("a", MINUTE * 10), ring("b")))
    upgrading(world, A)
    world.pass_time(MINUTE)
    assert phases(world) == [GroupPhase.SOAKING, GroupPhase.WAITING]
    world.pass_time(MINUTE * 8)
    assert world.desired(B) is None
    world.pass_time(MINUTE * 2)
    assert phases(world) == [GroupPhase.PASSED, GroupPhase.OPEN]
    assert world.desired(B) is not None


def test_a_soak_goes_on_through_restarts_of_the_operator() -> None:
    world = fleet("a", "b")
    world.plan("r", spec(ring("a", MINUTE * 10), ring("b")))
    upgrading(world, A)
    for _ in range(11):
        world.pass_time(MINUTE)
        world.start()
    world.pass_time(MINUTE)
    assert phases(world)[0] is GroupPhase.PASSED


@pytest.mark.parametrize("trouble", ["stale", "unhealthy", "restarts"])
def test_a_device_that_is_not_well_begins_the_soak_again(trouble: str) -> None:
    world = fleet("a", "b")
    world.plan("r", spec(ring("a", MINUTE * 10), ring("b")))
    upgrading(world, A)
    world.pass_time(MINUTE * 5)
    agent = world.agents[A]
    match trouble:
        case "stale":
            world.silent[A] = None
        case "unhealthy":
            world.ailing[A] = None
        case _:
            agent.instance = [agent.make(NEW) for _ in range(3)][-1]
    world.pass_time(MINUTE * 7)
    assert phases(world) == [GroupPhase.OPEN, GroupPhase.WAITING]
    assert "group a waits to be healthy: pi-0" in world.status("r").status.message
    world.silent.clear()
    world.ailing.clear()
    if trouble == "restarts":
        world.reboot(A)
    world.pass_time(MINUTE * 9)
    assert phases(world) == [GroupPhase.SOAKING, GroupPhase.WAITING]
    world.pass_time(MINUTE * 3)
    assert phases(world)[0] is GroupPhase.PASSED


def test_a_group_that_never_becomes_healthy_halts_the_rollout() -> None:
    world = fleet("a", "b")
    world.plan("r", spec(ring("a", MINUTE * 10), ring("b")))
    upgrading(world, A)
    world.ailing[A] = None
    world.pass_time(world.timings.patience + MINUTE * 12)
    assert world.status("r").status.phase is RolloutPhase.HALTED
    assert "halted in group a: it did not stay healthy" in world.status("r").status.message
    assert world.desired(B) is None


def test_as_many_ailing_devices_as_may_fail_do_not_hold_a_group_for_ever() -> None:
    world = fleet("a", "b")
    world.plan("r", spec(ring("a", MINUTE * 10), ring("b"), max_failed=MaxFailed(count=1)))
    upgrading(world, A)
    world.ailing[A] = None
    world.pass_time(world.timings.patience + MINUTE * 12)
    assert phases(world) == [GroupPhase.PASSED, GroupPhase.OPEN]


def test_a_device_that_was_unwell_before_and_runs_the_release_already_holds_nobody_up() -> None:
    world = fleet("a", "b")
    world.agents[A].release, world.ailing[A] = NEW, None
    world.agents[A].instance = world.agents[A].make(NEW)
    world.pass_time(MINUTE)
    world.plan("r", spec(ring("a"), ring("b")))
    world.pass_time(MINUTE)
    assert phases(world)[0] is GroupPhase.PASSED


def test_a_group_of_which_all_are_away_is_waited_for_but_not_for_ever() -> None:
    world = fleet("a", "b")
    world.silent[A] = None
    world.pass_time(world.timings.offline + MINUTE * 3)
    world.plan("r", spec(ring("a"), ring("b")))
    world.pass_time(MINUTE * 5)
    assert phases(world) == [GroupPhase.OPEN, GroupPhase.WAITING]
    world.pass_time(world.timings.patience)
    assert phases(world) == [GroupPhase.PASSED, GroupPhase.OPEN]
    upgrading(world, B)
    world.pass_time(MINUTE)
    assert world.status("r").status.phase is RolloutPhase.COMPLETE
    assert "1 offline, to be upgraded when back: pi-0" in world.status("r").status.message
    world.silent.clear()
    world.hurry(10)
    assert world.agents[A].release == NEW


def test_a_group_without_devices_is_passed_at_once() -> None:
    world = fleet("b")
    world.plan("r", spec(ring("a", MINUTE * 60), ring("b")))
    world.pass_time(BEAT)
    assert phases(world) == [GroupPhase.PASSED, GroupPhase.OPEN]


def test_a_device_that_joins_a_group_in_its_soak_is_upgraded_and_soaks_too() -> None:
    world = fleet("a", "x", "b")
    world.plan("r", spec(ring("a", MINUTE * 10), ring("b")))
    upgrading(world, A)
    world.pass_time(MINUTE * 5)
    world.label(B, ring="a")
    world.pass_time(MINUTE)
    assert phases(world) == [GroupPhase.OPEN, GroupPhase.WAITING]
    upgrading(world, B)
    world.pass_time(MINUTE * 9)
    assert phases(world)[0] is GroupPhase.SOAKING


def test_a_device_that_leaves_its_group_in_the_middle_is_not_waited_for() -> None:
    world = fleet("a", "a", "b")
    world.plan("r", spec(ring("a"), ring("b")))
    upgrading(world, A)
    world.label(B, ring="elsewhere")
    world.pass_time(MINUTE)
    assert phases(world) == [GroupPhase.PASSED, GroupPhase.OPEN]
    assert world.status("r").status.total == 2


# --- halts -------------------------------------------------------------------------------------------


def test_more_failures_than_allowed_halt_and_nobody_else_gets_a_slot() -> None:
    world = fleet("a", "a", "a", "b")
    world.plan("r", spec(ring("a"), ring("b"), max_failed=MaxFailed(percent=Percent(34))))
    failing(world, A)
    world.pass_time(MINUTE)
    assert world.status("r").status.phase is RolloutPhase.PROGRESSING
    failing(world, B)
    assert ask(world, C) == "rollout r is being halted"
    world.pass_time(MINUTE)
    status = world.status("r").status
    assert (status.phase, status.failed) == (RolloutPhase.HALTED, 2)
    assert "halted in group a: 2 failed, 1 may" in status.message
    assert phases(world) == [GroupPhase.HALTED, GroupPhase.WAITING]
    assert ask(world, C) == "rollout r is Halted"
    world.hurry(60)
    assert [agent.release for agent in world.agents.values()] == [OLD] * 4


def test_attempts_under_way_at_a_halt_end_by_themselves() -> None:
    world = fleet("a", "a", "a")
    two = group("a", MaxUnavailable(count=2), ring="a")
    world.plan("r", spec(two, max_failed=MaxFailed(count=0)))
    to_overlap(world, A)
    to_overlap(world, B)
    world.fail(A)
    world.hurry(10)
    assert world.status("r").status.phase is RolloutPhase.HALTED
    assert world.agents[B].release == NEW
    assert (world.agents[C].release, world.holding) == (OLD, 0)


def test_a_halt_outlives_the_failures_that_led_to_it_and_every_change_of_the_plan() -> None:
    world = fleet("a", "a", "b")
    world.plan("r", spec(ring("a"), ring("b"), max_failed=MaxFailed(count=0)))
    failing(world, A)
    world.pass_time(MINUTE)
    world.remove_object(Device, "pi-0")
    world.start()
    world.pass_time(MINUTE)
    assert world.status("r").status.phase is RolloutPhase.HALTED
    world.edit("r", max_failed=MaxFailed(count=5))
    world.hurry(10)
    assert world.status("r").status.phase is RolloutPhase.HALTED
    assert world.agents[B].release == OLD


def test_a_retry_lifts_the_halt_and_the_quarantine() -> None:
    world = fleet("a", "b")
    world.plan("r", spec(ring("a"), ring("b"), max_failed=MaxFailed(count=0)))
    failing(world, A)
    world.pass_time(MINUTE)
    assert world.agents[A].quarantined
    world.edit("r", retry=1)
    world.carry_out()
    desired = world.desired(A)
    assert desired is not None
    assert desired.lift_quarantine
    assert desired.attempt == f"r-2-{'b' * 12}"
    world.hurry(30)
    assert [agent.release for agent in world.agents.values()] == [NEW] * 2
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_nothing_but_a_retry_lifts_a_quarantine() -> None:
    world = fleet("a", "b")
    world.plan("r", spec(ring("a"), ring("b")))
    failing(world, A)
    world.pass_time(MINUTE)
    world.edit("r", groups=(ring("a"), ring("b", MINUTE)))
    world.hurry(10)
    desired = world.desired(A)
    assert desired is not None
    assert (desired.attempt, desired.lift_quarantine) == (f"r-1-{'b' * 12}", False)


# --- the way back ------------------------------------------------------------------------------------


def test_a_halted_group_is_brought_back_and_no_other() -> None:
    world = fleet("a", "b", "b", "c")
    world.plan("r", spec(ring("a"), ring("b"), ring("c"), max_failed=MaxFailed(count=0), on_halt=BACK))
    upgrading(world, A)
    world.pass_time(BEAT)
    upgrading(world, B)
    failing(world, C)
    world.pass_time(BEAT)
    assert world.status("r").status.phase is RolloutPhase.ROLLING_BACK
    desired = world.desired(B)
    assert desired is not None
    assert (desired.artefact.release, desired.attempt) == (OLD, f"r-1-{'a' * 12}")
    world.hurry(15)
    assert [agent.release for agent in world.agents.values()] == [NEW, OLD, OLD, OLD]
    assert world.status("r").status.phase is RolloutPhase.ROLLED_BACK
    assert world.desired(D) is None


def test_a_device_that_ends_its_upgrade_after_the_halt_is_brought_back_too() -> None:
    world = fleet("a", "a")
    two = group("a", MaxUnavailable(count=2), ring="a")
    world.plan("r", spec(two, max_failed=MaxFailed(count=0), on_halt=BACK))
    to_overlap(world, A)
    to_overlap(world, B)
    world.fail(A)
    world.hurry(30)
    assert [agent.release for agent in world.agents.values()] == [OLD, OLD]
    assert world.status("r").status.phase is RolloutPhase.ROLLED_BACK


def test_a_device_that_was_away_is_brought_back_when_it_returns() -> None:
    world = fleet("a", "a")
    world.plan("r", spec(ring("a"), max_failed=MaxFailed(count=0), on_halt=BACK))
    upgrading(world, A)
    world.silent[A] = None
    world.pass_time(world.timings.offline + MINUTE * 3)
    failing(world, B)
    world.pass_time(MINUTE)
    assert world.status("r").status.phase is RolloutPhase.ROLLED_BACK
    world.silent.clear()
    world.hurry(10)
    assert world.agents[A].release == OLD


def test_a_device_that_cannot_go_back_is_named_and_the_rollout_ends() -> None:
    world = fleet("a", "a")
    world.plan("r", spec(ring("a"), max_failed=MaxFailed(count=0), on_halt=BACK))
    upgrading(world, A)
    world.agents[A].quarantined[OLD.sha256] = None
    failing(world, B)
    world.hurry(5)
    status = world.status("r").status
    assert status.phase is RolloutPhase.ROLLED_BACK
    assert "pi-0 (not rolled back: refused in locking: quarantined)" in status.message


def test_a_way_back_to_the_same_release_is_objected_to() -> None:
    world = fleet("a")
    world.plan("r", spec(ring("a"), on_halt=RollBackGroup(artefacts=(artefact(NEW),))))
    world.pass_time(MINUTE)
    assert world.status("r").status.phase is RolloutPhase.FAILED
    assert "very release" in world.status("r").status.message


# --- pause, resume, abort ----------------------------------------------------------------------------


def test_a_paused_rollout_gives_no_slot_from_the_moment_it_is_asked_to_pause() -> None:
    world = fleet("a", "a")
    world.plan("r", spec(group("a", MaxUnavailable(count=2), ring="a")))
    to_overlap(world, A)
    world.edit("r", run=RunState.PAUSED)
    assert ask(world, B) in ("rollout r has been changed", "rollout r is Paused")
    world.hurry(20)
    assert [agent.release for agent in world.agents.values()] == [NEW, OLD]
    assert world.status("r").status.phase is RolloutPhase.PAUSED
    assert ask(world, B) == "rollout r is Paused"
    world.start()
    world.hurry(5)
    assert world.agents[B].release == OLD
    world.edit("r", run=RunState.RUNNING)
    world.hurry(20)
    assert world.status("r").status.phase is RolloutPhase.COMPLETE
    assert world.status("r").status.sequence == 1


def test_no_group_opens_during_a_pause() -> None:
    world = fleet("a", "b")
    world.plan("r", spec(ring("a"), ring("b")))
    to_overlap(world, A)
    world.edit("r", run=RunState.PAUSED)
    world.hurry(10)
    assert world.agents[A].release == NEW
    assert world.desired(B) is None


def test_an_aborted_rollout_leaves_every_device_as_it_is() -> None:
    world = fleet("a", "a", "a")
    world.plan("r", spec(ring("a")))
    upgrading(world, A)
    to_overlap(world, B)
    before = world.desired(C)
    world.edit("r", run=RunState.ABORTED)
    world.hurry(60)
    assert [agent.release for agent in world.agents.values()] == [NEW, NEW, OLD]
    assert world.status("r").status.phase is RolloutPhase.ABORTED
    assert world.desired(C) == before
    assert world.holding == 0


def test_a_retry_begins_an_aborted_rollout_again() -> None:
    world = fleet("a", "a")
    world.plan("r", spec(ring("a")))
    world.edit("r", run=RunState.ABORTED)
    world.hurry(2)
    world.edit("r", run=RunState.RUNNING, retry=1)
    world.hurry(20)
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


# --- windows -----------------------------------------------------------------------------------------


def test_slots_are_given_in_a_window_alone_and_attempts_under_way_finish() -> None:
    world = fleet("a", "a")  # its clock shows 14:14 UTC on Monday, 2026-09-21
    weekly = tuple(Window(start=start, length=MINUTE * 10) for start in ("15:00", "16:00"))
    windows = MaintenanceWindows(time_zone="UTC", weekly=weekly)
    world.plan("r", spec(ring("a"), windows=windows))
    world.act(A)
    assert ask(world, A) == "outside the maintenance windows of rollout r"
    world.pass_time(MINUTE)
    message = world.status("r").status.message
    assert message == "outside the maintenance windows; the next one opens at 2026-09-21T15:00:00.000Z"
    world.hurry(20)
    assert world.holding == 0
    wait_for(world, windows)
    world.pass_time(MINUTE * 9)
    to_overlap(world, A)
    world.hurry(20)
    assert [agent.release for agent in world.agents.values()] == [NEW, OLD]
    wait_for(world, windows)
    world.hurry(8)
    assert [agent.release for agent in world.agents.values()] == [NEW, NEW]


def wait_for(world: World, windows: MaintenanceWindows) -> None:
    for _ in range(120):
        if windows.is_open(world.wall):
            return
        world.pass_time(MINUTE)


# --- changes of plan ---------------------------------------------------------------------------------


def test_groups_that_change_places_in_mid_flight() -> None:
    world = fleet("a", "b", "c")
    world.plan("r", spec(ring("a"), ring("b"), ring("c")))
    upgrading(world, A)
    world.pass_time(MINUTE)
    assert phases(world) == [GroupPhase.PASSED, GroupPhase.OPEN, GroupPhase.WAITING]
    world.edit("r", groups=(ring("c"), ring("a"), ring("b")))
    world.carry_out()
    assert phases(world) == [GroupPhase.OPEN, GroupPhase.PASSED, GroupPhase.WAITING]
    assert ask(world, B) == "the turn of group b has not come"
    world.hurry(20)
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_a_changed_plan_keeps_the_names_of_attempts() -> None:
    world = fleet("a", "a")
    world.plan("r", spec(ring("a")))
    to_overlap(world, A)
    before = world.desired(A)
    world.edit("r", groups=(ring("a", MINUTE),))
    world.carry_out()
    assert world.desired(A) == before
    world.hurry(20)
    assert world.status("r").status.phase is RolloutPhase.COMPLETE


def test_another_release_in_mid_flight_begins_with_the_first_group_again() -> None:
    world = fleet("a", "b")
    world.plan("r", spec(ring("a"), ring("b")))
    upgrading(world, A)
    world.pass_time(MINUTE)
    world.edit("r", artefacts=(artefact(NEWER),))
    world.carry_out()
    assert phases(world) == [GroupPhase.OPEN, GroupPhase.WAITING]
    world.hurry(30)
    assert [agent.release for agent in world.agents.values()] == [NEWER] * 2


def test_a_rollout_that_is_deleted_and_made_again_never_uses_the_name_of_an_attempt_twice() -> None:
    world = fleet("a")
    world.plan("r", spec(ring("a")))
    failing(world, A)
    world.pass_time(MINUTE)
    world.remove_object(AgentRollout, "r")
    world.start()
    world.pass_time(MINUTE)
    world.plan("r", spec(ring("a")))
    world.carry_out()
    assert world.status("r").status.sequence == 2


# --- two rollouts ------------------------------------------------------------------------------------


def test_a_rollout_on_a_device_of_another_is_refused_until_that_one_has_ended() -> None:
    world = fleet("a", "b")
    world.plan("first", spec(ring("a")))
    world.plan("second", spec(group("all", ONE), artefacts=(artefact(NEWER),)))
    world.pass_time(MINUTE)
    status = world.status("second").status
    assert status.phase is RolloutPhase.REFUSED
    assert "rollout first has not ended and names pi-0 too" in status.message
    assert world.desired(B) is None
    world.start()
    world.pass_time(MINUTE)
    assert world.status("second").status.phase is RolloutPhase.REFUSED
    world.hurry(30)
    assert world.status("first").status.phase is RolloutPhase.COMPLETE
    assert world.status("second").status.phase is RolloutPhase.COMPLETE
    assert [agent.release for agent in world.agents.values()] == [NEWER] * 2


@pytest.mark.parametrize("heal", ["delete", "abort", "halt"])
def test_a_refused_rollout_begins_when_the_other_is_out_of_the_way(heal: str) -> None:
    world = fleet("a", "a")
    world.plan("first", spec(ring("a"), max_failed=MaxFailed(count=0), on_halt=HaltOnly()))
    world.plan("second", spec(ring("a"), artefacts=(artefact(NEWER),)))
    world.pass_time(MINUTE)
    match heal:
        case "delete":
            world.remove_object(AgentRollout, "first")
        case "abort":
            world.edit("first", run=RunState.ABORTED)
        case _:
            failing(world, A)
    world.hurry(30)
    assert world.status("second").status.phase is RolloutPhase.COMPLETE
    assert [agent.release for agent in world.agents.values()] == [NEWER] * 2


def test_of_several_refused_rollouts_one_begins_at_a_time() -> None:
    world = fleet("a", "a")
    world.plan("first", spec(ring("a")))
    for name in ("z", "m", "b"):
        world.plan(name, spec(ring("a"), artefacts=(artefact(NEWER if name == "z" else OLD),)))
    world.pass_time(MINUTE)
    world.edit("first", run=RunState.ABORTED)
    world.pass_time(BEAT)
    now = {name: world.status(name).status.phase for name in ("z", "m", "b")}
    assert now["m"] is now["b"] is RolloutPhase.REFUSED
    assert now["z"] is not RolloutPhase.REFUSED


def test_a_paused_rollout_keeps_its_devices() -> None:
    world = fleet("a")
    world.plan("first", spec(ring("a"), run=RunState.PAUSED))
    world.plan("second", spec(ring("a"), artefacts=(artefact(NEWER),)))
    world.hurry(10)
    assert world.status("second").status.phase is RolloutPhase.REFUSED
    assert world.agents[A].release == OLD


def test_a_rollout_that_grows_onto_a_device_of_another_is_refused_and_its_devices_stay() -> None:
    world = fleet("a", "b")
    world.plan("old", spec(ring("a"), artefacts=(artefact(OLD),)))
    world.hurry(2)
    world.plan("first", spec(ring("a")))
    upgrading(world, A)
    world.plan("second", spec(ring("b"), artefacts=(artefact(NEWER),), run=RunState.PAUSED))
    world.edit("first", groups=(ring("a"), ring("b")))
    world.hurry(10)
    assert world.status("first").status.phase is RolloutPhase.REFUSED
    assert [agent.release for agent in world.agents.values()] == [NEW, OLD]
    world.edit("second", run=RunState.ABORTED)
    world.hurry(20)
    assert [agent.release for agent in world.agents.values()] == [NEW, NEW]
