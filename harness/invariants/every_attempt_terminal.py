"""Every upgrade attempt that a device began reaches a terminal status, and so does every rollout."""

from __future__ import annotations

from fleet.contracts.objects import RolloutPhase
from fleet.contracts.records import TERMINAL, UpgradePhase
from harness.convergence import rollout_of
from harness.invariants.base import Invariant


class EveryAttemptTerminal(Invariant):
    """Judged at the end, over the newest report of each device. Waiting for a slot is not yet an attempt under way."""

    name = "every-attempt-terminal"

    def finish(self) -> None:
        for device, view in self.ground.view.devices.items():
            report = view.upgrade
            if report is None or isinstance(report.status, TERMINAL):
                continue
            rollout = self.ground.view.rollouts.get(rollout_of(report.attempt))
            failed = rollout is not None and rollout.status.phase is RolloutPhase.FAILED
            if report.status.phase is UpgradePhase.LOCKING and failed:
                continue
            self.violated(f"attempt {report.attempt} of {device} is still {report.status.phase} at the end", device)
        for name, rollout in self.ground.view.rollouts.items():
            if rollout.status.phase not in (RolloutPhase.COMPLETE, RolloutPhase.FAILED):
                self.violated(f"rollout {name} is still {rollout.status.phase} at the end")
