"""The rollouts: which device follows which, whose turn it is, who gets an upgrade slot, and how far they are.

Rules that are decided here:
- A device that several rollouts select follows the one whose spec was accepted last; the others name it.
- A device that several groups of its rollout select belongs to the first of them.
- Groups go in order. The next one opens when every device of the ones before is upgraded, failed or passed over;
  but not after a group in which devices failed and none was upgraded. An opened group stays open.
- A device is unavailable while its attempt holds a slot, and while it is stale. One that has been stale for long is
  passed over: it neither blocks anything nor counts, and is upgraded when it comes back.

Counts are kept per device that changes, so that nothing here costs more for a larger fleet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

from fleet.contracts.ids import Architecture, AttemptId, DeviceId, ObjectName
from fleet.contracts.objects import AgentRollout, RolloutGroup, RolloutPhase, RolloutSpec, RolloutStatus
from fleet.contracts.records import Artefact, DeferredUpgrade, RefusedUpgrade, RolledBack, Succeeded
from fleet.contracts.time import Instant
from fleet.operator.fleet_state import DeviceView
from fleet.operator.handover import Asking, Ended, Holding, NoAttempt, Overdue, attempt_of, progress
from fleet.operator.ports import OperatorTimings

_EXAMPLES = 3


class Standing(Enum):
    """Where one device is in its rollout."""

    WAITING = "waiting"
    UNDERWAY = "under way"
    UPGRADED = "upgraded"
    FAILED = "failed"
    PASSED_OVER = "offline"


_FINISHED = (Standing.UPGRADED, Standing.FAILED, Standing.PASSED_OVER)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A device's standing, with the reason for people."""

    standing: Standing
    reason: str = ""


@dataclass(slots=True)
class Group:
    """One group of a rollout, with what its devices are at."""

    spec: RolloutGroup
    members: dict[DeviceId, Judgement] = field(default_factory=dict)
    unavailable: dict[DeviceId, None] = field(default_factory=dict)
    tally: dict[Standing, int] = field(default_factory=lambda: dict.fromkeys(Standing, 0))

    @property
    def finished(self) -> bool:
        """Nothing of it is waiting or under way."""
        return self.tally[Standing.WAITING] + self.tally[Standing.UNDERWAY] == 0

    @property
    def lost(self) -> bool:
        """Finished, and whoever tried it failed."""
        return self.finished and self.tally[Standing.FAILED] > 0 and self.tally[Standing.UPGRADED] == 0

    def judge(self, device: DeviceId, judgement: Judgement, unavailable: bool) -> bool:
        """Note what a member is at; answers whether that is news."""
        before = self.members.get(device)
        if unavailable:
            self.unavailable[device] = None
        else:
            self.unavailable.pop(device, None)
        if before == judgement:
            return False
        if before is not None:
            self.tally[before.standing] -= 1
        self.tally[judgement.standing] += 1
        self.members[device] = judgement
        return True

    def drop(self, device: DeviceId) -> None:
        """The device is no member any more."""
        judgement = self.members.pop(device, None)
        self.unavailable.pop(device, None)
        if judgement is not None:
            self.tally[judgement.standing] -= 1


@dataclass(slots=True)
class Rollout:
    """An accepted rollout."""

    object: AgentRollout
    groups: list[Group]
    opened: int = 0
    """Index of the last group whose turn has come."""
    elsewhere: dict[DeviceId, ObjectName] = field(default_factory=dict)
    """Devices it selects that follow a later rollout."""
    dirty: bool = True

    def artefact(self, architecture: Architecture) -> Artefact | None:
        """The artefact for a machine."""
        return next((item for item in self.object.spec.artefacts if item.architecture is architecture), None)

    def attempt(self, artefact: Artefact) -> AttemptId:
        """The id of the first attempt of each device."""
        metadata = self.object.metadata
        return AttemptId(f"{metadata.name}-{metadata.generation}-{artefact.release.sha256.short}")


@dataclass(frozen=True, slots=True)
class Member:
    """The place of a device in the rollout it follows."""

    rollout: Rollout
    index: int

    @property
    def group(self) -> Group:
        """Its group."""
        return self.rollout.groups[self.index]

    @property
    def open(self) -> bool:
        """Whether the group's turn has come."""
        return self.index <= self.rollout.opened


def is_accepted(rollout: AgentRollout) -> bool:
    """Whether this very spec has its place in the order of rollouts."""
    return rollout.status.sequence > 0 and rollout.status.observed_generation == rollout.metadata.generation


def objection(spec: RolloutSpec) -> str | None:
    """Why a spec cannot be carried out, or None."""
    versions = sorted({artefact.release.version for artefact in spec.artefacts})
    machines = [artefact.architecture for artefact in spec.artefacts]
    if len(versions) > 1:
        return f"the artefacts are of several versions: {', '.join(versions)}"
    if len(set(machines)) < len(machines):
        return "there are two artefacts for one architecture"
    return None


