"""Two machines under one identity, found by the boots that are heard: a card was copied, keys and all. Pure.

Heartbeats name the boot they were sent in. The boots of one machine come one after the other, and none comes back.
Two machines that run under one identity are heard in turn, so that both of their boots keep coming back.

Only what the bus pushed counts, in the order in which it was stored: a bus that was restored from an older store shows
an old boot when it is read again, and pushes nothing. A heartbeat that the network held back over a reboot brings the
old boot back once. Hence several returns, of two boots at least, within a short time.

Nothing here is lost for good when the operator restarts: what was found stands in the device's status, and what was not
found yet is found again as quickly as at first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fleet.contracts.ids import BootId, DeviceId, Revision
from fleet.contracts.objects import Cloned
from fleet.contracts.time import Duration, Instant
from fleet.operator.ports import OperatorTimings

KEPT = 4
"""Boots that are remembered of a device, the last heard ones; one machine has one, unless it restarts."""
_RETURNS_KEPT = 8
_NOTHING = Revision(0)
_BEGINNING = Instant(0)


@dataclass(slots=True)
class Boots:
    """The boots of one device that were heard lately, by this operator process. `at` is its monotonic time."""

    latest: BootId | None = None
    revision: Revision = _NOTHING
    heard: Instant = _BEGINNING
    alone: Instant = _BEGINNING
    """Since when no boot but the latest was heard, without a break."""
    returns: dict[BootId, tuple[Instant, ...]] = field(default_factory=dict)
    """When each came back after another one; the last heard is the last. Empty while there was only one."""

    def hear(self, boot: BootId, revision: Revision, at: Instant, longest_gap: Duration) -> bool:
        """A heartbeat was pushed. Whether its boot is another than that of the last one.

        One that was stored before the last one counted says nothing.
        """
        if revision <= self.revision:
            return False
        self.revision = revision
        changed = boot != self.latest
        if changed:
            if self.latest is not None:
                self._came(boot, at)
            self.latest, self.alone = boot, at
        elif at - self.heard > longest_gap:
            self.alone = at
        self.heard = at
        return changed

    def _came(self, boot: BootId, at: Instant) -> None:
        assert self.latest is not None
        self.returns.setdefault(self.latest, ())
        before = self.returns.pop(boot, None)
        self.returns[boot] = () if before is None else (*before, at)[-_RETURNS_KEPT:]
        while len(self.returns) > KEPT:
            del self.returns[next(iter(self.returns))]

    def forget(self) -> None:
        """The order of the bus means nothing any more: begin anew."""
        self.latest, self.revision, self.returns = None, _NOTHING, {}


def found(boots: Boots, at: Instant, timings: OperatorTimings) -> tuple[BootId, ...]:
    """The boots that keep coming back, sorted: two at least, or none."""
    coming = [
        boot
        for boot, returns in boots.returns.items()
        if sum(at - moment < timings.clone_window for moment in returns) >= timings.clone_returns
    ]
    return tuple(sorted(coming)) if len(coming) > 1 else ()


def look(boots: Boots, known: Cloned | None, at: Instant, wall: Instant, timings: OperatorTimings) -> Cloned | None:
    """Whether the device is cloned now. It is over when one boot alone was heard for long enough.

    While nobody is heard, nothing is over: both machines may come back.
    """
    if known is not None:
        over = boots.latest is not None and boots.heard - boots.alone >= timings.clone_quiet
        return None if over else known
    coming = found(boots, at, timings)
    return Cloned(since=wall, boots=coming) if coming else None


REASON = "two machines have the identity of this device"
"""Why it gets no upgrade slot."""


def advice(device: DeviceId) -> str:
    """What is to be done, for people."""
    return (
        f"run `fleet device revoke {device}`, take the copy away, "
        f"and run `fleet device re-enroll {device}` on the machine that stays"
    )


def told(device: DeviceId, cloned: Cloned) -> str:
    """What is said once when it is found."""
    boots = " and ".join(cloned.boots)
    return f"{device}: two machines have its identity, boots {boots} are heard in turn; {advice(device)}"


def told_over(device: DeviceId, boots: Boots, timings: OperatorTimings) -> str:
    """What is said once when it is over."""
    alone = f"no boot but {boots.latest} was heard for {timings.clone_quiet}"
    return f"{device}: one machine has its identity again, {alone}"
