"""What the operator takes from its world, and its intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fleet.capabilities.bus import Bus
from fleet.capabilities.clock import Chance, Clock
from fleet.capabilities.objects import Objects
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Duration


@dataclass(frozen=True, slots=True)
class OperatorPorts:
    """The capabilities of the control plane, chosen by `fleet.__main__` or by the simulated world."""

    clock: Clock
    chance: Chance
    bus: Bus
    objects: Objects


@dataclass(frozen=True, slots=True)
class OperatorTimings:
    """Every interval of the operator. Production values: a target paces the clock instead of changing one."""

    heartbeat: Duration = Duration.seconds(30)
    """What the agents are built to send."""
    missed_for_stale: int = 3
    """A device is stale after this many missed heartbeats …"""
    stale_grace: Duration = Duration.seconds(10)
    """… and this slack for jitter and links."""
    verify_heartbeats: int = 3
    """A new instance is confirmed after this many heartbeats …"""
    verify_time: Duration = Duration.seconds(55)
    """… over at least this time, all of them healthy and of the right release."""
    stop_repeat: Duration = Duration.seconds(10)
    """The explicit stop is repeated this often until the old instance is really gone."""
    lease: Duration = Duration.minutes(60)
    """An attempt that was granted its slot and is not terminal after this counts as failed, and its slot is free."""
    offline: Duration = Duration.minutes(5)
    """A stale device counts as unavailable for this long; then it is passed over until it comes back."""
    lock_retry: Duration = Duration.seconds(20)
    """A device that was denied its upgrade slot asks again after this."""
    deferred_retry: Duration = Duration.minutes(5)
    """A deferred attempt is made again after this …"""
    deferred_retries: int = 3
    """… and at most this often."""
    patience: Duration = Duration.minutes(30)
    """A group whose devices are done, but not healthy for its whole soak, is waited for this much longer than the soak.
    Then its ailing devices count as failed. A group of which every device is away is waited for this long, too."""
    clone_returns: int = 3
    """Two machines have one identity when two boots of a device came back, after another, this often each …"""
    clone_window: Duration = Duration.minutes(5)
    """… within this time. Two that beat every half a minute are found out after about two minutes."""
    clone_quiet: Duration = Duration.minutes(10)
    """It is over when one boot alone was heard for this long."""
    tick: Duration = Duration.seconds(10)
    """How often time alone is looked at: staleness, leases, repeated stops."""
    request: Duration = Duration.seconds(5)
    write: Duration = Duration.seconds(10)
    read: Duration = Duration.seconds(60)
    """A whole bucket or kind has to be read within this."""
    retry: Duration = Duration.seconds(2)
    """Pause after a failed read or write; up to twice as long, by chance."""
    resync: Duration = Duration.minutes(10)
    """Buckets and objects are read again in full this often: republished messages and watches can be lost."""
    leader_lease: Duration = Duration.seconds(15)
    """A replica takes the lease of another one when it has seen no change of it for this long."""
    leader_deadline: Duration = Duration.seconds(10)
    """A leader acts for this long after it sent the renewal that was last accepted. Must be well below the lease."""
    leader_renew: Duration = Duration.seconds(5)
    """The leader renews this often."""
    leader_retry: Duration = Duration.seconds(2)
    """A replica that waits for the lease looks this often; so does a leader that the store did not answer."""


FIRST_REPLICA: Final = ObjectName("operator-0")


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """What an operator replica is told.

    Args:
        replica: its name; no other process that runs may have it.
    """

    timings: OperatorTimings = OperatorTimings()
    replica: ObjectName = FIRST_REPLICA
