"""No release is ever erased from a device: the way back is always there."""

from __future__ import annotations

from fleet.contracts.ids import DeviceId, Release
from harness.invariants.base import Ground, Invariant
from sim.journal import Journal, ReleasesOnDisk


class NoReleaseErased(Invariant):
    """The set of complete releases on a disk only grows."""

    name = "no-release-erased"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._releases: dict[DeviceId, tuple[Release, ...]] = {}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(ReleasesOnDisk, self._changed)

    def _changed(self, event: ReleasesOnDisk) -> None:
        gone = [str(release) for release in self._releases.get(event.device, ()) if release not in event.releases]
        self._releases[event.device] = event.releases
        if gone:
            self.violated(f"{event.device} no longer has {', '.join(gone)} on its disk", event.device)
