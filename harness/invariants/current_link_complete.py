"""The current link resolves to a complete, hash-checked release at every instant, power cuts included.

In the virtual world what was unpacked of it has to be as it was packed, too; on real disks that is not looked at.
"""

from __future__ import annotations

from fleet.contracts.ids import DeviceId, Release
from harness.invariants.base import Ground, Invariant
from sim.journal import CurrentRelease, Journal, ReleasesOnDisk


class CurrentLinkComplete(Invariant):
    """The target looks at the link whenever it changes; a release it leads to also has to stay on the disk."""

    name = "current-link-complete"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._current: dict[DeviceId, Release] = {}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(CurrentRelease, self._moved)
        journal.subscribe(ReleasesOnDisk, self._changed)

    def _moved(self, event: CurrentRelease) -> None:
        if event.release is None:
            self.violated(
                f"the current link of {event.device} leads to no complete release: {event.broken}", event.device
            )
        else:
            self._current[event.device] = event.release

    def _changed(self, event: ReleasesOnDisk) -> None:
        current = self._current.get(event.device)
        if current is not None and current not in event.releases:
            self.violated(
                f"{current}, the current release of {event.device}, is not complete on its disk", event.device
            )
