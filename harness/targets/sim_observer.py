"""What the virtual control plane accepts, as events of the journal."""

from __future__ import annotations

from collections.abc import Callable

from fleet.contracts.ids import Revision
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Instant
from sim.journal import (
    ForeignRead,
    HeartbeatStored,
    Journal,
    KvDeleted,
    KvStored,
    ObjectRemoved,
    ObjectStored,
    RequestSent,
)
from sim.nats.server import RAW_WRITER

HARNESS = "harness"
OPERATOR = "operator"
_CLUSTER = (OPERATOR, "callout", "enrolment")
"""What the clients are called that are no devices. They read for all of them."""


class Observer:
    """Listens to the virtual NATS server and to the virtual Kubernetes API."""

    def __init__(self, journal: Journal, now: Callable[[], Instant]) -> None:
        self._journal = journal
        self._now = now

    def stored(self, bucket: Bucket, key: str, revision: Revision, writer: str, value: bytes) -> None:
        """A write was accepted."""
        kind = HeartbeatStored if bucket is Bucket.HEARTBEAT else KvStored
        self._journal.record(kind(self._now(), bucket, key, revision, _who(writer), value))

    def deleted(self, bucket: Bucket, key: str, revision: Revision, writer: str) -> None:
        """A delete marker was accepted."""
        self._journal.record(KvDeleted(self._now(), bucket, key, revision, _who(writer)))

    def requested(self, subject: str, sender: str, payload: bytes) -> None:
        """A request was published."""
        self._journal.record(RequestSent(self._now(), subject, sender, payload))

    def read(self, client: str, bucket: Bucket, key: str, allowed: bool) -> None:
        """A client asked for entries. Only what is not its own is an event: reading is most of what devices do."""
        if client.partition("-")[0] not in _CLUSTER and key.partition(".")[0] != client:
            self._journal.record(ForeignRead(self._now(), client, f"{bucket}/{key}", allowed))

    def listened(self, client: str, pattern: str, allowed: bool) -> None:
        """A client subscribed to `fleet.<bucket or verb>.<device>…`."""
        if client.partition("-")[0] not in _CLUSTER and pattern.split(".")[2:3] != [client]:
            self._journal.record(ForeignRead(self._now(), client, pattern, allowed))

    def object_stored(self, kind: str, name: str, value: bytes) -> None:
        """An object was created or changed."""
        self._journal.record(ObjectStored(self._now(), kind, name, value))

    def object_removed(self, kind: str, name: str) -> None:
        """An object was deleted."""
        self._journal.record(ObjectRemoved(self._now(), kind, name))


def _who(writer: str) -> str:
    return HARNESS if writer == RAW_WRITER else writer
