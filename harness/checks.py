"""Whether a fact holds, kept up to date change by change, and the five kinds of check over it.

A fact over devices keeps one bit per device and a count, so that a change costs the same in a fleet of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, assert_never

from fleet.contracts.ids import DeploymentName, DeviceId
from fleet.contracts.objects import AgentRollout, GroupPhase
from fleet.contracts.records import Succeeded
from fleet.contracts.time import Duration, Instant
from harness.scenario import Cast
from harness.schema_checks import Always, AnyCheck, Eventually, Final, LeadsTo, Never
from harness.schema_facts import (
    Count,
    DeviceFact,
    DevicePhaseIs,
    Fact,
    FleetFact,
    InstallsKept,
    InstallsRefused,
    InvalidEntries,
    IsCloned,
    LeaderIs,
    OperatorIs,
    OperatorStarts,
    PerDeviceFact,
    Quantifier,
    Quarantined,
    ReleaseIs,
    RolloutCounts,
    RolloutGroupIs,
    RolloutIs,
    SecretsMade,
    UpgradeIs,
    WorkloadIs,
)
from harness.view import DeviceView, FleetView

Report = Callable[[str, str, DeviceId | None], None]
"""Told of a violation: the rule, the evidence, and the device it concerns, if it is one."""


# --- facts -------------------------------------------------------------------------------------------


def holds_on(fact: PerDeviceFact, device: DeviceView, view: FleetView) -> bool:
    """Whether the fact is true of one device."""
    match fact:
        case DevicePhaseIs():
            return device.phase is fact.phase
        case ReleaseIs():
            return device.managing is not None and device.managing.version == fact.release
        case WorkloadIs(condition="ready"):
            return workload_ready(device, fact.deployment)
        case WorkloadIs():
            return workload_absent(device, fact.deployment)
        case UpgradeIs():
            report = device.upgrade
            if report is None or report.status.status != fact.status:
                return False
            if fact.phase is not None and (
                isinstance(report.status, Succeeded) or report.status.phase is not fact.phase
            ):
                return False
            return fact.release is None or report.release.version == fact.release
        case Quarantined():
            return fact.release in device.condemned.values()
        case IsCloned():
            return device.cloned
        case InvalidEntries():
            beat = None if device.holder is None else view.heartbeat(device.device, device.holder)
            return beat is not None and beat.health.invalid_entries >= fact.at_least
        case _:
            assert_never(fact)


def _counted(fact: RolloutCounts, rollout: AgentRollout | None) -> bool:
    if rollout is None or rollout.status.observed_generation != rollout.metadata.generation:
        return False
    status = rollout.status
    return _enough(fact.over, status.upgraded if fact.standing == "upgraded" else status.failed, status.total)


def workload_ready(device: DeviceView, name: DeploymentName) -> bool:
    """All its containers run, made from what is desired, and the device says so of the newest desired revision."""
    desired = device.workloads.get(name)
    report = device.reports.get(name)
    if desired is None or report is None or report.desired != desired[0]:
        return False
    wanted = device.fingerprints[name]
    running = {item: made_of for (deployment, item), made_of in device.containers.items() if deployment == name}
    return report.healthy and sorted(item.name for item in report.containers) == sorted(wanted) and running == wanted


def workload_absent(device: DeviceView, name: DeploymentName) -> bool:
    """It is not desired, not reported, and no container of it runs."""
    if name in device.workloads or name in device.reports:
        return False
    return all(deployment != name for deployment, _ in device.containers)


def holds_for_fleet(fact: FleetFact, view: FleetView) -> bool:
    """Whether the fact is true."""
    match fact:
        case RolloutIs():
            rollout = _current(fact.rollout, view)
            return rollout is not None and rollout.status.phase is fact.phase
        case RolloutGroupIs():
            return _group_phase(fact, view) is fact.phase
        case RolloutCounts():
            return _counted(fact, view.rollouts.get(fact.rollout))
        case OperatorIs():
            return view.operator_running is (fact.state == "running")
        case OperatorStarts():
            return _starts(fact, view) == fact.count
        case LeaderIs(replica="any"):
            return view.leader is not None
        case LeaderIs(replica="none"):
            return view.leader is None
        case LeaderIs():
            return view.leader == fact.replica
        case SecretsMade():
            return _fits(fact.over, view.secrets_made)
        case InstallsKept():
            return _fits(fact.over, view.installs_kept)
        case InstallsRefused():
            return _fits(fact.over, _refusals(fact, view))
        case _:
            assert_never(fact)


def _starts(fact: OperatorStarts, view: FleetView) -> int:
    return sum(view.operator_starts.values()) if fact.replica is None else view.operator_starts.get(fact.replica, 0)


def _refusals(fact: InstallsRefused, view: FleetView) -> int:
    return sum(fact.secret is None or fact.secret in reason for reason in view.installs_refused)


def _current(name: str, view: FleetView) -> AgentRollout | None:
    """The rollout, once the operator has taken note of its newest spec."""
    rollout = view.rollouts.get(name)
    current = rollout is not None and rollout.status.observed_generation == rollout.metadata.generation
    return rollout if current else None


def _group_phase(fact: RolloutGroupIs, view: FleetView) -> GroupPhase | None:
    rollout = _current(fact.rollout, view)
    groups = () if rollout is None else rollout.status.groups
    return next((group.phase for group in groups if group.name == fact.group), None)


class Watch(Protocol):
    """A fact under observation."""

    @property
    def holds(self) -> bool:
        """Whether it holds now."""
        ...

    def changed(self, device: DeviceId | None) -> None:
        """Something changed in the view: of this device, or of the fleet."""
        ...

    def explain(self) -> str:
        """How things stand, for people."""
        ...


def watch(fact: Fact, cast: Cast, view: FleetView) -> Watch:
    """Begin to observe a fact."""
    if isinstance(fact, DeviceFact):
        devices = tuple(DeviceId(name) for name in fact.devices) if fact.devices else cast.members(fact.group)
        return _DeviceWatch(fact, devices, view)
    return _FleetWatch(fact, view)


class _DeviceWatch:
    def __init__(self, fact: PerDeviceFact, devices: tuple[DeviceId, ...], view: FleetView) -> None:
        self._fact = fact
        self._view = view
        self._true = {device: holds_on(fact, view.devices[device], view) for device in devices}
        self._count = sum(self._true.values())

    @property
    def holds(self) -> bool:
        return _enough(self._fact.over, self._count, len(self._true))

    def changed(self, device: DeviceId | None) -> None:
        if device is None or device not in self._true:
            return
        now = holds_on(self._fact, self._view.devices[device], self._view)
        if now is not self._true[device]:
            self._true[device] = now
            self._count += 1 if now else -1

    def explain(self) -> str:
        others = [device for device, true in self._true.items() if not true]
        named = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        wanted = _quantity(self._fact.over)
        left = f"; not true of {named}" if others else ""
        return f"{words(self._fact)} is true of {self._count} of {len(self._true)} devices ({wanted} asked){left}"


class _FleetWatch:
    def __init__(self, fact: FleetFact, view: FleetView) -> None:
        self._fact = fact
        self._view = view
        self.holds = holds_for_fleet(fact, view)

    def changed(self, device: DeviceId | None) -> None:
        if device is None:
            self.holds = holds_for_fleet(self._fact, self._view)

    def explain(self) -> str:
        match self._fact:
            case RolloutIs(rollout=name):
                rollout = self._view.rollouts.get(name)
                now = "does not exist" if rollout is None else _standing(rollout)
                return f"rollout {name} {now} ({self._fact.phase} asked)"
            case RolloutCounts(rollout=name):
                rollout = self._view.rollouts.get(name)
                now = "does not exist" if rollout is None else _standing(rollout)
                return f"rollout {name} {now} ({_quantity(self._fact.over)} {self._fact.standing} asked)"
            case RolloutGroupIs(rollout=name, group=group):
                now = _group_phase(self._fact, self._view) or "does not exist"
                return f"group {group} of rollout {name}: {now} ({self._fact.phase} asked)"
            case OperatorIs():
                return f"the operator is {'running' if self._view.operator_running else 'down'}"
            case OperatorStarts():
                who = "the operator" if self._fact.replica is None else f"operator {self._fact.replica}"
                return f"{who} has been started {_starts(self._fact, self._view)} times ({self._fact.count} asked)"
            case LeaderIs():
                leader = "no operator" if self._view.leader is None else f"operator {self._view.leader}"
                return f"{leader} leads ({self._fact.replica} asked)"
            case SecretsMade():
                return f"{self._view.secrets_made} secrets were made ({_quantity(self._fact.over)} asked)"
            case InstallsKept():
                return (
                    f"{self._view.installs_kept} installations kept every secret ({_quantity(self._fact.over)} asked)"
                )
            case InstallsRefused():
                naming = "" if self._fact.secret is None else f" because of {self._fact.secret}"
                count = _refusals(self._fact, self._view)
                return f"{count} installations were refused{naming} ({_quantity(self._fact.over)} asked)"


def _standing(rollout: AgentRollout) -> str:
    status = rollout.status
    counts = f"{status.upgraded} upgraded and {status.failed} failed of {status.total}"
    return f"is {status.phase} ({counts}{'; ' if status.message else ''}{status.message})"


def _enough(over: Quantifier, count: int, total: int) -> bool:
    match over:
        case "all":
            return count == total
        case "any":
            return count > 0
        case Count():
            return _fits(over, count)


def _fits(wanted: Count, count: int) -> bool:
    if wanted.count is not None:
        return count == wanted.count
    return count >= wanted.at_least if wanted.at_least is not None else count <= (wanted.at_most or 0)


def _quantity(over: Quantifier) -> str:
    if isinstance(over, str):
        return over
    pairs = (("exactly", over.count), ("at least", over.at_least), ("at most", over.at_most))
    return next(f"{name} {number}" for name, number in pairs if number is not None)


def words(fact: Fact) -> str:
    """A fact in a few words."""
    match fact:
        case DevicePhaseIs():
            return f"device phase {fact.phase}"
        case ReleaseIs():
            return f"release {fact.release}"
        case WorkloadIs():
            return f"workload {fact.deployment} {fact.condition}"
        case UpgradeIs():
            where = f" in {fact.phase}" if fact.phase else ""
            return f"upgrade {fact.status}{where}" + (f" (to {fact.release})" if fact.release else "")
        case Quarantined():
            return f"release {fact.release} quarantined"
        case IsCloned():
            return "cloned"
        case InvalidEntries():
            return f"at least {fact.at_least} invalid entries"
        case RolloutIs():
            return f"rollout {fact.rollout} {fact.phase}"
        case RolloutCounts():
            return f"rollout {fact.rollout} {fact.standing} devices"
        case RolloutGroupIs():
            return f"group {fact.group} of rollout {fact.rollout} {fact.phase}"
        case OperatorIs():
            return f"operator {fact.state}"
        case OperatorStarts():
            return f"operator started {fact.count} times"
        case LeaderIs():
            return f"operator leader {fact.replica}"
        case SecretsMade():
            return f"{_quantity(fact.over)} secrets made"
        case InstallsKept():
            return f"{_quantity(fact.over)} installations kept every secret"
        case InstallsRefused():
            return f"{_quantity(fact.over)} installations refused" + (f" ({fact.secret})" if fact.secret else "")
        case _:
            assert_never(fact)


# --- checks ------------------------------------------------------------------------------------------


class Judge(Protocol):
    """One check under way."""

    @property
    def idle(self) -> str | None:
        """Why the check has said nothing about the run; None when it has judged something."""
        ...

    def arm(self, at: Instant) -> None:
        """It counts from now on."""
        ...

    def changed(self, device: DeviceId | None, at: Instant) -> None:
        """The view changed."""
        ...

    def passed(self, at: Instant) -> None:
        """Time passed without a change."""
        ...

    @property
    def pending(self) -> Instant | None:
        """Until when the check still waits for something; None when it does not."""
        ...

    def finish(self) -> None:
        """The run is over."""
        ...


def judge(check: AnyCheck, index: int, cast: Cast, view: FleetView, report: Report) -> Judge:
    """Begin to judge the `index`-th check (from 1) of a scenario."""
    match check:
        case Always() | Never():
            return _Throughout(check, f"check {index} ({check.check})", watch(check.that, cast, view), report)
        case Eventually():
            return _Promise(f"check {index} (eventually)", watch(check.that, cast, view), check.within, report)
        case LeadsTo():
            rule = f"check {index} (leads_to)"
            return _Consequence(
                rule, watch(check.when, cast, view), watch(check.then, cast, view), check.within, report
            )
        case Final():
            return _AtEnd(f"check {index} (final)", check.that, cast, view, report)
        case _:
            assert_never(check)


class _Base:
    def __init__(self, rule: str, report: Report) -> None:
        self._rule = rule
        self._report = report
        self._since: Instant | None = None

    @property
    def armed(self) -> bool:
        return self._since is not None

    @property
    def pending(self) -> Instant | None:
        return None

    def arm(self, at: Instant) -> None:
        self._since = at

    def changed(self, device: DeviceId | None, at: Instant) -> None:
        """Nothing changes for this check."""

    def passed(self, at: Instant) -> None:
        """Time means nothing to this check."""

    @property
    def idle(self) -> str | None:
        return None if self.armed else f"{self._rule} never began: the event it waits for did not happen"

    def finish(self) -> None:
        """Nothing is left to be judged."""

    def _violated(self, evidence: str, device: DeviceId | None = None) -> None:
        self._report(self._rule, evidence, device)


class _Throughout(_Base):
    """`always` and `never`."""

    def __init__(self, check: Always | Never, rule: str, watched: Watch, report: Report) -> None:
        super().__init__(rule, report)
        self._good = isinstance(check, Always)
        self._watch = watched

    def arm(self, at: Instant) -> None:
        super().arm(at)
        self._look(None)

    def changed(self, device: DeviceId | None, at: Instant) -> None:
        self._watch.changed(device)
        if self.armed:
            self._look(device)

    def _look(self, device: DeviceId | None) -> None:
        if self._watch.holds is not self._good:
            self._violated(self._watch.explain(), device)


class _Promise(_Base):
    """`eventually`."""

    def __init__(self, rule: str, watched: Watch, within: Duration, report: Report) -> None:
        super().__init__(rule, report)
        self._watch = watched
        self._within = within
        self._kept = False

    @property
    def pending(self) -> Instant | None:
        return None if self._kept or self._since is None else self._since + self._within

    def arm(self, at: Instant) -> None:
        super().arm(at)
        self._kept = self._watch.holds

    def changed(self, device: DeviceId | None, at: Instant) -> None:
        self.passed(at)
        self._watch.changed(device)
        if self.armed and self._watch.holds:
            self._kept = True

    def passed(self, at: Instant) -> None:
        deadline = self.pending
        if deadline is not None and at > deadline:
            self._violated(f"not within {self._within}: {self._watch.explain()}")


class _Consequence(_Base):
    """`leads_to`."""

    def __init__(self, rule: str, cause: Watch, effect: Watch, within: Duration, report: Report) -> None:
        super().__init__(rule, report)
        self._cause = cause
        self._effect = effect
        self._within = within
        self._held = False
        self._applied = False
        self._owed: Instant | None = None

    @property
    def idle(self) -> str | None:
        return None if self._applied else f"{self._rule} never applied: what it follows from never held"

    @property
    def pending(self) -> Instant | None:
        return self._owed

    def arm(self, at: Instant) -> None:
        super().arm(at)
        self._look(at)

    def changed(self, device: DeviceId | None, at: Instant) -> None:
        self.passed(at)
        self._cause.changed(device)
        self._effect.changed(device)
        if self.armed:
            self._look(at)

    def _look(self, at: Instant) -> None:
        if self._cause.holds and not self._held and self._owed is None:
            self._owed = at + self._within
            self._applied = True
        self._held = self._cause.holds
        if self._effect.holds:
            self._owed = None

    def passed(self, at: Instant) -> None:
        if self._owed is not None and at > self._owed:
            self._violated(f"not within {self._within} after its cause: {self._effect.explain()}")


class _AtEnd(_Base):
    """`final`."""

    def __init__(self, rule: str, fact: Fact, cast: Cast, view: FleetView, report: Report) -> None:
        super().__init__(rule, report)
        self._fact = fact
        self._cast = cast
        self._view = view

    def finish(self) -> None:
        watched = watch(self._fact, self._cast, self._view)
        if not watched.holds:
            self._violated(watched.explain())
