"""Bugs in the operator: its brain, the hand-over as it sees it, rollouts, placement, and its loop."""

from __future__ import annotations

from typing import Final

from fleet.contracts.ids import DeploymentName, DeviceId, InstanceId
from fleet.contracts.layout import Invalid
from fleet.contracts.objects import GroupPhase, GroupStatus, RolloutPhase
from fleet.contracts.podman import PodmanScore
from fleet.contracts.records import LockDenied, UpgradeState
from fleet.contracts.time import ZERO, Duration, Instant
from fleet.operator import handover, rollout, rollout_status
from fleet.operator.brain import Brain
from fleet.operator.election import Election
from fleet.operator.events import Delete, SendStop, Update
from fleet.operator.fleet_state import DeviceView, FleetState, Seen, Trial
from fleet.operator.loop import _Hands
from fleet.operator.placement import Placement
from fleet.operator.ports import OperatorTimings
from fleet.operator.rollout import Group, Plan, Rollout
from fleet.operator.standing import Standing
from tests.planted.plant import CHECK, STUCK, Bug, Patch
from tests.planted.stories import (
    DARK_IN_THE_SOAK,
    GARBAGE,
    GROUPS,
    HALF,
    ONE_BY_ONE,
    PAIR_AND_REST,
    PAUSED,
    REMOVED,
    RETURN,
    STRAIGHT,
    TWO_AT_ONCE,
    TWO_OPERATORS,
    WINDOWS,
)

STOP: Final = "stop-only-after-verified"
LIMITS: Final = "rollout-limits"
GATE: Final = "health-gate"


# --- the hand-over -------------------------------------------------------------------------------------


def stopped_at_the_first_heartbeat(patch: Patch) -> None:
    def at_once(view: DeviceView, timings: OperatorTimings) -> InstanceId | None:
        return None if view.trial is None else view.trial.instance

    patch.setattr(handover, "verified", at_once)


def new_instance_stopped(patch: Patch) -> None:
    def itself(view: DeviceView, new: Seen, report: UpgradeState | None) -> InstanceId | None:
        return new.instance

    patch.setattr(handover, "_predecessor", itself)


def stop_sent_once_and_lost(patch: Patch) -> None:
    stop, send = Brain._stop, _Hands._send_stop
    sent: dict[DeviceId, None] = {}

    def once(brain: Brain, view: DeviceView, at: Instant) -> None:
        if view.stop_sent is None:
            stop(brain, view, at)

    async def lost(hands: _Hands, work: SendStop) -> None:
        if work.request.device in sent:
            await send(hands, work)
        sent[work.request.device] = None

    patch.setattr(Brain, "_stop", once)
    patch.setattr(_Hands, "_send_stop", lost)


def any_heartbeat_counts(patch: Patch) -> None:
    def generous(view: DeviceView, seen: Seen, at: Instant, longest_gap: Duration) -> None:
        if view.desired is None:
            return
        trial = view.trial
        if trial is None or trial.instance != seen.instance:
            trial = view.trial = Trial(seen.instance, view.desired.artefact.release, at, at, 0)
        trial.count += 1
        trial.latest = at

    patch.setattr(handover, "count", generous)


def never_confirmed(patch: Patch) -> None:
    def nobody(view: DeviceView, timings: OperatorTimings) -> InstanceId | None:
        return None

    patch.setattr(handover, "confirmation", nobody)


# --- rollouts ------------------------------------------------------------------------------------------


def one_more_than_allowed(patch: Patch) -> None:
    room = Plan.room

    def generous(plan: Plan, device: DeviceId, wall: Instant) -> str | None:
        reason = room(plan, device, wall)
        return None if reason is not None and reason.startswith("1 of at most 1 ") else reason

    patch.setattr(Plan, "room", generous)


def soak_left_out(patch: Patch) -> None:
    soaked = rollout_status._soaked

    def hasty(item: Rollout, index: int, look: rollout_status.Look) -> GroupStatus:
        group = item.groups[index]
        item.groups[index] = Group(
            group.spec.model_copy(update={"soak": ZERO}), group.members, group.unavailable, group.tally
        )
        status = soaked(item, index, look)
        item.groups[index] = group
        return status

    patch.setattr(rollout_status, "_soaked", hasty)


def group_passed_before_its_devices_are_done(patch: Patch) -> None:
    patch.setattr(Group, "finished", property(lambda group: group.tally[Standing.UPGRADED] > 0))


def soak_not_begun_again(patch: Patch) -> None:
    soaked = rollout_status._soaked

    def patient(item: Rollout, index: int, look: rollout_status.Look) -> GroupStatus:
        stands, status = item.object.status.groups[index], soaked(item, index, look)
        if status.phase is GroupPhase.OPEN and status.done is not None:
            return status.model_copy(update={"healthy": stands.healthy})
        return status

    patch.setattr(rollout_status, "_soaked", patient)


def pause_not_heeded(patch: Patch) -> None:
    patch.setattr(rollout, "_GIVING", (*rollout._GIVING, RolloutPhase.PAUSED))


def windows_not_heeded(patch: Patch) -> None:
    room = Plan.room

    def always(plan: Plan, device: DeviceId, wall: Instant) -> str | None:
        reason = room(plan, device, wall)
        return None if reason is not None and reason.startswith("outside the maintenance") else reason

    patch.setattr(Plan, "room", always)


