"""Bugs in how a rollout moves on: slots, limits, halts, the way back, soaks, windows, devices that are away."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fleet.contracts.ids import DeviceId
from fleet.contracts.objects import AgentRollout, RolloutPhase
from fleet.contracts.records import DesiredAgent, LockDenied, LockGranted, LockRequest
from fleet.contracts.time import Instant
from fleet.operator import rollout, rollout_status, standing
from fleet.operator.brain import Brain
from fleet.operator.fleet_state import DeviceView
from fleet.operator.ports import OperatorTimings
from fleet.operator.rollout import Group, Member, Plan, Rollout
from fleet.operator.standing import Judgement
from tests.planted.plant import CHECK, STUCK, Bug, Patch
from tests.planted.stories import (
    ABORTED,
    ANOTHER_ZONE,
    AWAY,
    BAD_IN_THE_REST,
    HALTS,
    PLAIN,
    SILENT_ENGINE,
    SOAK_AND_RESTARTS,
)

LIMITS: Final = "rollout-limits"
GATE: Final = "health-gate"
STORED: Final = "slot-stored-first"


# --- slots ---------------------------------------------------------------------------------------------


def slot_never_stored(patch: Patch) -> None:
    wanted, lock = Brain._wanted, Brain._lock

    def without(brain: Brain, *arguments: object) -> DesiredAgent | None:
        record = wanted(brain, *arguments)  # type: ignore[arg-type]  # handed on as they came
        return None if record is None else record.model_copy(update={"granted": None})

    def from_memory(brain: Brain, request: LockRequest, at: Instant) -> LockGranted | LockDenied | None:
        answer = lock(brain, request, at)
        if isinstance(answer, LockDenied) and answer.reason == "the slot is being recorded":
            return LockGranted(lease=brain._timings.lease)
        return answer

    patch.setattr(Brain, "_wanted", without)
    patch.setattr(Brain, "_lock", from_memory)


def slot_given_before_it_is_stored(patch: Patch) -> None:
    ask = Brain._ask

    def at_once(brain: Brain, view: DeviceView, at: Instant, wall: Instant) -> LockGranted | LockDenied | None:
        denied = ask(brain, view, at, wall)
        return denied if view.granting is None else LockGranted(lease=brain._timings.lease)

    patch.setattr(Brain, "_ask", at_once)


def abort_not_heeded(patch: Patch) -> None:
    patch.setattr(rollout, "_GIVING", (*rollout._GIVING, RolloutPhase.ABORTED))


def windows_in_the_wrong_zone(patch: Patch) -> None:
    room = Plan.room

    def in_utc(plan: Plan, device: DeviceId, wall: Instant) -> str | None:
        member = plan.member(device)
        windows = None if member is None else member.rollout.object.spec.windows
        if member is None or windows is None:
            return room(plan, device, wall)
        item: AgentRollout = member.rollout.object
        spec = item.spec.model_copy(update={"windows": windows.model_copy(update={"time_zone": "UTC"})})
        member.rollout.object = item.changed(spec=spec)
        try:
            return room(plan, device, wall)
        finally:
            member.rollout.object = item

    patch.setattr(Plan, "room", in_utc)


# --- halts and the way back ----------------------------------------------------------------------------


def one_more_failure_than_allowed(patch: Patch) -> None:
    excess = Rollout.excess

    def generous(item: Rollout, index: int) -> int | None:
        limit = excess(item, index)
        return limit if limit is None or item.groups[index].tally[standing.Standing.FAILED] > limit + 1 else None

    patch.setattr(Rollout, "excess", generous)


def failures_never_halt(patch: Patch) -> None:
    def never(item: Rollout, index: int) -> int | None:
        return None

    patch.setattr(Rollout, "excess", never)


def halted_group_not_rolled_back(patch: Patch) -> None:
    def only_halted(item: AgentRollout) -> RolloutPhase:
        return RolloutPhase.HALTED

    patch.setattr(rollout_status, "_halted", only_halted)


def rollback_touches_another_group(patch: Patch) -> None:
    def everybody(member: Member) -> bool:
        return member.rollout.phase in rollout._RETURNING

    patch.setattr(Member, "returning", property(everybody))


def rollback_ends_at_once(patch: Patch) -> None:
    order = Plan.order

    def nothing(plan: Plan, view: DeviceView) -> rollout.Order | None:
        member = plan.member(view.device)
        return None if member is not None and member.returning else order(plan, view)

    def done(item: Rollout) -> RolloutPhase:
        return RolloutPhase.ROLLED_BACK

    def none(view: DeviceView, *rest: object) -> Judgement:
        return Judgement(standing.Standing.FORMER)

    patch.setattr(rollout_status, "_rolled_back", done)
    patch.setattr(rollout, "judge_return", none)
    patch.setattr(Plan, "order", nothing)


# --- soaks and health ----------------------------------------------------------------------------------


def soak_forgotten_at_restart(patch: Patch) -> None:
    applied = Brain._rollout_applied

    def forgetful(brain: Brain, item: AgentRollout, at: Instant) -> None:
        if not brain.ready:
            groups = tuple(group.model_copy(update={"healthy": None, "done": None}) for group in item.status.groups)
            item = item.changed(status=item.status.model_copy(update={"groups": groups}))
        applied(brain, item, at)

    patch.setattr(Brain, "_rollout_applied", forgetful)


def soak_over_at_restart(patch: Patch) -> None:
    applied = Brain._rollout_applied

    def hasty(brain: Brain, item: AgentRollout, at: Instant) -> None:
        if not brain.ready:
            groups = tuple(
                group.model_copy(update={"healthy": None if group.healthy is None else Instant(1)})
                for group in item.status.groups
            )
            item = item.changed(status=item.status.model_copy(update={"groups": groups}))
        applied(brain, item, at)

    patch.setattr(Brain, "_rollout_applied", hasty)


def health_not_looked_at(patch: Patch) -> None:
    def well(item: Rollout, group: Group, look: rollout_status.Look) -> list[tuple[DeviceId, str]]:
        return []

    patch.setattr(rollout_status, "_ailing", well)


# --- devices that are away, and attempts that have to be made again ---------------------------------------


def devices_away_waited_for(patch: Patch) -> None:
    def never(view: DeviceView, wall: Instant, timings: OperatorTimings) -> bool:
        return False

    patch.setattr(standing, "is_passed_over", never)


def devices_away_given_up(patch: Patch) -> None:
    patch.setattr(rollout, "_GIVING", (RolloutPhase.PENDING, RolloutPhase.PROGRESSING))


def deferred_attempt_not_made_again(patch: Patch) -> None:
    def never(brain: Brain, view: DeviceView, number: int, at: Instant) -> bool:
        return False

    patch.setattr(Brain, "_retry_is_due", never)


def retry_lifts_nothing(patch: Patch) -> None:
    order = Plan.order

    def plain(plan: Plan, view: DeviceView) -> rollout.Order | None:
        found = order(plan, view)
        return None if found is None else replace(found, lift=False)

    patch.setattr(Plan, "order", plain)


BUGS: Final = (
    Bug(
        "slot never stored",
        "a restarted operator knows nothing of the slots it gave",
        PLAIN,
        (STORED,),
        slot_never_stored,
    ),
    Bug(
        "slot given before it is stored",
        "an operator that is killed right after a grant gives the slot twice",
        PLAIN,
        (STORED,),
        slot_given_before_it_is_stored,
        cut="kill! bus update desired device-001.agent#2",
    ),
    Bug("abort not heeded", "a rollout that was called off goes on", ABORTED, (LIMITS, CHECK), abort_not_heeded),
    Bug(
        "windows read in another zone",
        "an upgrade begins in working hours",
        ANOTHER_ZONE,
        (LIMITS,),
        windows_in_the_wrong_zone,
    ),
    Bug("one more failure than allowed", "max_failed off by one", HALTS, (CHECK, STUCK), one_more_failure_than_allowed),
    Bug("failures never halt", "a bad release works its way through the fleet", HALTS, (STUCK,), failures_never_halt),
    Bug(
        "halted group not rolled back",
        "half of a group stays on a release that is known to be bad",
        BAD_IN_THE_REST,
        (STUCK, CHECK),
        halted_group_not_rolled_back,
    ),
    Bug(
        "rollback touches another group",
        "devices on which the release works are taken back too",
        BAD_IN_THE_REST,
        (LIMITS, CHECK),
        rollback_touches_another_group,
    ),
    Bug(
        "rollback said to be over at once",
        "a group is reported as taken back, and is not",
        "rollout/halted-group-is-rolled-back.toml",
        (CHECK,),
        rollback_ends_at_once,
    ),
    Bug(
        "soak forgotten at restart",
        "an operator that is restarted now and then never opens the next group",
        SOAK_AND_RESTARTS,
        (CHECK,),
        soak_forgotten_at_restart,
    ),
    Bug(
        "soak over at restart",
        "a restart of the operator opens the next group early",
        SOAK_AND_RESTARTS,
        (GATE,),
        soak_over_at_restart,
    ),
    Bug(
        "health not looked at",
        "the next group begins while the one before is ailing",
        "rollout/health-gate-holds-the-next-group.toml",
        (CHECK, STUCK),
        health_not_looked_at,
    ),
    Bug(
        "devices that are away waited for",
        "one Pi in a drawer blocks the fleet",
        AWAY,
        (STUCK, CHECK),
        devices_away_waited_for,
    ),
    Bug(
        "devices that are away given up",
        "who comes back later is never upgraded",
        AWAY,
        (STUCK, CHECK),
        devices_away_given_up,
    ),
    Bug(
        "deferred attempt not made again",
        "a drain that overran once leaves the device behind for ever",
        SILENT_ENGINE,
        (STUCK, CHECK),
        deferred_attempt_not_made_again,
    ),
    Bug(
        "retry lifts nothing",
        "a release that failed in a bad hour can never be brought to that device again",
        "rollout/retry-lifts-the-quarantine.toml",
        (STUCK, CHECK),
        retry_lifts_nothing,
    ),
)
