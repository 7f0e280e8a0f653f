"""Who acts: the decisions by which replicas of the operator agree on one leader over a `Lease` (ADR-013).

Pure: events in, the next step out. There is always exactly one step under way.

The promise, in terms of one leader's clock: its lease was last renewed by a write that it *sent* at t. From
t + `leader_deadline` on it sends nothing. Another replica takes the lease only after it has itself seen no change of it
for `leader_lease`; the write of t was stored at t or later, so that is at t + `leader_lease` or later. Between the two
lie five seconds, in which what was sent arrives or is given up, and which only clocks whose rates differ by more than
a fifth could eat up. No clock is ever compared with another one, and no time in the lease with any clock.

What remains possible, and why it does no harm: a process that stands still between the look at its clock and the
sending, and a message that the network holds back. Each desired record and each status is written by compare-and-swap
on the revision last seen, so that such a write fails once the new leader has written there, and is seen by the new
leader, as any other, when it has not; a stop names an instance, its confirmed successor and the attempt, and what it
says is as true later. A leader that does not know at t + `leader_lease` whether a write of its has been made leaves,
and its connection with it (`fleet.operator.loop`), so that no buffer writes it after the network has come back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from fleet.contracts.ids import ObjectName
from fleet.contracts.lease import OPERATOR_LEASE, Lease, LeaseSpec, identity, micro_time, replica_of
from fleet.contracts.objects import Metadata
from fleet.contracts.time import ZERO, Duration, Instant
from fleet.operator.ports import OperatorTimings

# --- events: the end of a step. `at` is monotonic time of this process, `wall` its time of day


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """The lease as it was read; None when there is none."""

    lease: Lease | None
    at: Instant
    wall: Instant


@dataclass(frozen=True, slots=True)
class LeaseWritten:
    """The store accepted the write that was sent at `sent`."""

    lease: Lease
    sent: Instant
    at: Instant
    wall: Instant


@dataclass(frozen=True, slots=True)
class LeaseRefused:
    """The store did not accept the write: another one came first."""

    at: Instant
    wall: Instant


@dataclass(frozen=True, slots=True)
class StoreSilent:
    """A look failed, or a write of which nobody knows whether it was made."""

    at: Instant
    wall: Instant


@dataclass(frozen=True, slots=True)
class Rested:
    """The pause is over."""

    at: Instant
    wall: Instant


LeaseEvent = LeaseSeen | LeaseWritten | LeaseRefused | StoreSilent | Rested

# --- steps


@dataclass(frozen=True, slots=True)
class Look:
    """Read the lease."""


@dataclass(frozen=True, slots=True)
class Create:
    """Make the lease, if there is none."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Replace:
    """Replace the lease, if it is still the one that was seen."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Rest:
    """Wait."""

    length: Duration


@dataclass(frozen=True, slots=True)
class Leave:
    """The lease is not ours any more. All that this process believes may be outdated: it has to go."""

    holder: str


Step = Look | Create | Replace | Rest | Leave


@dataclass(slots=True)
class Elector:
    """One start of one replica.

    Args:
        replica: unique among the processes that run. A start of the same replica takes the lease over at once, because
            whoever starts it (a kubelet, systemd) knows that the process before it is gone.
        token: unique among all starts.
    """

    replica: ObjectName
    token: str
    timings: OperatorTimings
    leads: bool = False
    """It has taken the lease and has not seen another holder since. It may act only while `acts` says so, too."""
    _renewed: Instant = field(default=Instant(0))
    """When the write that was last accepted was sent."""
    _known: Lease | None = None
    _changed: Instant = field(default=Instant(0))
    """When a change of the lease was last seen."""
    _has_looked: bool = False
    _is_fresh: bool = False
    """What is known of the lease is what this process wrote itself, last."""

    @property
    def identity(self) -> str:
        """The holder's name."""
        return identity(self.replica, self.token)

    def acts(self, at: Instant) -> bool:
        """Whether something may be sent now: written, granted, or told to stop."""
        return self.leads and at - self._renewed < self.timings.leader_deadline

    @property
    def exposed(self) -> Instant:
        """From this moment on another replica may act."""
        return self._renewed + self.timings.leader_lease

    def begin(self) -> Step:
        """The first step."""
        return Look()

    def next(self, event: LeaseEvent) -> Step:
        """Take in how a step ended; answers the next one. Not to be called after `Leave`."""
        match event:
            case LeaseSeen(lease=None):
                return self._missing(event)
            case LeaseSeen(lease=lease):
                assert lease is not None
                return self._seen(lease, event)
            case LeaseWritten():
                return self._written(event)
            case LeaseRefused():
                self._is_fresh = False
                return Look()
            case StoreSilent():
                self._is_fresh = False
                return Rest(self.timings.leader_retry)
            case Rested():
                if self._is_fresh and self._known is not None:
                    return Replace(self._renewal(self._known, event.wall))
                return Look()
            case _:
                assert_never(event)

    def released(self, lease: Lease, wall: Instant) -> Lease | None:
        """The lease given back, so that the next one need not wait; None when it is not ours to give."""
        if lease.spec.holder_identity != self.identity:
            return None
        spec = lease.spec.model_copy(update={"holder_identity": "", "renew_time": micro_time(wall)})
        return lease.changed(spec=spec)

    # --- what was seen

    def _missing(self, event: LeaseSeen) -> Step:
        """Nobody has led yet, or somebody deleted it: then it is anybody's, and not ours any more."""
        if self.leads:
            return self._leave("")
        self._has_looked, self._known = True, None
        spec = LeaseSpec(
            holder_identity=self.identity,
            lease_duration_seconds=max(1, round(self.timings.leader_lease.in_seconds)),
            acquire_time=micro_time(event.wall),
            renew_time=micro_time(event.wall),
        )
        return Create(Lease(metadata=Metadata(name=OPERATOR_LEASE), spec=spec))

    def _seen(self, lease: Lease, event: LeaseSeen) -> Step:
        if lease != self._known:
            self._known, self._changed = lease, event.at
        is_first, self._has_looked = not self._has_looked, True
        holder = lease.spec.holder_identity
        if holder == self.identity:
            return Replace(self._renewal(lease, event.wall))
        if self.leads:
            return self._leave(holder)
        is_predecessor = is_first and replica_of(holder) == self.replica
        if holder == "" or is_predecessor or event.at - self._changed >= self._patience(lease):
            return Replace(self._takeover(lease, event.wall))
        return Rest(self.timings.leader_retry)

    def _patience(self, lease: Lease) -> Duration:
        """The longer of what the holder said and what this replica was built for."""
        return max(Duration.seconds(lease.spec.lease_duration_seconds), self.timings.leader_lease)

    def _written(self, event: LeaseWritten) -> Step:
        known = self._known
        if known is not None and event.lease.metadata.resource_version == known.metadata.resource_version:
            self._is_fresh = False  # nothing would have changed, so nothing was written and nobody can see it
            return Rest(self.timings.leader_retry)
        self._known, self._changed, self._is_fresh = event.lease, event.at, True
        self.leads, self._renewed = True, event.sent
        return Rest(max(ZERO, event.sent + self.timings.leader_renew - event.at))

    def _leave(self, holder: str) -> Leave:
        self.leads = False
        return Leave(holder)

    # --- what is written

    def _renewal(self, lease: Lease, wall: Instant) -> Lease:
        return lease.changed(spec=lease.spec.model_copy(update={"renew_time": micro_time(wall)}))

    def _takeover(self, lease: Lease, wall: Instant) -> Lease:
        spec = LeaseSpec(
            holder_identity=self.identity,
            lease_duration_seconds=max(1, round(self.timings.leader_lease.in_seconds)),
            acquire_time=micro_time(wall),
            renew_time=micro_time(wall),
            lease_transitions=lease.spec.lease_transitions + 1,
        )
        return lease.changed(spec=spec)
