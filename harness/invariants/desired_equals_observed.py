"""After healing, what is observed equals what is desired, and stays so."""

from __future__ import annotations

from harness.invariants.base import Invariant


class DesiredEqualsObserved(Invariant):
    """The runner waits for this to become true (a run where it never does is stuck); here it has to be true still."""

    name = "desired-equals-observed"

    def finish(self) -> None:
        missing = self.ground.convergence.waiting_for()
        if missing:
            device = next(iter(self.ground.convergence.lacking), None)
            self.violated(f"it was reached and then lost: waiting for {'; '.join(missing)}", device)
