"""No device gets an upgrade slot that its rollout does not allow: too many at once, out of turn, or at a wrong time.

A slot is given when the operator stores its grant. The rules are read from what is stored at that moment; a change of
plan that the operator took note of only just now does not count against a grant that was on its way.
"""

from __future__ import annotations

from fleet.contracts.ids import AttemptId, DeviceId
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.objects import (
    AgentRollout,
    Device,
    GroupPhase,
    RollBackGroup,
    RolloutPhase,
)
from fleet.contracts.records import DesiredAgent, InProgress, UpgradePhase, UpgradeState
from fleet.contracts.time import Duration, Instant
from harness.convergence import rollout_of
from harness.invariants.base import Ground, Invariant
from harness.invariants.no_foreign_keys import HARNESS
from harness.rollouts import Groups, is_of
from sim.journal import Journal, KvStored, ObjectStored

LEASE = Duration.minutes(60)
"""After this a slot is free again, whatever its device reports. Said here on its own: a judge trusts no setting."""
ON_ITS_WAY = Duration.seconds(60)
"""A grant that was decided before a change may be stored this much after it."""
_STOPPED = (RolloutPhase.PAUSED, RolloutPhase.HALTED, RolloutPhase.ABORTED, RolloutPhase.REFUSED)
_RETURNING = (RolloutPhase.ROLLING_BACK, RolloutPhase.ROLLED_BACK)


class RolloutLimits(Invariant):
    """Counts devices past `locking` and not yet terminal, by their own reports, whenever one more begins.

    Looks at each grant: none while the rollout is paused, halted, aborted or refused, outside its windows, or before
    its group's turn; and none to a device of which it is known that two machines are it.
    """

    name = "rollout-limits"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._groups = Groups(ground.cast)
        self._begun: dict[DeviceId, tuple[AttemptId, Instant]] = {}
        self._granted: dict[DeviceId, AttemptId] = {}
        self._noted: dict[str, tuple[tuple[object, ...], Instant]] = {}
        self._cloned: dict[str, Instant] = {}
        """Since when a device is said to be cloned."""
        self._plans: dict[str, tuple[int, Instant]] = {}
        """The generation that the operator took note of last, and from when on its windows count."""

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(KvStored, self._stored)
        journal.subscribe(ObjectStored, self._object)

    def _stored(self, event: KvStored) -> None:
        if event.bucket not in (Bucket.STATE, Bucket.DESIRED) or event.writer == HARNESS:
            return  # What the harness writes, or a bus that lost its tail goes back to, is no report and no grant.
        read = self.ground.view.read(event)
        match read.record if isinstance(read, Valid) else None:
            case UpgradeState() as report:
                self._reported(report, event.at)
            case DesiredAgent(granted=Instant()) as desired if self._granted.get(desired.device) != desired.attempt:
                self._granted[desired.device] = desired.attempt
                self._judge_grant(desired, event.at)
            case _:
                return

    # --- how many at once

    def _reported(self, report: UpgradeState, at: Instant) -> None:
        if not isinstance(report.status, InProgress):
            self._begun.pop(report.device, None)
        elif report.status.phase is not UpgradePhase.LOCKING and not self._known(report):
            self._begun[report.device] = (report.attempt, at)
            self._count(report, at)

    def _known(self, report: UpgradeState) -> bool:
        begun = self._begun.get(report.device)
        return begun is not None and begun[0] == report.attempt

    def _count(self, report: UpgradeState, at: Instant) -> None:
        rollout = self.ground.view.rollouts.get(rollout_of(report.attempt))
        group = None if rollout is None else self._groups.group(rollout, report.device)
        if rollout is None or group is None:
            return
        members = self._groups.members(rollout, group)
        busy = [device for device in members if device in self._begun and at - self._begun[device][1] < LEASE]
        limit = group.max_unavailable.limit(len(members))
        if len(busy) > limit:
            names = ", ".join(sorted(busy))
            text = f"{len(busy)} devices of group {group.name} are in an upgrade at once, {limit} are allowed: {names}"
            self.violated(text, report.device)

    # --- whether at all

    def _judge_grant(self, desired: DesiredAgent, at: Instant) -> None:
        rollout = self.ground.view.rollouts.get(rollout_of(desired.attempt))
        if self._was_taken_before(desired):
            return
        if at - self._cloned.get(desired.device, at) > ON_ITS_WAY:
            text = f"{desired.device} was given an upgrade slot for {desired.attempt} although two machines are it"
            self.violated(text, desired.device)
        if rollout is None or not is_of(desired.attempt, rollout):
            return
        reason = self._outside_windows(rollout, desired, at)
        known, since = self._noted.get(rollout.name, ((), at))
        if reason is None and not (at - since < ON_ITS_WAY and known):
            reason = self._objection(rollout, desired)
        if reason is not None:
            self.violated(f"{desired.device} was given an upgrade slot for {desired.attempt} {reason}", desired.device)

    def _was_taken_before(self, desired: DesiredAgent) -> bool:
        """The device is in the attempt already: its slot was given before, and the bus has forgotten that."""
        report = self.ground.view.devices[desired.device].upgrade
        if report is None or report.attempt != desired.attempt:
            return False
        return not isinstance(report.status, InProgress) or report.status.phase is not UpgradePhase.LOCKING

    def _outside_windows(self, rollout: AgentRollout, desired: DesiredAgent, at: Instant) -> str | None:
        """A grant says itself when it was decided: it may be on its way only where the plan has changed since."""
        windows = rollout.spec.windows
        assert desired.granted is not None
        if windows is None or windows.is_open(desired.granted) or at < self._plans.get(rollout.name, (0, at))[1]:
            return None
        return f"at {desired.granted.utc()}, outside the maintenance windows"

    def _objection(self, rollout: AgentRollout, desired: DesiredAgent) -> str | None:
        status, group = rollout.status, self._groups.group(rollout, desired.device)
        if status.phase in _STOPPED:
            return f"while its rollout is {status.phase}"
        phases = {stands.name: stands.phase for stands in status.groups}
        if group is None or group.name not in phases:
            return "although it belongs to no group of its rollout"
        if status.phase in _RETURNING:
            back = rollout.spec.on_halt
            returns = isinstance(back, RollBackGroup) and desired.artefact in back.artefacts
            halted = phases[group.name] is GroupPhase.HALTED
            return None if returns and halted else f"while its rollout is {status.phase}"
        before = [earlier for earlier in phases if list(phases).index(earlier) < list(phases).index(group.name)]
        waiting = [name for name in before if phases[name] is not GroupPhase.PASSED]
        return f"although group {waiting[0]} has not passed" if waiting else None

    # --- changes of the plan

    def _object(self, event: ObjectStored) -> None:
        item = self.ground.view.read_object(event) if event.kind in (AgentRollout.kind_name, Device.kind_name) else None
        if isinstance(item, Device):
            self._device(item, event.at)
        if not isinstance(item, AgentRollout):
            return
        noted = (item.status.observed_generation, item.status.phase)
        if self._noted.get(item.name, ((), event.at))[0] != noted:
            self._noted[item.name] = (noted, event.at)
        self._note_plan(item, event.at)

    def _device(self, item: Device, at: Instant) -> None:
        if item.status.cloned is None:
            self._cloned.pop(item.name, None)
        else:
            self._cloned.setdefault(item.name, at)

    def _note_plan(self, item: AgentRollout, at: Instant) -> None:
        generation, plan = item.status.observed_generation, self._plans.get(item.name)
        if generation > 0 and (plan is None or plan[0] != generation):
            self._plans[item.name] = (generation, at if plan is None else at + ON_ITS_WAY)
