"""The rollouts: which device follows which, what is asked of it, and who gets an upgrade slot. Pure.

Rules that are decided here (how a rollout moves on is `fleet.operator.rollout_status`):
- A device that several rollouts select follows the one among them that has not ended; of several such, the one that
  began first; where all have ended, the one that began last. The others name it. (A rollout that would begin beside
  another one on the same device is refused, so several happen only when devices are relabelled on the way.)
- A device that several groups of its rollout select belongs to the first of them.
- What is stored in the rollout's status decides: a group is open, a rollout halted, because it stands there.
- A device is unavailable while its attempt holds a slot, and while it is stale. One that has been stale for long is
  passed over: it neither blocks anything nor counts, and is upgraded when it comes back.

Counts are kept per device that changes, so that nothing here costs more for a larger fleet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fleet.contracts.ids import Architecture, AttemptId, DeviceId, ObjectName, Release
from fleet.contracts.objects import (
    ENDED,
    AgentRollout,
    GroupPhase,
    RollBackGroup,
    RolloutGroup,
    RolloutPhase,
    RolloutSpec,
)
from fleet.contracts.records import Artefact
from fleet.contracts.time import Instant
from fleet.operator.fleet_state import DeviceView
from fleet.operator.handover import Holding, progress
from fleet.operator.ports import OperatorTimings
from fleet.operator.standing import Goal, Judgement, Standing, is_missing, judge, judge_return, not_yet

_GIVING = (RolloutPhase.PENDING, RolloutPhase.PROGRESSING, RolloutPhase.COMPLETE, RolloutPhase.FAILED)
"""Phases in which devices may be upgraded: also after the end, for those that were away."""
_RETURNING = (RolloutPhase.ROLLING_BACK, RolloutPhase.ROLLED_BACK)
_OPEN = (GroupPhase.OPEN, GroupPhase.SOAKING, GroupPhase.PASSED)
_EXAMPLES = 3


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
    """An accepted rollout. Its object's status is what is stored, and so what is acted upon."""

    object: AgentRollout
    groups: list[Group]
    elsewhere: dict[DeviceId, ObjectName] = field(default_factory=dict)
    """Devices it selects that follow another rollout."""
    dirty: bool = True

    @property
    def phase(self) -> RolloutPhase:
        """As stored."""
        return self.object.status.phase

    def group_phase(self, index: int) -> GroupPhase:
        """As stored."""
        groups = self.object.status.groups
        return groups[index].phase if index < len(groups) else GroupPhase.WAITING

    def goal(self, architecture: Architecture) -> Goal | None:
        """The new release, for a machine."""
        return self._goal(self.object.spec.artefacts, architecture)

    def way_back(self, architecture: Architecture) -> Goal | None:
        """The release that a halted group is rolled back to, for a machine."""
        on_halt = self.object.spec.on_halt
        return self._goal(on_halt.artefacts, architecture) if isinstance(on_halt, RollBackGroup) else None

    def _goal(self, artefacts: tuple[Artefact, ...], architecture: Architecture) -> Goal | None:
        artefact = next((item for item in artefacts if item.architecture is architecture), None)
        if artefact is None:
            return None
        item, sha256 = self.object, artefact.release.sha256
        return Goal(artefact, AttemptId(f"{item.name}-{item.status.sequence}-{sha256.short}"))

    def excess(self, index: int) -> int | None:
        """How many devices of a group may fail, when more of them have; None when they have not."""
        group, max_failed = self.groups[index], self.object.spec.max_failed
        if max_failed is None:
            return None
        limit = max_failed.limit(len(group.members))
        return limit if group.tally[Standing.FAILED] > limit else None


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
        return self.rollout.group_phase(self.index) in _OPEN

    @property
    def returning(self) -> bool:
        """Whether the group was halted and is rolled back."""
        halted = self.rollout.group_phase(self.index) is GroupPhase.HALTED
        return halted and self.rollout.phase in _RETURNING


@dataclass(frozen=True, slots=True)
class Order:
    """What a rollout asks of a device. `leaving`: only if it runs this release; `lift`: although quarantined."""

    goal: Goal
    leaving: Release | None = None
    lift: bool = False


def is_accepted(rollout: AgentRollout) -> bool:
    """Whether this very spec has its place in the order of rollouts."""
    return rollout.status.sequence > 0 and rollout.status.observed_generation == rollout.metadata.generation


