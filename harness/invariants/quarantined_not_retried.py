"""A release that a device has rolled back is not started there again unless a new attempt asks for it."""

from __future__ import annotations

from fleet.contracts.ids import AttemptId, DeviceId, Sha256
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.records import DesiredAgent, RolledBack, UpgradeState
from harness.invariants.base import Ground, Invariant
from sim.journal import AgentStarted, Journal, KvStored


class QuarantinedNotRetried(Invariant):
    """Remembers by which attempt each release was condemned; a later attempt for it lifts that."""

    name = "quarantined-not-retried"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._condemned: dict[tuple[DeviceId, Sha256], AttemptId] = {}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(KvStored, self._stored)
        journal.subscribe(AgentStarted, self._started)

    def _stored(self, event: KvStored) -> None:
        if event.bucket is not Bucket.DESIRED and event.bucket is not Bucket.STATE:
            return
        read = self.ground.view.read(event)
        match read.record if isinstance(read, Valid) else None:
            case UpgradeState(status=RolledBack()) as report:
                self._condemned[report.device, report.release.sha256] = report.attempt
            case DesiredAgent(device=device, attempt=attempt, artefact=artefact):
                key = (device, artefact.release.sha256)
                if self._condemned.get(key, attempt) != attempt:
                    del self._condemned[key]
            case _:
                return

    def _started(self, event: AgentStarted) -> None:
        attempt = self._condemned.get((event.device, event.release.sha256))
        if attempt is not None:
            text = f"{event.device} started {event.release} again, which it rolled back in attempt {attempt}"
            self.violated(text, event.device)
