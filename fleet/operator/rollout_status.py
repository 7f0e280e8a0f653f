"""How a rollout moves on: the status as it shall be stored next. Pure.

The status is the operator's memory. What is decided here is stored first and acted upon when it stands
(`fleet.operator.rollout` reads the stored one), so that no crash forgets a halt or the beginning of a soak.

Rules that are decided here:
- The next group opens when every device of the ones before is upgraded, failed or passed over, and the group has been
  healthy for its soak; but not after a group in which devices failed and none was upgraded.
- More failures in a group than `max_failed`, or a group that does not become healthy in time, halt the rollout. A halt
  holds through every change of the plan, until another release or a raised `retry` lifts it.
- A rollout is refused while it names devices of another one that has not ended.
- A rollout of which every device is away is not complete: it waits until the first of them comes back.
- An ended phase stays until the spec changes; counts and message go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.contracts.ids import DeviceId, Sha256
from fleet.contracts.objects import (
    AgentRollout,
    GroupPhase,
    GroupStatus,
    RollBackGroup,
    RolloutPhase,
    RolloutSpec,
    RolloutStatus,
    RunState,
)
from fleet.contracts.time import ZERO, Instant
from fleet.operator.fleet_state import DeviceView
from fleet.operator.handover import attempt_of
from fleet.operator.ports import OperatorTimings
from fleet.operator.rollout import Group, Rollout, objection, some
from fleet.operator.standing import Judgement, Standing, ailment, retry_number

_MOVING = (RolloutPhase.PENDING, RolloutPhase.PROGRESSING, RolloutPhase.PAUSED)


@dataclass(frozen=True, slots=True)
class Look:
    """What is known at one moment."""

    views: Mapping[DeviceId, DeviceView]
    wall: Instant
    timings: OperatorTimings


# --- a new spec --------------------------------------------------------------------------------------


def releases_of(spec: RolloutSpec) -> tuple[Sha256, ...]:
    """What a spec brings, for comparison."""
    return tuple(artefact.release.sha256 for artefact in spec.artefacts)


def begins_anew(item: AgentRollout) -> bool:
    """Whether a changed spec begins the rollout again, under names of attempts that were never used."""
    before, spec = item.status, item.spec
    if before.sequence == 0 or before.releases != releases_of(spec) or before.retry != spec.retry:
        return True
    return before.phase is RolloutPhase.COMPLETE and spec.run is not RunState.ABORTED


def accepted(item: AgentRollout, next_sequence: int, refusal: str | None) -> RolloutStatus:
    """The status with which a new spec takes its place. What earlier specs came to is kept as far as it still holds."""
    before, spec, anew = item.status, item.spec, begins_anew(item)
    groups = _carried_over(item)
    phase = _first_phase(item, groups, refusal)
    if phase is RolloutPhase.REFUSED and (before.releases != releases_of(spec) or not before.groups):
        groups = ()
    return before.model_copy(
        update={
            "observed_generation": item.metadata.generation,
            "sequence": next_sequence if anew else before.sequence,
            "retry": spec.retry,
            "releases": releases_of(spec),
            "lifts": spec.retry > before.retry if anew else before.lifts,
            "phase": phase,
            "groups": groups,
            "message": refusal or "",
        }
    )


def _carried_over(item: AgentRollout) -> tuple[GroupStatus, ...]:
    before, spec = item.status, item.spec
    known = {} if before.releases != releases_of(spec) else {group.name: group for group in before.groups}
    groups = [known.get(group.name, GroupStatus(name=group.name)) for group in spec.groups]
    if spec.retry != before.retry:
        groups = [_put(g, GroupPhase.OPEN) if g.phase is GroupPhase.HALTED else g for g in groups]
    return _in_turn(groups)


def _in_turn(groups: list[GroupStatus]) -> tuple[GroupStatus, ...]:
    """After a change of the order: the first group that has not passed is open, and no later one."""
    turn = next((i for i, group in enumerate(groups) if group.phase is not GroupPhase.PASSED), len(groups))
    for index, group in enumerate(groups):
        if index == turn and group.phase is GroupPhase.WAITING:
            groups[index] = _put(group, GroupPhase.OPEN)
        elif index > turn and group.phase in (GroupPhase.OPEN, GroupPhase.SOAKING):
            groups[index] = _put(group, GroupPhase.WAITING)
    return tuple(groups)


def _put(
    group: GroupStatus, phase: GroupPhase, done: Instant | None = None, healthy: Instant | None = None
) -> GroupStatus:
    return group.model_copy(update={"phase": phase, "done": done, "healthy": healthy})


def _first_phase(item: AgentRollout, groups: tuple[GroupStatus, ...], refusal: str | None) -> RolloutPhase:
    if item.spec.run is RunState.ABORTED:
        return RolloutPhase.ABORTED
    if refusal is not None:
        return RolloutPhase.REFUSED
    if any(group.phase is GroupPhase.HALTED for group in groups):
        return _halted(item)
    if item.spec.run is RunState.PAUSED:
        return RolloutPhase.PAUSED
    under_way = item.status.phase is RolloutPhase.PROGRESSING and not begins_anew(item)
    return RolloutPhase.PROGRESSING if under_way else RolloutPhase.PENDING


def _halted(item: AgentRollout) -> RolloutPhase:
    """What a halt leads to."""
    if not isinstance(item.spec.on_halt, RollBackGroup):
        return RolloutPhase.HALTED
    return RolloutPhase.PAUSED if item.spec.run is RunState.PAUSED else RolloutPhase.ROLLING_BACK


# --- the next status ---------------------------------------------------------------------------------


def needs_time(rollout: Rollout) -> bool:
    """Time alone may change the status: of a refused one, in a soak, or when a window opens or closes."""
    if rollout.phase is RolloutPhase.REFUSED:
        return True
    if rollout.phase not in _MOVING:
        return False
    pairs = zip(rollout.groups, rollout.object.status.groups, strict=False)
    done = any(group.finished and stands.phase in (GroupPhase.OPEN, GroupPhase.SOAKING) for group, stands in pairs)
    return done or rollout.object.spec.windows is not None


def next_status(rollout: Rollout, look: Look, refusal: str | None) -> RolloutStatus:
    """The status as it shall be stored now. `refusal` matters to a refused rollout only."""
    item = rollout.object
    if item.status.phase is RolloutPhase.REFUSED:
        return _still_refused(item, refusal)
    phase, groups = _moved(rollout, look)
    counted = tuple(_counted(stands, group) for stands, group in zip(groups, rollout.groups, strict=True))
    return item.status.model_copy(
        update={
            "phase": phase,
            "groups": counted,
            "total": sum(group.total for group in counted),
            "upgraded": sum(group.upgraded for group in counted),
            "failed": sum(group.failed for group in counted),
            "message": _message(rollout, phase, counted, look)[:1024],
        }
    )


def _still_refused(item: AgentRollout, refusal: str | None) -> RolloutStatus:
    if refusal is not None:
        return item.status.model_copy(update={"message": refusal[:1024]})
    groups = _carried_over(item)
    phase = _first_phase(item, groups, None)
    return item.status.model_copy(update={"phase": phase, "groups": groups, "message": ""})


def _counted(stands: GroupStatus, group: Group) -> GroupStatus:
    return stands.model_copy(
        update={
            "total": len(group.members),
            "upgraded": group.tally[Standing.UPGRADED],
            "failed": group.tally[Standing.FAILED],
            "offline": group.tally[Standing.PASSED_OVER],
        }
    )


def _moved(rollout: Rollout, look: Look) -> tuple[RolloutPhase, tuple[GroupStatus, ...]]:
    item, groups = rollout.object, rollout.object.status.groups
    if objection(item.spec) is not None:
        return RolloutPhase.FAILED, groups
    if item.status.phase is RolloutPhase.ROLLING_BACK:
        return _rolled_back(rollout), groups
    if item.status.phase not in _MOVING:
        return item.status.phase, groups
    halted = [index for index in range(len(groups)) if _is_to_halt(rollout, index, look)]
    if halted or any(group.phase is GroupPhase.HALTED for group in groups):
        return _halted(item), tuple(
            _put(group, GroupPhase.HALTED) if index in halted else group for index, group in enumerate(groups)
        )
    groups = _advanced(rollout, look)
    return _phase(rollout, groups), groups


def _rolled_back(rollout: Rollout) -> RolloutPhase:
    pairs = zip(rollout.groups, rollout.object.status.groups, strict=True)
    finished = all(group.finished for group, stands in pairs if stands.phase is GroupPhase.HALTED)
    return RolloutPhase.ROLLED_BACK if finished else RolloutPhase.ROLLING_BACK


def _is_to_halt(rollout: Rollout, index: int, look: Look) -> bool:
    stands, group = rollout.object.status.groups[index], rollout.groups[index]
    if rollout.excess(index) is not None:
        return True
    if stands.done is None or not group.finished or group.lost or not _is_over(rollout, index, look):
        return False
    ailing = len(_ailing(rollout, group, look))
    max_failed = rollout.object.spec.max_failed
    allowed = 0 if max_failed is None else max_failed.limit(len(group.members))
    counted = 0 if max_failed is None else group.tally[Standing.FAILED]
    return ailing > 0 and ailing + counted > allowed


def _is_over(rollout: Rollout, index: int, look: Look) -> bool:
    """The patience with a group that is done is over."""
    done = rollout.object.status.groups[index].done
    return done is not None and look.wall - done >= rollout.groups[index].spec.soak + look.timings.patience


def _advanced(rollout: Rollout, look: Look) -> tuple[GroupStatus, ...]:
    """Groups soak, pass and open as far as they can."""
    groups = list(rollout.object.status.groups)
    if not any(group.members for group in rollout.groups):
        return tuple(groups)
    for index, stands in enumerate(groups):
        if stands.phase is GroupPhase.PASSED:
            continue
        if stands.phase is GroupPhase.WAITING and rollout.object.spec.run is not RunState.RUNNING:
            break
        groups[index] = _soaked(rollout, index, look)
        if groups[index].phase is not GroupPhase.PASSED:
            break
    return tuple(groups)


def _soaked(rollout: Rollout, index: int, look: Look) -> GroupStatus:
    """How far an open group is: at work, in its soak, or through."""
    stands, group = rollout.object.status.groups[index], rollout.groups[index]
    if not group.members:
        return _put(stands, GroupPhase.PASSED)
    if not group.finished or group.lost:
        return _put(stands, GroupPhase.OPEN)
    done, is_last = stands.done or look.wall, index == len(rollout.groups) - 1
    over = _is_over(rollout, index, look)
    if group.tally[Standing.PASSED_OVER] == len(group.members):
        passes = _was_tried(rollout) if is_last else over
        return _put(stands, GroupPhase.PASSED if passes else GroupPhase.OPEN, done)
    if over or (is_last and group.spec.soak == ZERO):
        return _put(stands, GroupPhase.PASSED, done, stands.healthy)
    if _ailing(rollout, group, look):
        return _put(stands, GroupPhase.OPEN, done)
    healthy = stands.healthy or look.wall
    phase = GroupPhase.PASSED if look.wall - healthy >= group.spec.soak else GroupPhase.SOAKING
    return _put(stands, phase, done, healthy)


def _was_tried(rollout: Rollout) -> bool:
    """At least one device was upgraded or failed, and is not only away."""
    return any(group.tally[Standing.UPGRADED] + group.tally[Standing.FAILED] for group in rollout.groups)


def _ailing(rollout: Rollout, group: Group, look: Look) -> list[tuple[DeviceId, str]]:
    """The devices of a group that this rollout upgraded and that are not well, with the reason."""
    found = []
    for device, judged in group.members.items():
        view = look.views[device]
        reason = ailment(view) if judged.standing is Standing.UPGRADED and _is_ours(rollout, view) else None
        if reason is not None:
            found.append((device, reason))
    return sorted(found)


def _is_ours(rollout: Rollout, view: DeviceView) -> bool:
    goal = None if view.architecture is None else rollout.goal(view.architecture)
    return goal is not None and retry_number(attempt_of(view), goal.first) is not None


def _phase(rollout: Rollout, groups: tuple[GroupStatus, ...]) -> RolloutPhase:
    if rollout.object.spec.run is RunState.PAUSED:
        return RolloutPhase.PAUSED
    if not any(group.members for group in rollout.groups):
        begun = rollout.object.status.phase is RolloutPhase.PROGRESSING
        return RolloutPhase.FAILED if begun and rollout.elsewhere else RolloutPhase.PENDING
    pairs = list(zip(rollout.groups, groups, strict=True))
    if any(group.lost and stands.phase is GroupPhase.OPEN for group, stands in pairs):
        return RolloutPhase.FAILED
    passed = all(group.finished and stands.phase is GroupPhase.PASSED for group, stands in pairs)
    if not passed or not _was_tried(rollout):
        return RolloutPhase.PROGRESSING
    failed = any(group.tally[Standing.FAILED] for group in rollout.groups)
    return RolloutPhase.FAILED if failed else RolloutPhase.COMPLETE


# --- for people --------------------------------------------------------------------------------------


def _message(rollout: Rollout, phase: RolloutPhase, groups: tuple[GroupStatus, ...], look: Look) -> str:
    refused = objection(rollout.object.spec)
    if refused is not None:
        return refused
    parts = [_halt(rollout, groups), _failures(rollout), _offline(rollout), _lost_to_others(rollout)]
    if not any(group.members for group in rollout.groups) and not rollout.elsewhere:
        parts.append("no device is selected")
    if phase in _MOVING:
        parts += [_gate(rollout, groups, look), _window(rollout, look)]
    lost = next((i for i, group in enumerate(rollout.groups) if group.lost), None)
    if lost is not None and lost < len(groups) - 1 and phase is RolloutPhase.FAILED:
        parts.append(f"stopped after group {groups[lost].name}, in which no device succeeded")
    return "; ".join(part for part in parts if part)


def _halt(rollout: Rollout, groups: tuple[GroupStatus, ...]) -> str:
    reasons = []
    for index, group in enumerate(groups):
        if group.phase is GroupPhase.HALTED:
            limit = rollout.excess(index)
            many = f"{group.failed} failed, {limit} may" if limit is not None else "it did not stay healthy"
            reasons.append(f"halted in group {group.name}: {many}")
    return "; ".join(reasons)


def _failures(rollout: Rollout) -> str:
    failed = [f"{device} ({judged.reason})" for device, judged in members(rollout, Standing.FAILED)]
    return f"{len(failed)} failed: {some(failed)}" if failed else ""


def _offline(rollout: Rollout) -> str:
    passed = members(rollout, Standing.PASSED_OVER)
    offline = [str(device) for device, judged in passed if not judged.reason]
    cloned = [f"{device} ({judged.reason})" for device, judged in passed if judged.reason]
    parts = [f"{len(offline)} offline, to be upgraded when back: {some(offline)}"] if offline else []
    parts += [f"{len(cloned)} left alone: {some(cloned)}"] if cloned else []
    return "; ".join(parts)


def _lost_to_others(rollout: Rollout) -> str:
    others = [f"{device} ({name})" for device, name in sorted(rollout.elsewhere.items())]
    return f"{len(others)} follow another rollout: {some(others)}" if others else ""


def _gate(rollout: Rollout, groups: tuple[GroupStatus, ...], look: Look) -> str:
    for group, stands in zip(rollout.groups, groups, strict=True):
        if stands.phase is GroupPhase.SOAKING and stands.healthy is not None:
            return f"group {stands.name} soaks until {Instant(stands.healthy + group.spec.soak).utc()}"
        if stands.phase is GroupPhase.OPEN and stands.done is not None:
            ailing = [f"{device} ({reason})" for device, reason in _ailing(rollout, group, look)]
            return f"group {stands.name} waits to be healthy: {some(ailing)}" if ailing else ""
    return ""


def _window(rollout: Rollout, look: Look) -> str:
    windows = rollout.object.spec.windows
    if windows is None or windows.is_open(look.wall):
        return ""
    return f"outside the maintenance windows; the next one opens at {windows.next_opening(look.wall).utc()}"


def members(rollout: Rollout, standing: Standing) -> list[tuple[DeviceId, Judgement]]:
    """The devices of a standing, sorted."""
    found = [pair for group in rollout.groups for pair in group.members.items() if pair[1].standing is standing]
    return sorted(found, key=lambda pair: pair[0])
