"""At most one operator replica acts: whoever writes a desired record or sends a stop holds the lease at that moment.

The moment is that of the store, and there is no slack: a leader stops five seconds before its lease can be taken, and
leaves before that if it does not know what became of a write (`fleet.operator.lease`). A lease that was given back
still counts for the one that gave it back until the next one takes it: what it had sent may be a moment behind.

What it cannot see: answers to requests for slots are not recorded, but a slot is given by the desired record that says
so; objects do not tell who wrote their status; and where the writer is inferred from the layout (target `local`: it is
`operator`, whichever replica it was) nothing is judged.
"""

from __future__ import annotations

from fleet.contracts.layout import Bucket
from fleet.contracts.lease import replica_of
from harness.invariants.base import Ground, Invariant
from harness.invariants.no_foreign_keys import OPERATOR, is_operator
from sim.journal import Journal, KvDeleted, KvStored, ObjectStored, RequestSent


class OneOperatorActs(Invariant):
    """Compares the replica that acts with the holder that the lease names, or named last."""

    name = "one-operator-acts"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._holder: str | None = None

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(ObjectStored, self._object)
        journal.subscribe(KvStored, self._written)
        journal.subscribe(KvDeleted, self._written)
        journal.subscribe(RequestSent, self._sent)

    def _object(self, event: ObjectStored) -> None:
        holder = self.ground.view.holder_named(event)
        if holder is not None:
            self._holder = replica_of(holder) or self._holder

    def _written(self, event: KvStored | KvDeleted) -> None:
        if event.bucket is Bucket.DESIRED:
            self._judge(event.writer, f"wrote {event.key}")

    def _sent(self, event: RequestSent) -> None:
        if event.subject.startswith("fleet.stop."):
            self._judge(event.sender, f"sent a request on {event.subject}")

    def _judge(self, client: str, act: str) -> None:
        if client != OPERATOR and is_operator(client) and client != self._holder:
            self.violated(f"{client} {act} while {self._holder or 'nobody'} held the lease")
