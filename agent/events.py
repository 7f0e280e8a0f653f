"""What the agent's brains are told and what they answer: one small frozen type per thing that can happen.

Every result of work names its attempt, so that one of work that was abandoned meanwhile is told from one that counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.contracts.ids import AttemptId, BootId, Release, Slot
from fleet.contracts.records import Artefact, DesiredAgent, LockReply, StopRequest, UpgradeStatus
from fleet.contracts.time import Duration


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt whose link was swapped, as it stands on disk. The boot guard reads it too.

    `origin` is the slot that `previous` ran in, in the boot `boot`. `confirmed`: the new release is marked verified.
    """

    attempt: AttemptId
    release: Release
    previous: Release
    origin: Slot
    boot: BootId
    confirmed: bool


# --- events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DesiredSeen:
    """A newer desired release was read."""

    desired: DesiredAgent


@dataclass(frozen=True, slots=True)
class LockHeld:
    """This instance holds the host lock from now on."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The operator asks an instance to exit."""

    request: StopRequest


@dataclass(frozen=True, slots=True)
class LockAnswered:
    """The operator answered the request for the upgrade slot."""

    attempt: AttemptId
    reply: LockReply


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing is under way, and every managed workload is healthy."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class DrainOverran:
    """The deadline of draining passed before that."""

    attempt: AttemptId
    reason: str


@dataclass(frozen=True, slots=True)
class Staged:
    """The release is on disk, whole and unpacked."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class NotStaged:
    """It is not. `later`: another attempt may succeed where this one did not."""

    attempt: AttemptId
    reason: str
    later: bool


@dataclass(frozen=True, slots=True)
class TestPassed:
    """The staged release tested itself and named itself."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class TestFailed:
    """It did not."""

    attempt: AttemptId
    reason: str


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The attempt is on disk, the link leads to the new release, the other unit was started."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class OverlapFailed:
    """The new instance could not be started, has ended for good, or was not confirmed in time."""

    attempt: AttemptId
    reason: str


@dataclass(frozen=True, slots=True)
class WentBack:
    """The swap is undone."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Verified:
    """The release that runs here is marked verified on disk."""

    attempt: AttemptId


Event = (
    DesiredSeen
    | LockHeld
    | StopAsked
    | LockAnswered
    | Drained
    | DrainOverran
    | Staged
    | NotStaged
    | TestPassed
    | TestFailed
    | HandedOver
    | OverlapFailed
    | WentBack
    | Verified
)

# --- instructions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the operator where an attempt stands."""

    attempt: AttemptId
    release: Release
    status: UpgradeStatus


@dataclass(frozen=True, slots=True)
class AskLock:
    """Ask for the upgrade slot, `after` a pause. Ends in `LockAnswered`."""

    attempt: AttemptId
    after: Duration


@dataclass(frozen=True, slots=True)
class Drain:
    """Begin nothing new on workloads. Ends in `Drained` or `DrainOverran`."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Undrain:
    """Work on workloads again."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Bring the release onto the disk. Ends in `Staged` or `NotStaged`."""

    attempt: AttemptId
    artefact: Artefact


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Let the staged release test itself. Ends in `TestPassed` or `TestFailed`."""

    attempt: AttemptId
    release: Release


@dataclass(frozen=True, slots=True)
class HandOver:
    """Record the attempt, swap the link, start the other unit. Ends in `HandedOver` or `OverlapFailed`."""

    attempt: AttemptId
    release: Release


@dataclass(frozen=True, slots=True)
class WatchOverlap:
    """Watch the other unit and the deadline. Ends in `OverlapFailed`, if it ends."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class GoBack:
    """Quarantine the release, swap the link back, stop the other unit. Ends in `WentBack`."""

    attempt: AttemptId
    release: Release
    reason: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Condemn a release on this device."""

    release: Release
    reason: str


@dataclass(frozen=True, slots=True)
class MarkVerified:
    """Mark the release that runs here verified on disk. Ends in `Verified`."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Abandon:
    """Drop the work that is under way."""


@dataclass(frozen=True, slots=True)
class Leave:
    """End this process in order."""


Instruction = (
    Report
    | AskLock
    | Drain
    | Undrain
    | Stage
    | SelfTest
    | HandOver
    | WatchOverlap
    | GoBack
    | Quarantine
    | MarkVerified
    | Abandon
    | Leave
)