def second_rollout_accepted(patch: Patch) -> None:
    def welcome(plan: Plan, item: object, views: object) -> str | None:
        return None

    patch.setattr(Plan, "refusal", welcome)


def nobody_gets_a_slot(patch: Patch) -> None:
    def never(brain: Brain, view: DeviceView, at: Instant, wall: Instant) -> LockDenied:
        return LockDenied(reason="not now", retry_after=brain._timings.lock_retry)

    patch.setattr(Brain, "_ask", never)


# --- replicas ------------------------------------------------------------------------------------------


def lease_not_looked_at(patch: Patch) -> None:
    patch.setattr(Election, "leads", property(lambda election: True))
    patch.setattr(Election, "acts", property(lambda election: True))


# --- data and workloads --------------------------------------------------------------------------------


def garbage_is_not_expected(patch: Patch) -> None:
    def surprise(state: FleetState, read: Invalid) -> None:
        raise ValueError(f"{read.key} is unreadable")

    patch.setattr(FleetState, "_invalid", surprise)


def garbage_never_healed(patch: Patch) -> None:
    def keep(brain: Brain, view: DeviceView, *rest: object) -> None:
        if view.agent.last and not view.agent.stands:
            return
        desire(brain, view, *rest)  # type: ignore[arg-type]  # handed on as they came

    desire = Brain._desire
    patch.setattr(Brain, "_desire", keep)


def removed_workloads_left(patch: Patch) -> None:
    instructions = Placement.instructions

    def only_when_needed(placement: Placement, view: DeviceView) -> list[Update | Delete]:
        return instructions(placement, view) if placement.deployments else []

    patch.setattr(Placement, "instructions", only_when_needed)


def selectors_not_looked_at(patch: Patch) -> None:
    def everybody(placement: Placement, view: DeviceView) -> dict[DeploymentName, PodmanScore]:
        if view.object is None:
            return {}
        return {DeploymentName(name): item.spec.score for name, item in placement.deployments.items()}

    patch.setattr(Placement, "wanted", everybody)


BUGS: Final = (
    Bug(
        "old instance stopped at the first heartbeat",
        "success is declared before it is verified",
        STRAIGHT,
        (STOP,),
        stopped_at_the_first_heartbeat,
    ),
    Bug(
        "new instance stopped in place of the old",
        "a stop to the wrong incarnation",
        STRAIGHT,
        (STOP,),
        new_instance_stopped,
    ),
    Bug(
        "stop sent once and lost",
        "the old agent never exits, and two run side by side",
        STRAIGHT,
        (STUCK,),
        stop_sent_once_and_lost,
    ),
    Bug(
        "heartbeats of any release count",
        "the old instance vouches for a release that never ran",
        RETURN,
        (STOP, STUCK, CHECK),
        any_heartbeat_counts,
    ),
    Bug(
        "nobody is ever confirmed",
        "a good release is rolled back everywhere",
        STRAIGHT,
        (CHECK, STUCK),
        never_confirmed,
    ),
    Bug("one more device than allowed", "limit off by one", ONE_BY_ONE, (LIMITS,), one_more_than_allowed),
    Bug("soak left out", "a release that fails after minutes reaches everybody", GROUPS, (GATE,), soak_left_out),
    Bug(
        "group passed before its devices are done",
        "the next group begins beside the first one",
        PAIR_AND_REST,
        (GATE,),
        group_passed_before_its_devices_are_done,
    ),
    Bug(
        "soak not begun again after ill health",
        "a group passes that was well for the last minute only",
        DARK_IN_THE_SOAK,
        (GATE,),
        soak_not_begun_again,
    ),
    Bug("pause not heeded", "a rollout goes on while people look into it", PAUSED, (LIMITS,), pause_not_heeded),
    Bug("windows not heeded", "devices are upgraded in the middle of the day", WINDOWS, (LIMITS,), windows_not_heeded),
    Bug(
        "second rollout for the same devices accepted",
        "a device in two groups",
        TWO_AT_ONCE,
        (CHECK,),
        second_rollout_accepted,
    ),
    Bug("nobody gets a slot", "a rollout that stands still for ever", STRAIGHT, (STUCK,), nobody_gets_a_slot),
    Bug(
        "lease not looked at",
        "two replicas act, and give the same slots twice",
        TWO_OPERATORS,
        ("one-operator-acts",),
        lease_not_looked_at,
    ),
    Bug(
        "operator crashes on garbage",
        "one bad object takes the control plane down",
        GARBAGE,
        ("operator-never-restarts-because-of-data",),
        garbage_is_not_expected,
    ),
    Bug(
        "garbage is never written over",
        "a poisoned key holds its device back for ever",
        GARBAGE,
        (STUCK,),
        garbage_never_healed,
    ),
    Bug(
        "removed workloads left",
        "containers of a deleted deployment run on",
        REMOVED,
        (STUCK, CHECK),
        removed_workloads_left,
    ),
    Bug(
        "selectors not looked at",
        "a workload reaches devices that nobody meant",
        HALF,
        (STUCK, CHECK),
        selectors_not_looked_at,
    ),
)
