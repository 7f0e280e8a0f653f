"""The operator never ends because of data: only a declared kill, or the end of the run, ends it."""

from __future__ import annotations

from harness.invariants.base import Ground, Invariant
from harness.schema_fault_blocks import KillOperator
from sim.journal import FaultInjected, Journal, OperatorEnded, PhaseEntered

KILLED = -9
ADDED = 0
"""The index of a crash that no file declares: `twin crashpoints` adds it, and the journal says so before it happens."""


class OperatorNeverRestartsBecauseOfData(Invariant):
    """Each end of an operator process is the kill of a declared fault."""

    name = "operator-never-restarts-because-of-data"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._declared = [
            index for index, fault in enumerate(ground.cast.scenario.faults, 1) if isinstance(fault, KillOperator)
        ]
        self._killed = 0
        self._injected = 0
        self._tearing_down = False

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(OperatorEnded, self._ended)
        journal.subscribe(FaultInjected, self._fault)
        journal.subscribe(PhaseEntered, self._phase)

    def _phase(self, event: PhaseEntered) -> None:
        self._tearing_down = event.phase == "tear-down"

    def _fault(self, event: FaultInjected) -> None:
        if event.index == ADDED and event.subject == "operator":
            self._declared.append(ADDED)
        self._injected += event.index in self._declared

    def _ended(self, event: OperatorEnded) -> None:
        if self._tearing_down:
            return
        if event.code != KILLED or not self._declared:
            self.violated(f"operator {event.replica} ended by itself with code {event.code}")
        self._killed += 1

    def finish(self) -> None:
        if self._killed > self._injected:
            self.violated(f"the operator was killed {self._killed} times, by {self._injected} declared faults")
