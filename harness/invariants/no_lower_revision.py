"""Nothing acts on a revision lower than one it has already answered to."""

from __future__ import annotations

from fleet.contracts.ids import AttemptId, DeploymentName, DeviceId, Revision
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.records import DesiredAgent, UpgradeState, WorkloadState
from harness.invariants.base import Ground, Invariant
from harness.invariants.no_foreign_keys import HARNESS
from sim.journal import Journal, KvStored


class NoLowerRevision(Invariant):
    """A device that has reported on a desired record reports on an older one never again."""

    name = "no-lower-revision"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._desired: dict[tuple[DeviceId, AttemptId], Revision] = {}
        self._answered: dict[DeviceId, tuple[Revision, AttemptId]] = {}
        self._workloads: dict[tuple[DeviceId, DeploymentName], Revision] = {}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(KvStored, self._stored)

    def _stored(self, event: KvStored) -> None:
        if event.bucket is not Bucket.DESIRED and event.bucket is not Bucket.STATE:
            return
        if event.bucket is Bucket.STATE and event.writer == HARNESS:
            return  # What a bus that lost its tail goes back to is no report of a device.
        read = self.ground.view.read(event)
        match read.record if isinstance(read, Valid) else None:
            case DesiredAgent(device=device, attempt=attempt):
                self._desired[device, attempt] = event.revision
            case UpgradeState() as report:
                self._upgrade(report)
            case WorkloadState() as report:
                self._workload(report)
            case _:
                return

    def _upgrade(self, report: UpgradeState) -> None:
        revision = self._desired.get((report.device, report.attempt))
        if revision is None:
            return
        answered = self._answered.get(report.device)
        if answered is not None and revision < answered[0] and report.attempt != answered[1]:
            text = f"{report.device} reported on attempt {report.attempt} after attempt {answered[1]}, which is newer"
            self.violated(text, report.device)
        self._answered[report.device] = (revision, report.attempt)

    def _workload(self, report: WorkloadState) -> None:
        key = (report.device, report.deployment)
        before = self._workloads.get(key, Revision(0))
        self._workloads[key] = report.desired
        if report.desired < before:
            text = f"{report.device} reported workload {report.deployment} at desired revision {report.desired:d}"
            self.violated(f"{text} after revision {before:d}", report.device)