def objection(spec: RolloutSpec) -> str | None:
    """Why a spec cannot be carried out, or None."""
    sets = [spec.artefacts]
    if isinstance(spec.on_halt, RollBackGroup):
        sets.append(spec.on_halt.artefacts)
        releases = {artefact.release for artefact in spec.artefacts}
        if any(artefact.release in releases for artefact in spec.on_halt.artefacts):
            return "it would roll back to the very release that it brings"
    for artefacts in sets:
        versions = sorted({artefact.release.version for artefact in artefacts})
        machines = [artefact.architecture for artefact in artefacts]
        if len(versions) > 1:
            return f"the artefacts are of several versions: {', '.join(versions)}"
        if len(set(machines)) < len(machines):
            return "there are two artefacts for one architecture"
    names = [group.name for group in spec.groups]
    if len(set(names)) < len(names):
        return "there are two groups of one name"
    return None


class Plan:
    """All accepted rollouts and the devices that follow them."""

    def __init__(self, timings: OperatorTimings) -> None:
        self.rollouts: dict[ObjectName, Rollout] = {}
        self._members: dict[DeviceId, Member] = {}
        self._claims: dict[ObjectName, AgentRollout] = {}
        self._timings = timings

    def member(self, device: DeviceId) -> Member | None:
        """Where a device belongs, or None when no rollout wants it."""
        return self._members.get(device)

    def put(self, item: AgentRollout) -> bool:
        """Take an accepted rollout in; answers whether devices have to be assigned and looked at again."""
        self._claims.pop(item.name, None)
        known = self.rollouts.get(item.name)
        if known is not None and _asks_the_same(known.object, item):
            moved = _acted_upon(known.object) != _acted_upon(item)
            known.object = item
            return moved
        if known is not None:
            self.drop(item.name)
        self.rollouts[item.name] = Rollout(item, [Group(spec) for spec in item.spec.groups])
        self.rollouts = {rollout.object.name: rollout for rollout in sorted(self.rollouts.values(), key=_order)}
        return True

    def drop(self, name: ObjectName) -> bool:
        """Forget a rollout; answers whether devices have to be assigned again."""
        self._claims.pop(name, None)
        gone = self.rollouts.pop(name, None)
        if gone is None:
            return False
        for device in [device for device, member in self._members.items() if member.rollout is gone]:
            del self._members[device]
        return True

    def assign(self, view: DeviceView) -> None:
        """Find the rollout and group a device belongs to."""
        found = {name: index for name, item in self.rollouts.items() if (index := _group_of(item, view)) is not None}
        name = self._followed([self.rollouts[name] for name in found])
        chosen = None if name is None else Member(self.rollouts[name], found[name])
        for other, rollout in self.rollouts.items():
            _note_elsewhere(rollout, view.device, name if other in found and other != name else None)
        self._move(view.device, chosen)

    def _followed(self, selecting: list[Rollout]) -> ObjectName | None:
        """Which of the rollouts that select a device, in the order in which they began, it follows."""
        owners = [rollout for rollout in selecting if rollout.object.status.groups]
        active = [rollout for rollout in owners if _is_active(rollout.object)]
        if active:
            return active[0].object.name
        return owners[-1].object.name if owners else None

    def _move(self, device: DeviceId, chosen: Member | None) -> None:
        before = self._members.get(device)
        if before is not None and (chosen is None or before.group is not chosen.group):
            before.group.drop(device)
            before.rollout.dirty = True
            del self._members[device]
        if chosen is not None and before != chosen:
            self._members[device] = chosen
            chosen.rollout.dirty = True

    # --- two rollouts on one device

    def claim(self, item: AgentRollout) -> None:
        """A status that lets a rollout go on is being stored: another one is refused beside it from now on."""
        self._claims[item.name] = item

    def refusal(self, item: AgentRollout, views: Iterable[DeviceView]) -> str | None:
        """Why a rollout may not begin: it names devices of another one that has not ended. None: it may."""
        standing = {name: rollout.object for name, rollout in self.rollouts.items()} | self._claims
        others = [other for name, other in standing.items() if name != item.name and _is_active(other)]
        known = list(views)
        for other in others:
            shared = sorted(v.device for v in known if _index_in(item.spec, v) is not None and _selects(other, v))
            if shared:
                text = f"refused: rollout {other.name} has not ended and names {some(shared)} too"
                return f"{text}; this one begins when that one has ended, or was aborted or deleted"
        return None

    # --- devices

    def judge(self, view: DeviceView, wall: Instant) -> Judgement | None:
        """Look at a device again and keep the counts of its group; None when no rollout wants it."""
        member = self._members.get(view.device)
        if member is None:
            return None
        judgement = self._judged(view, member, wall)
        unavailable = judgement.standing is Standing.UNDERWAY or is_missing(view, wall, self._timings)
        if member.group.judge(view.device, judgement, unavailable):
            member.rollout.dirty = True
        return judgement

    def _judged(self, view: DeviceView, member: Member, wall: Instant) -> Judgement:
        if isinstance(progress(view, wall, self._timings.lease), Holding):
            return Judgement(Standing.UNDERWAY)
        architecture = view.architecture
        if architecture is None:
            return not_yet(view, wall, self._timings)
        goal = member.rollout.goal(architecture)
        if goal is None:
            return Judgement(Standing.FAILED, f"there is no artefact for {architecture}")
        if member.returning:
            return judge_return(view, goal, member.rollout.way_back(architecture), wall, self._timings)
        return judge(view, goal, wall, self._timings)

    def order(self, view: DeviceView) -> Order | None:
        """What its rollout asks of a device now, or None when it asks nothing."""
        member = self._members.get(view.device)
        if member is None or view.architecture is None:
            return None
        rollout = member.rollout
        goal = rollout.goal(view.architecture)
        if goal is None:
            return None
        if member.returning:
            back = rollout.way_back(view.architecture)
            return None if back is None else Order(back, leaving=goal.artefact.release)
        if member.open and rollout.phase in _GIVING:
            return Order(goal, lift=rollout.object.status.lifts)
        return None

    def room(self, device: DeviceId, wall: Instant) -> str | None:
        """None when the device may have an upgrade slot now, else the reason why not."""
        member = self._members.get(device)
        if member is None:
            return "no rollout asks for it"
        rollout, group = member.rollout, member.group
        if not member.returning:
            if rollout.phase not in _GIVING:
                return f"rollout {rollout.object.name} is {rollout.phase}"
            if not member.open:
                return f"the turn of group {group.spec.name} has not come"
            if rollout.phase not in ENDED and any(rollout.excess(i) is not None for i in range(len(rollout.groups))):
                return f"rollout {rollout.object.name} is being halted"
        windows = rollout.object.spec.windows
        if windows is not None and not windows.is_open(wall):
            return f"outside the maintenance windows of rollout {rollout.object.name}"
        others = len(group.unavailable) - (device in group.unavailable)
        limit = group.spec.max_unavailable.limit(len(group.members))
        if others >= limit:
            return f"{others} of at most {limit} devices of group {group.spec.name} are unavailable"
        return None


