"""The operator never ends because of data: a declared fault, the loss of its lease, or the end of the run ends it."""

from __future__ import annotations

from harness.invariants.base import Ground, Invariant
from harness.schema_fault_blocks import (
    FreezeOperator,
    IsolateOperator,
    KillOperator,
    LoseBusTail,
    OnOperator,
    RestartBus,
    StopOperator,
)
from sim.journal import FaultInjected, Journal, OperatorEnded, PhaseEntered

ADDED = 0
"""The index of a crash that no file declares: `twin crashpoints` adds it, and the journal says so before it happens."""
KILLED = -9
LOST_LEASE = 75
"""Said here on its own: a judge that took the operator's number would share its errors."""
ENDS: dict[int, tuple[type[OnOperator], str]] = {KILLED: (KillOperator, "killed"), 0: (StopOperator, "stopped")}
"""The exit codes that a fault causes, once for each time it happens."""


class OperatorNeverRestartsBecauseOfData(Invariant):
    """Each end of an operator process is that of a declared fault, or follows from losing the lease.

    A lease can be lost where another replica could take it, or where a fault keeps its holder from the store.
    """

    name = "operator-never-restarts-because-of-data"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        faults = ground.cast.scenario.faults
        self._code_of = {
            index: code
            for index, fault in enumerate(faults, 1)
            for code, (kind, _) in ENDS.items()
            if isinstance(fault, kind)
        }
        costs_lease = any(
            isinstance(fault, IsolateOperator | FreezeOperator | RestartBus | LoseBusTail) for fault in faults
        )
        self._may_lose_lease = costs_lease or ground.cast.plan.operators > 1
        self._ended_with = dict.fromkeys(ENDS, 0)
        self._injected = dict.fromkeys(ENDS, 0)
        self._tearing_down = False

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(OperatorEnded, self._ended)
        journal.subscribe(FaultInjected, self._fault)
        journal.subscribe(PhaseEntered, self._phase)

    def _phase(self, event: PhaseEntered) -> None:
        self._tearing_down = event.phase == "tear-down"

    def _fault(self, event: FaultInjected) -> None:
        if event.index == ADDED and event.subject.startswith("operator"):
            self._code_of[ADDED] = KILLED
        code = self._code_of.get(event.index)
        if code is not None:
            self._injected[code] += 1

    def _ended(self, event: OperatorEnded) -> None:
        if self._tearing_down:
            return
        is_declared = event.code in self._code_of.values()
        if is_declared:
            self._ended_with[event.code] += 1
        elif event.code != LOST_LEASE or not self._may_lose_lease:
            self.violated(f"operator {event.replica} ended by itself with code {event.code}")

    def finish(self) -> None:
        for code, (_, done) in ENDS.items():
            ended, injected = self._ended_with[code], self._injected[code]
            if ended > injected:
                self.violated(f"the operator was {done} {ended} times, by {injected} declared faults")
