"""A device is said to be cloned only where a second machine runs from a copy of its card, or did so until just now.

Reboots, brown-outs, links that hold back, and a bus that comes back with an older store all make old boots of a machine
show up again. None of them makes two machines of it.
"""

from __future__ import annotations

from typing import Final

from fleet.contracts.ids import DeviceId
from fleet.contracts.objects import Device
from fleet.contracts.time import Duration, Instant
from harness.invariants.base import Ground, Invariant
from sim.journal import CopyMade, Journal, ObjectStored, PowerCut

LATE: Final = Duration.minutes(5)
"""What two machines sent may be added up to a clone this much after one of them is gone."""


class NoCloneImagined(Invariant):
    """Compares what the `Device` objects say with the copies that were made and have power."""

    name = "no-clone-imagined"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._running: dict[DeviceId, DeviceId] = {}
        """The copies that have power, and whose they are."""
        self._ended: dict[DeviceId, Instant] = {}
        """When the last copy of a device lost its power."""
        self._told: dict[DeviceId, None] = {}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(CopyMade, self._made)
        journal.subscribe(PowerCut, self._cut)
        journal.subscribe(ObjectStored, self._stored)

    def _made(self, event: CopyMade) -> None:
        self._running[event.copy] = event.device

    def _cut(self, event: PowerCut) -> None:
        device = self._running.pop(event.device, None)
        if device is not None:
            self._ended[device] = event.at

    def _stored(self, event: ObjectStored) -> None:
        item = self.ground.view.read_object(event) if event.kind == Device.kind_name else None
        if not isinstance(item, Device):
            return
        if item.status.cloned is None:
            self._told.pop(item.device, None)
        elif item.device not in self._told:
            self._told[item.device] = None
            if not self._is_cloned(item.device, event.at):
                boots = " and ".join(item.status.cloned.boots)
                self.violated(f"{item.device} is said to be cloned (boots {boots}), and is one machine", item.device)

    def _is_cloned(self, device: DeviceId, at: Instant) -> bool:
        return device in self._running.values() or (device in self._ended and at - self._ended[device] <= LATE)
