"""No release is ever erased from a device: the way back is always there.

A declared fault that damages a release, or its manifest, takes it away once. Nothing else does.
"""

from __future__ import annotations

from agent import paths
from fleet.contracts.ids import DeviceId, Release
from harness.invariants.base import Ground, Invariant
from sim.journal import FileDamaged, Journal, ReleasesOnDisk


class NoReleaseErased(Invariant):
    """The set of complete releases on a disk only grows."""

    name = "no-release-erased"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._releases: dict[DeviceId, tuple[Release, ...]] = {}
        self._damaged: dict[tuple[DeviceId, str], None] = {}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(ReleasesOnDisk, self._changed)
        journal.subscribe(FileDamaged, self._file_damaged)

    def _file_damaged(self, event: FileDamaged) -> None:
        self._damaged[event.device, event.path] = None

    def _changed(self, event: ReleasesOnDisk) -> None:
        before, self._releases[event.device] = self._releases.get(event.device, ()), event.releases
        gone = [
            str(release)
            for release in before
            if release not in event.releases and not self._was_damaged(event.device, release)
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
