"""Where one device stands in its rollout, and whether it is well. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from fleet.contracts.ids import AttemptId
from fleet.contracts.records import Artefact, DeferredUpgrade, RefusedUpgrade, Role, RolledBack, Succeeded
from fleet.contracts.time import Instant
from fleet.operator import clones
from fleet.operator.fleet_state import DeviceView, Seen
from fleet.operator.handover import Asking, Ended, Holding, NoAttempt, Overdue, attempt_of, progress
from fleet.operator.ports import OperatorTimings


class Standing(Enum):
    """Where one device is in its rollout."""

    WAITING = "waiting"
    UNDERWAY = "under way"
    UPGRADED = "upgraded"
    FAILED = "failed"
    PASSED_OVER = "offline"
    FORMER = "on its former release"
    """Its group was halted and is rolled back, and it does not run the new release (any more)."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A device's standing, with the reason for people."""

    standing: Standing
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Goal:
    """An artefact for a device, and the id of the first attempt to bring the device there."""

    artefact: Artefact
    first: AttemptId


def is_missing(view: DeviceView, wall: Instant, timings: OperatorTimings) -> bool:
    """Stale, and not for so long that it is passed over."""
    return not view.alive and not is_passed_over(view, wall, timings)


def is_passed_over(view: DeviceView, wall: Instant, timings: OperatorTimings) -> bool:
    """Stale for so long that the rollout goes on without it."""
    return not view.alive and (view.offline_since is None or wall - view.offline_since >= timings.offline)


def retry_number(attempt: AttemptId | None, first: AttemptId) -> int | None:
    """Which repetition of the first attempt this is (0: the first itself); None when it is another one altogether."""
    if attempt == first:
        return 0
    prefix = f"{first}-r"
    if attempt is None or not attempt.startswith(prefix) or not attempt[len(prefix) :].isdecimal():
        return None
    return int(attempt[len(prefix) :])


def judge(view: DeviceView, goal: Goal, wall: Instant, timings: OperatorTimings) -> Judgement:
    """How far a device is on its way to the new release."""
    now = progress(view, wall, timings.lease)
    if isinstance(now, Holding):
        return Judgement(Standing.UNDERWAY)
    if view.cloned is not None:
        return Judgement(Standing.PASSED_OVER, clones.REASON)
    runs_it = view.release == goal.artefact.release
    number = retry_number(attempt_of(view), goal.first)
    if number is None:
        return Judgement(Standing.UPGRADED) if runs_it else not_yet(view, wall, timings)
    if isinstance(now, Ended) and isinstance(now.status, Succeeded):
        fell_back = view.fallen_back > 1
        return Judgement(Standing.FAILED, "fell back after success") if fell_back else Judgement(Standing.UPGRADED)
    reason = _failure(now, number, timings)
    if reason is not None:
        return Judgement(Standing.FAILED, reason)
    return Judgement(Standing.UPGRADED) if runs_it else not_yet(view, wall, timings)


def judge_return(view: DeviceView, new: Goal, old: Goal | None, wall: Instant, timings: OperatorTimings) -> Judgement:
    """How far a device of a halted group is on its way back from the new release."""
    now = progress(view, wall, timings.lease)
    if isinstance(now, Holding):
        return Judgement(Standing.UNDERWAY)
    if view.cloned is not None:
        return Judgement(Standing.PASSED_OVER, clones.REASON)
    if view.release != new.artefact.release:
        upgrade = judge(view, new, wall, timings)
        return upgrade if upgrade.standing is Standing.FAILED else Judgement(Standing.FORMER)
    if old is None:
        return Judgement(Standing.FAILED, "not rolled back: there is no former artefact for this machine")
    number = retry_number(attempt_of(view), old.first)
    reason = None if number is None else _failure(now, number, timings)
    if number is not None and view.fallen_back > 1:
        reason = "it fell back to the new release"
    return not_yet(view, wall, timings) if reason is None else Judgement(Standing.FAILED, f"not rolled back: {reason}")


def not_yet(view: DeviceView, wall: Instant, timings: OperatorTimings) -> Judgement:
    """It still has to move: it waits, or is away."""
    return Judgement(Standing.PASSED_OVER if is_passed_over(view, wall, timings) else Standing.WAITING)


def _failure(now: NoAttempt | Asking | Holding | Overdue | Ended, number: int, timings: OperatorTimings) -> str | None:
    """Why an attempt that is its rollout's own has failed for good; None when it has not."""
    match now:
        case Ended(status=RolledBack() as status):
            return f"rolled back in {status.phase}: {status.reason}"
        case Ended(status=RefusedUpgrade() as status):
            return f"refused in {status.phase}: {status.reason}"
        case Ended(status=DeferredUpgrade() as status) if number >= timings.deferred_retries:
            return f"deferred {number + 1} times in {status.phase}: {status.reason}"
        case Overdue():
            return f"no terminal status within {timings.lease}"
        case NoAttempt() | Asking() | Holding() | Ended():
            return None
        case _:
            assert_never(now)


def ailment(view: DeviceView) -> str | None:
    """Why a device that was upgraded is not well; None when it is."""
    managing = [seen for seen in view.slots.values() if seen.role is Role.MANAGING]
    newest = max(managing, key=lambda seen: seen.revision, default=None)
    if not view.alive:
        return "stale"
    if view.fallen_back:
        return "fell back"
    if newest is None:
        return None
    restarts = _restarts(view, newest)
    if restarts >= _TOO_MANY_RESTARTS:
        return f"its agent was restarted {restarts} times since it was confirmed"
    return None if newest.healthy else "unhealthy workloads"


_TOO_MANY_RESTARTS = 3


def _restarts(view: DeviceView, newest: Seen) -> int:
    """How often the agent was started in this boot of the machine since the operator confirmed an instance of it."""
    confirmed = None if view.desired is None else view.desired.confirmed
    if confirmed is None or newest.instance.boot != confirmed.boot:
        return 0
    return newest.instance.start - confirmed.start
