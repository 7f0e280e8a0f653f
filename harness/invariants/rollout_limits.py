"""No more devices of a group are in an upgrade at once than its rollout allows."""

from __future__ import annotations

from fleet.contracts.ids import AttemptId, DeviceId
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.objects import AgentRollout, RolloutGroup
from fleet.contracts.records import InProgress, UpgradePhase, UpgradeState
from fleet.contracts.time import Duration, Instant
from harness.convergence import rollout_of
from harness.invariants.base import Ground, Invariant
from sim.journal import Journal, KvStored

LEASE = Duration.minutes(60)
"""After this a slot is free again, whatever its device reports. Said here on its own: a judge trusts no setting."""


class RolloutLimits(Invariant):
    """Counts devices past `locking` and not yet terminal, by their own reports, whenever one more begins."""

    name = "rollout-limits"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._labels = dict(zip(ground.cast.devices, ground.cast.plan.labels, strict=True))
        self._begun: dict[DeviceId, tuple[AttemptId, Instant]] = {}
        self._groups: dict[tuple[str, int, str], list[DeviceId]] = {}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(KvStored, self._stored)

    def _stored(self, event: KvStored) -> None:
        if event.bucket is not Bucket.STATE:
            return
        read = self.ground.view.read(event)
        if not isinstance(read, Valid) or not isinstance(read.record, UpgradeState):
            return
        report = read.record
        if not isinstance(report.status, InProgress):
            self._begun.pop(report.device, None)
        elif report.status.phase is not UpgradePhase.LOCKING and not self._known(report):
            self._begun[report.device] = (report.attempt, event.at)
            self._count(report, event.at)

    def _known(self, report: UpgradeState) -> bool:
        begun = self._begun.get(report.device)
        return begun is not None and begun[0] == report.attempt

    def _count(self, report: UpgradeState, at: Instant) -> None:
        rollout = self.ground.view.rollouts.get(rollout_of(report.attempt))
        group = None if rollout is None else self._group(rollout, report.device)
        if rollout is None or group is None:
            return
        members = self._members(rollout, group)
        busy = [device for device in members if device in self._begun and at - self._begun[device][1] < LEASE]
        limit = group.max_unavailable.limit(len(members))
        if len(busy) > limit:
            names = ", ".join(sorted(busy))
            text = f"{len(busy)} devices of group {group.name} are in an upgrade at once, {limit} are allowed: {names}"
            self.violated(text, report.device)

    def _members(self, rollout: AgentRollout, group: RolloutGroup) -> list[DeviceId]:
        key = (rollout.name, rollout.metadata.generation, group.name)
        if key not in self._groups:
            self._groups[key] = [device for device in self._labels if self._group(rollout, device) == group]
        return self._groups[key]

    def _group(self, rollout: AgentRollout, device: DeviceId) -> RolloutGroup | None:
        labels = self._labels.get(device)
        if labels is None:
            return None
        return next((group for group in rollout.spec.groups if group.selector.matches(labels)), None)
