"""A release that a device has condemned is not started there again unless a new attempt asks for it.

Judged twice: by what the device has reported as rolled back, and by the quarantine marks on its disk, which also know
of what was condemned without a word. A mark that disappears was lifted by an attempt that a person asked for, which
does so once, lost to a power cut before it was durable, or taken by a declared fault.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from agent import paths
from fleet.contracts.ids import AttemptId, DeviceId, Release, Sha256
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.records import DesiredAgent, RolledBack, UpgradeState
from harness.invariants.base import Ground, Invariant
from sim.journal import (
    AgentStarted,
    FileDamaged,
    Journal,
    KvStored,
    PowerCut,
    PowerRestored,
    QuarantineMarks,
    ReleasesOnDisk,
)


class QuarantinedNotRetried(Invariant):
    """Remembers by which attempt each release was condemned; a later attempt for it lifts that."""

    name = "quarantined-not-retried"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._condemned: dict[tuple[DeviceId, Sha256], AttemptId] = {}
        self._marks: dict[DeviceId, tuple[str, ...]] = {}
        self._whole: dict[DeviceId, tuple[Release, ...]] = {}
        self._lifts: dict[tuple[DeviceId, str], AttemptId] = {}
        """The newest attempt that may take a mark off …"""
        self._lifted: dict[tuple[DeviceId, str], AttemptId] = {}
        """… and the one that did: none does so twice."""
        self._excused: dict[DeviceId, None] = {}
        """Devices whose marks may be fewer at the next look."""

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(KvStored, self._stored)
        journal.subscribe(AgentStarted, self._started)
        journal.subscribe(QuarantineMarks, self._marked)
        journal.subscribe(ReleasesOnDisk, self._on_disk)
        journal.subscribe(PowerCut, self._cut)
        journal.subscribe(PowerRestored, self._restored)
        journal.subscribe(FileDamaged, self._damaged)

    def _stored(self, event: KvStored) -> None:
        if event.bucket is not Bucket.DESIRED and event.bucket is not Bucket.STATE:
            return
        read = self.ground.view.read(event)
        match read.record if isinstance(read, Valid) else None:
            case UpgradeState(status=RolledBack()) as report:
                self._condemned[report.device, report.release.sha256] = report.attempt
            case DesiredAgent(device=device, attempt=attempt, artefact=artefact, lift_quarantine=lift):
                if lift:
                    self._lifts[device, artefact.release.sha256] = attempt
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
        elif event.release.sha256 in self._marks.get(event.device, ()) and self._has_another(event):
            self.violated(f"{event.device} started {event.release}, which its disk condemns", event.device)

    def _has_another(self, event: AgentStarted) -> bool:
        """A device on which nothing else is whole runs what it has: a condemned agent is better than none."""
        marks = self._marks[event.device]
        return any(release.sha256 not in marks for release in self._whole.get(event.device, ()))

    def _on_disk(self, event: ReleasesOnDisk) -> None:
        self._whole[event.device] = event.releases

    def _marked(self, event: QuarantineMarks) -> None:
        before, self._marks[event.device] = self._marks.get(event.device, ()), event.marks
        gone = [mark for mark in before if mark not in event.marks and not self._is_lifted(event.device, mark)]
        excused = event.device in self._excused
        self._excused.pop(event.device, None)
        if gone and not excused:
            self.violated(f"{event.device} no longer condemns {gone[0]}, and nobody asked for that", event.device)

    def _is_lifted(self, device: DeviceId, mark: str) -> bool:
        whose = self.ground.view.copies.get(device, device)
        asked, done = self._lifts.get((whose, mark)), self._lifted.get((device, mark))
        if asked is None or asked == done:
            return False
        self._lifted[device, mark] = asked
        return True

    def _cut(self, event: PowerCut) -> None:
        self._excused[event.device] = None
        for place in [place for place in self._lifted if place[0] == event.device]:
            del self._lifted[place]  # It may not have been durable, and then it is taken off again.

    def _restored(self, event: PowerRestored) -> None:
        self._excused.pop(event.device, None)

    def _damaged(self, event: FileDamaged) -> None:
        if PurePosixPath(event.path).parent == paths.QUARANTINE:
            self._excused[event.device] = None
