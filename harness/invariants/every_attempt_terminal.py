"""Every upgrade attempt that a device began reaches a terminal status, and so does every rollout that is not paused."""

from __future__ import annotations

from fleet.contracts.records import TERMINAL, UpgradePhase
from harness.convergence import gives_no_more, has_ended, rollout_of
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
            stopped = rollout is not None and gives_no_more(rollout)
            if report.status.phase is UpgradePhase.LOCKING and stopped:
                continue
            self.violated(f"attempt {report.attempt} of {device} is still {report.status.phase} at the end", device)
        for name, rollout in self.ground.view.rollouts.items():
            if not has_ended(rollout):
                self.violated(f"rollout {name} is still {rollout.status.phase} at the end")