def some(items: Iterable[str]) -> str:
    """A few of many, for people."""
    shown = list(items)
    return ", ".join(shown[:_EXAMPLES]) + (", …" if len(shown) > _EXAMPLES else "")


def _is_active(item: AgentRollout) -> bool:
    """It has begun, or may begin at any time, and has not ended."""
    return item.status.phase not in ENDED and item.status.phase is not RolloutPhase.REFUSED


def _asks_the_same(one: AgentRollout, other: AgentRollout) -> bool:
    place = (one.metadata.generation, one.status.sequence)
    return place == (other.metadata.generation, other.status.sequence) and one.spec == other.spec


def _acted_upon(item: AgentRollout) -> tuple[object, ...]:
    """What of a status decides anything about devices."""
    return item.status.phase, tuple(group.phase for group in item.status.groups)


def _order(rollout: Rollout) -> tuple[int, str]:
    return rollout.object.status.sequence, rollout.object.name


def _index_in(spec: RolloutSpec, view: DeviceView) -> int | None:
    """The group of a spec that a device belongs to."""
    if view.object is None or objection(spec) is not None:
        return None
    labels = view.object.metadata.labels
    return next((i for i, group in enumerate(spec.groups) if group.selector.matches(labels)), None)


def _group_of(rollout: Rollout, view: DeviceView) -> int | None:
    return _index_in(rollout.object.spec, view)


def _selects(item: AgentRollout, view: DeviceView) -> bool:
    return _index_in(item.spec, view) is not None


def _note_elsewhere(rollout: Rollout, device: DeviceId, name: ObjectName | None) -> None:
    if name is not None:
        if rollout.elsewhere.get(device) != name:
            rollout.elsewhere[device] = name
            rollout.dirty = True
    elif rollout.elsewhere.pop(device, None) is not None:
        rollout.dirty = True
