"""No device begins an upgrade before its slot is stored: an operator that forgets what it gave gives it twice.

A grant that is only remembered is seen where the operator ends before it is stored: the device is past `locking`, and
no desired record says that it may be.
"""

from __future__ import annotations

from fleet.contracts.ids import AttemptId, DeviceId
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.records import DesiredAgent, InProgress, UpgradePhase, UpgradeState
from fleet.contracts.time import Instant
from harness.invariants.base import Ground, Invariant
from harness.invariants.no_foreign_keys import HARNESS
from sim.journal import Journal, KvStored

NEEDS_A_SLOT = (UpgradePhase.DRAINING, UpgradePhase.STAGING, UpgradePhase.TESTING, UpgradePhase.SWAPPING)
"""An overlap may be an attempt's first phase: one that takes over the release of another, or begins after a reboot."""


class SlotStoredFirst(Invariant):
    """Compares each device's report with the grants stored so far. A grant that the bus forgot was stored once."""

    name = "slot-stored-first"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._granted: dict[tuple[DeviceId, AttemptId], None] = {}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(KvStored, self._stored)

    def _stored(self, event: KvStored) -> None:
        if event.bucket not in (Bucket.STATE, Bucket.DESIRED) or event.writer == HARNESS:
            return
        read = self.ground.view.read(event)
        match read.record if isinstance(read, Valid) else None:
            case DesiredAgent(granted=Instant()) as desired:
                self._granted[desired.device, desired.attempt] = None
            case UpgradeState(status=InProgress(phase=phase)) as report if phase in NEEDS_A_SLOT:
                if (report.device, report.attempt) not in self._granted:
                    text = f"{report.device} is {phase} in attempt {report.attempt}, and no slot for it is stored"
                    self.violated(text, report.device)
            case _:
                return