class Plan:
    """All accepted rollouts and the devices that follow them."""

    def __init__(self, timings: OperatorTimings) -> None:
        self.rollouts: dict[ObjectName, Rollout] = {}
        self._members: dict[DeviceId, Member] = {}
        self._timings = timings

    def member(self, device: DeviceId) -> Member | None:
        """Where a device belongs, or None when no rollout wants it."""
        return self._members.get(device)

    def put(self, item: AgentRollout) -> bool:
        """Take an accepted rollout in; answers whether devices have to be assigned again."""
        known = self.rollouts.get(item.name)
        if known is not None and _asks_the_same(known.object, item):
            known.object = item
            return False
        if known is not None:
            self.drop(item.name)
        self.rollouts[item.name] = Rollout(item, [Group(spec) for spec in item.spec.groups])
        newest_first = sorted(self.rollouts.values(), key=_order, reverse=True)
        self.rollouts = {rollout.object.name: rollout for rollout in newest_first}
        return True

    def drop(self, name: ObjectName) -> bool:
        """Forget a rollout; answers whether devices have to be assigned again."""
        gone = self.rollouts.pop(name, None)
        if gone is None:
            return False
        for device in [device for device, member in self._members.items() if member.rollout is gone]:
            del self._members[device]
        return True

    def assign(self, view: DeviceView) -> None:
        """Find the rollout and group a device belongs to."""
        chosen: Member | None = None
        for rollout in self.rollouts.values():
            index = _group_of(rollout, view)
            if index is None or chosen is not None:
                _note_elsewhere(rollout, view.device, None if index is None else chosen)
                continue
            chosen = Member(rollout, index)
            _note_elsewhere(rollout, view.device, None)
        self._move(view.device, chosen)

    def _move(self, device: DeviceId, chosen: Member | None) -> None:
        before = self._members.get(device)
        if before is not None and (chosen is None or before.group is not chosen.group):
            before.group.drop(device)
            before.rollout.dirty = True
            del self._members[device]
        if chosen is not None and before != chosen:
            self._members[device] = chosen
            chosen.rollout.dirty = True

    def judge(self, view: DeviceView, at: Instant, wall: Instant) -> Judgement | None:
        """Look at a device again and keep the counts of its group; None when no rollout wants it."""
        member = self._members.get(view.device)
        if member is None:
            return None
        judgement = judge(view, member, wall, self._timings)
        unavailable = judgement.standing is Standing.UNDERWAY or is_missing(view, wall, self._timings)
        if member.group.judge(view.device, judgement, unavailable):
            member.rollout.dirty = True
        return judgement

    def advance(self) -> list[DeviceId]:
        """Open the groups whose turn has come; answers their devices."""
        woken: list[DeviceId] = []
        for rollout in self.rollouts.values():
            while rollout.opened < len(rollout.groups) - 1 and _turns(rollout.groups[rollout.opened]):
                rollout.opened += 1
                rollout.dirty = True
                woken.extend(rollout.groups[rollout.opened].members)
        return woken

    def room(self, device: DeviceId) -> str | None:
        """None when the device may have an upgrade slot now, else the reason why not."""
        member = self._members.get(device)
        if member is None:
            return "no rollout asks for it"
        group = member.group
        if not member.open:
            return f"the turn of group {group.spec.name} has not come"
        others = len(group.unavailable) - (device in group.unavailable)
        limit = group.spec.max_unavailable.limit(len(group.members))
        if others >= limit:
            return f"{others} of at most {limit} devices of group {group.spec.name} are unavailable"
        return None


def _asks_the_same(one: AgentRollout, other: AgentRollout) -> bool:
    place = (one.metadata.generation, one.status.sequence)
    return place == (other.metadata.generation, other.status.sequence) and one.spec == other.spec


def _order(rollout: Rollout) -> tuple[int, str]:
    return rollout.object.status.sequence, rollout.object.name


def _group_of(rollout: Rollout, view: DeviceView) -> int | None:
    if view.object is None or objection(rollout.object.spec) is not None:
        return None
    labels = view.object.metadata.labels
    return next((i for i, group in enumerate(rollout.groups) if group.spec.selector.matches(labels)), None)


def _note_elsewhere(rollout: Rollout, device: DeviceId, chosen: Member | None) -> None:
    if chosen is not None:
        if rollout.elsewhere.get(device) != chosen.rollout.object.name:
            rollout.elsewhere[device] = chosen.rollout.object.name
            rollout.dirty = True
    elif rollout.elsewhere.pop(device, None) is not None:
        rollout.dirty = True


def _turns(group: Group) -> bool:
    return group.finished and not group.lost


# --- one device --------------------------------------------------------------------------------------


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


