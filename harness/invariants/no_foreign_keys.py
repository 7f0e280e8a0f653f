"""Nobody writes what is not theirs: devices their own keys, the operator the desired state. No device reads another's.

A device that asks for what is not its own breaks this, whether or not its permissions let it be told. A real server
tells nobody what is read: there, reads are for the permissions, which the conformance suite proves.
"""

from __future__ import annotations

from fleet.contracts.layout import Bucket
from harness.invariants.base import Invariant
from sim.journal import ForeignRead, HeartbeatStored, Journal, KvDeleted, KvStored, RequestSent

OPERATOR = "operator"
HARNESS = "harness"
ENROLMENT = "enrolment"
"""The writer behind declared faults and the user's objects: may write anything."""


class NoForeignKeys(Invariant):
    """Compares the authenticated client with the key it writes or reads, and with the subject of its request."""

    name = "no-foreign-keys"

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(HeartbeatStored, self._beat)
        journal.subscribe(KvStored, self._written)
        journal.subscribe(KvDeleted, self._written)
        journal.subscribe(RequestSent, self._sent)
        journal.subscribe(ForeignRead, self._read)

    def _read(self, event: ForeignRead) -> None:
        known = next((name for name in self.ground.view.devices if name == event.client), None)
        outcome = "and was told" if event.told else "and was told nothing"
        self.violated(f"{event.client} asked for {event.what}, {outcome}", known)

    def _beat(self, event: HeartbeatStored) -> None:
        if event.key.partition(".")[0] != event.writer:  # device ids hold no dots
            self._written(event)

    def _written(self, event: KvStored | KvDeleted) -> None:
        if event.writer == HARNESS or _may_write(event.writer, event.bucket, event.key):
            return
        device = event.key.split(".", 1)[0]
        known = next((name for name in self.ground.view.devices if name == device), None)
        self.violated(f"{event.writer} wrote {event.bucket}/{event.key}", known)

    def _sent(self, event: RequestSent) -> None:
        _, _, rest = event.subject.partition("fleet.")
        kind, _, device = rest.partition(".")
        may_send = is_operator(event.sender) if kind == "stop" else (kind == "lock" and event.sender == device)
        if not may_send and event.sender != HARNESS:
            self.violated(f"{event.sender} sent a request on {event.subject}")


def is_operator(client: str) -> bool:
    """Whether a client of the bus is an operator: one of its replicas, or whichever of them it was."""
    name, _, number = client.partition("-")
    return name == OPERATOR and (number == "" or number.isdecimal())


def _may_write(writer: str, bucket: Bucket, key: str) -> bool:
    match bucket:
        case Bucket.DESIRED | Bucket.OBJECTS:
            return is_operator(writer)
        case Bucket.IDENTITY:
            return writer == ENROLMENT
        case Bucket.INFO:
            return key == writer
        case Bucket.STATE | Bucket.HEARTBEAT:
            return key.startswith(f"{writer}.")
