"""What every invariant is: a fold over a few event types of the journal that reports what contradicts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fleet.contracts.ids import DeviceId
from harness.checks import Report
from harness.convergence import Convergence
from harness.scenario import Cast
from harness.view import FleetView
from sim.journal import Journal


@dataclass(frozen=True, slots=True)
class Ground:
    """What an invariant may know: the scenario, the fleet's state up to the event at hand, and whom to tell."""

    cast: Cast
    view: FleetView
    convergence: Convergence
    report: Report


class Invariant:
    """Holds at every moment of every scenario. One subclass per file, registered in `harness.invariants`."""

    name: ClassVar[str]

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def subscribe(self, journal: Journal) -> None:
        """Ask for the event types that matter. Heartbeats are nearly all events: keep them undecoded."""

    def finish(self) -> None:
        """The run has converged: judge what can only be judged at the end."""

    def violated(self, evidence: str, device: DeviceId | None = None) -> None:
        """Report a contradiction."""
        self.ground.report(self.name, evidence, device)
