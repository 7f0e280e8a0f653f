"""No release is ever erased from a device: the way back is always there.

A declared fault that damages a release, or its manifest, takes it away once. A power cut takes a release whose staging
had not come to its last sync and that never ran: it was there to be seen, and was not there to stay. Nothing else does.
"""

from __future__ import annotations

from agent import paths
from fleet.contracts.ids import DeviceId, Release
from harness.invariants.base import Ground, Invariant
from sim.journal import AgentStarted, FileDamaged, Journal, PowerRestored, ReleasesOnDisk, ReleasesUnsettled


class NoReleaseErased(Invariant):
    """The set of complete releases on a disk only grows."""

    name = "no-release-erased"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._releases: dict[DeviceId, tuple[Release, ...]] = {}
        self._damaged: dict[tuple[DeviceId, str], None] = {}
        self._unsettled: dict[DeviceId, tuple[Release, ...]] = {}
        """What the power cut of a device may take; until its power is back."""
        self._ran: dict[DeviceId, dict[Release, None]] = {}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(ReleasesOnDisk, self._changed)
        journal.subscribe(FileDamaged, self._file_damaged)
        journal.subscribe(AgentStarted, self._started)
        journal.subscribe(ReleasesUnsettled, self._may_be_lost)
        journal.subscribe(PowerRestored, self._power_is_back)

    def _file_damaged(self, event: FileDamaged) -> None:
        self._damaged[event.device, event.path] = None

    def _may_be_lost(self, event: ReleasesUnsettled) -> None:
        ran = self._ran.get(event.device, {})
        self._unsettled[event.device] = tuple(release for release in event.releases if release not in ran)

    def _power_is_back(self, event: PowerRestored) -> None:
        self._unsettled.pop(event.device, None)

    def _started(self, event: AgentStarted) -> None:
        self._ran.setdefault(event.device, {})[event.release] = None

    def _changed(self, event: ReleasesOnDisk) -> None:
        before, self._releases[event.device] = self._releases.get(event.device, ()), event.releases
        gone = [
            str(release)
            for release in before
            if release not in event.releases
            and release not in self._unsettled.get(event.device, ())
            and not self._was_damaged(event.device, release)
        ]
        if gone:
            self.violated(f"{event.device} no longer has {', '.join(gone)} on its disk", event.device)

    def _was_damaged(self, device: DeviceId, release: Release) -> bool:
        """Whether a fault has taken it away; a second disappearance needs a second fault."""
        places = (paths.release(release.version), paths.manifest(release.version))
        damage = [(device, str(place)) for place in places if (device, str(place)) in self._damaged]
        for item in damage:
            del self._damaged[item]
        return bool(damage)
