"""A revoked device is out: nothing of it is accepted any more once `BOUND` has passed since its revocation stood.

The bound is the callout's (`fleet.identity.callout.service`): a push is acted upon at once, and again after its second
look; if the push is lost, the next reading of all enrolments finds it. What the device had sent by then still arrives.
While no callout runs nobody comes in, but nobody is cut off either: that time does not count.
"""

from __future__ import annotations

from typing import Final

from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.records import Enrolment, Revoked
from fleet.contracts.time import Duration, Instant
from harness.faults import StopCallout
from harness.invariants.base import Ground, Invariant
from sim.journal import HeartbeatStored, Journal, KvStored, RequestSent

BOUND: Final = Duration.seconds(60)


class RevokedStayOut(Invariant):
    """Remembers since when each device is revoked."""

    name = "revoked-stay-out"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._since: dict[str, Instant] = {}

    def subscribe(self, journal: Journal) -> None:
        if StopCallout in self.ground.cast.plan.faults:
            return
        journal.subscribe(KvStored, self._stored)
        journal.subscribe(HeartbeatStored, self._wrote)
        journal.subscribe(RequestSent, self._asked)

    def _stored(self, event: KvStored) -> None:
        if event.bucket is not Bucket.IDENTITY:
            self._judge(event.writer, event.at, f"wrote {event.bucket}/{event.key}")
            return
        read = self.ground.view.read(event)
        if not (isinstance(read, Valid) and isinstance(read.record, Enrolment)):
            return
        if isinstance(read.record.standing, Revoked):
            self._since.setdefault(read.record.device, event.at)
        else:
            self._since.pop(read.record.device, None)

    def _wrote(self, event: HeartbeatStored) -> None:
        self._judge(event.writer, event.at, f"wrote {event.bucket}/{event.key}")

    def _asked(self, event: RequestSent) -> None:
        self._judge(event.sender, event.at, f"asked on {event.subject}")

    def _judge(self, client: str, at: Instant, act: str) -> None:
        since = self._since.get(client)
        if since is not None and at - since > BOUND:
            passed = Duration(at - since)
            self.violated(f"{client} {act} {passed} after it was revoked", DeviceId(client))
