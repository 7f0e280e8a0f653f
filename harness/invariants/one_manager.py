"""At most one instance of a device manages its workloads."""

from __future__ import annotations

from fleet.contracts.ids import DeviceId, Slot
from harness.invariants.base import Ground, Invariant
from sim.journal import AgentEnded, Journal, LockLeft, LockTaken, PowerCut


class OneManager(Invariant):
    """Nobody takes the host lock while a living instance holds it."""

    name = "one-manager"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._holder: dict[DeviceId, Slot] = {}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(LockTaken, self._taken)
        journal.subscribe(LockLeft, self._left)
        journal.subscribe(AgentEnded, self._left)
        journal.subscribe(PowerCut, self._cut)

    def _taken(self, event: LockTaken) -> None:
        holder = self._holder.get(event.device)
        self._holder[event.device] = event.slot
        if holder is not None:
            text = f"slot {event.slot} of {event.device} took the host lock while slot {holder} held it"
            self.violated(text, event.device)

    def _left(self, event: LockLeft | AgentEnded) -> None:
        if self._holder.get(event.device) is event.slot:
            del self._holder[event.device]

    def _cut(self, event: PowerCut) -> None:
        self._holder.pop(event.device, None)