def judge(view: DeviceView, member: Member, wall: Instant, timings: OperatorTimings) -> Judgement:
    """A device's standing in its rollout."""
    now = progress(view, wall, timings.lease)
    if isinstance(now, Holding):
        return Judgement(Standing.UNDERWAY)
    if view.info is None:
        return _not_yet(view, wall, timings)
    artefact = member.rollout.artefact(view.info.architecture)
    if artefact is None:
        return Judgement(Standing.FAILED, f"there is no artefact for {view.info.architecture}")
    runs_it = view.release == artefact.release
    number = retry_number(attempt_of(view), member.rollout.attempt(artefact))
    if number is None:
        return Judgement(Standing.UPGRADED) if runs_it else _not_yet(view, wall, timings)
    match now:
        case Ended(status=Succeeded()):
            fell_back = view.fallen_back > 1
            return Judgement(Standing.FAILED, "fell back after success") if fell_back else Judgement(Standing.UPGRADED)
        case Ended(status=RolledBack() as status):
            return Judgement(Standing.FAILED, f"rolled back in {status.phase}: {status.reason}")
        case Ended(status=RefusedUpgrade() as status):
            return Judgement(Standing.FAILED, f"refused in {status.phase}: {status.reason}")
        case Ended(status=DeferredUpgrade() as status) if number >= timings.deferred_retries:
            return Judgement(Standing.FAILED, f"deferred {number + 1} times in {status.phase}: {status.reason}")
        case Overdue():
            return Judgement(Standing.FAILED, f"no terminal status within {timings.lease}")
        case NoAttempt() | Asking() | Ended():
            return Judgement(Standing.UPGRADED) if runs_it else _not_yet(view, wall, timings)
        case _:
            assert_never(now)


def _not_yet(view: DeviceView, wall: Instant, timings: OperatorTimings) -> Judgement:
    return Judgement(Standing.PASSED_OVER if is_passed_over(view, wall, timings) else Standing.WAITING)


# --- the status --------------------------------------------------------------------------------------


def status_of(rollout: Rollout) -> RolloutStatus:
    """The status as it shall be written now. A terminal phase stays for its generation; counts and message go on."""
    before = rollout.object.status
    total = sum(len(group.members) for group in rollout.groups)
    phase = before.phase if before.phase in _TERMINAL_PHASES else _phase(rollout, total)
    return RolloutStatus(
        observed_generation=before.observed_generation,
        sequence=before.sequence,
        phase=phase,
        total=total,
        upgraded=_tally(rollout, Standing.UPGRADED),
        failed=_tally(rollout, Standing.FAILED),
        message=_message(rollout, total)[:1024],
    )


_TERMINAL_PHASES = (RolloutPhase.COMPLETE, RolloutPhase.FAILED)


def _tally(rollout: Rollout, standing: Standing) -> int:
    return sum(group.tally[standing] for group in rollout.groups)


def _phase(rollout: Rollout, total: int) -> RolloutPhase:
    if objection(rollout.object.spec) is not None:
        return RolloutPhase.FAILED
    if total == 0:
        begun = rollout.object.status.phase is RolloutPhase.PROGRESSING
        return RolloutPhase.FAILED if begun and rollout.elsewhere else RolloutPhase.PENDING
    opened = rollout.groups[: rollout.opened + 1]
    if not all(group.finished for group in opened):
        return RolloutPhase.PROGRESSING
    if _tally(rollout, Standing.FAILED) > 0:
        ended = _is_last(rollout) or opened[-1].lost
        return RolloutPhase.FAILED if ended else RolloutPhase.PROGRESSING
    done = _is_last(rollout) and _tally(rollout, Standing.UPGRADED) > 0
    return RolloutPhase.COMPLETE if done else RolloutPhase.PROGRESSING


def _is_last(rollout: Rollout) -> bool:
    return rollout.opened == len(rollout.groups) - 1


def _message(rollout: Rollout, total: int) -> str:
    refused = objection(rollout.object.spec)
    if refused is not None:
        return refused
    parts = [_failures(rollout), _offline(rollout), _lost_to_others(rollout)]
    if total == 0 and not rollout.elsewhere:
        parts.append("no device is selected")
    lost = next((group.spec.name for group in rollout.groups if group.lost), None)
    if lost is not None and not _is_last(rollout):
        parts.append(f"stopped after group {lost}, in which no device succeeded")
    return "; ".join(part for part in parts if part)


def _failures(rollout: Rollout) -> str:
    failed = [f"{device} ({judged.reason})" for device, judged in _members(rollout, Standing.FAILED)]
    return f"{len(failed)} failed: {_some(failed)}" if failed else ""


def _offline(rollout: Rollout) -> str:
    offline = [str(device) for device, _ in _members(rollout, Standing.PASSED_OVER)]
    return f"{len(offline)} offline, to be upgraded when back: {_some(offline)}" if offline else ""


def _lost_to_others(rollout: Rollout) -> str:
    others = [f"{device} ({name})" for device, name in sorted(rollout.elsewhere.items())]
    return f"{len(others)} follow a later rollout: {_some(others)}" if others else ""


def _members(rollout: Rollout, standing: Standing) -> list[tuple[DeviceId, Judgement]]:
    found = [pair for group in rollout.groups for pair in group.members.items() if pair[1].standing is standing]
    return sorted(found, key=lambda pair: pair[0])


def _some(items: Iterable[str]) -> str:
    shown = list(items)
    return ", ".join(shown[:_EXAMPLES]) + (", …" if len(shown) > _EXAMPLES else "")
