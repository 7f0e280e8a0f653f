"""What the upgrade brain is told and what it answers: one small frozen type per thing that can happen.

Every event of an attempt names it, so that what comes of abandoned work is told from what counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.capabilities.host import UnitState
from fleet.contracts.ids import AttemptId, BootId, Frozen, InstanceId, Release, Revision, Slot
from fleet.contracts.records import Artefact, DesiredAgent, StopRequest, UpgradeStatus
from fleet.contracts.time import Duration

# --- what is kept on disk ----------------------------------------------------------------------------


class AttemptRecord(Frozen):
    """An upgrade attempt on disk: written before the link is swapped, and when it has ended. The boot guard reads it.

    `previous` ran in slot `origin`, in the boot `boot`. `ended` and `reporter` are the terminal status and who
    reported it; both are missing while the attempt goes on.
    """

    attempt: AttemptId
    release: Release
    previous: Release
    origin: Slot
    boot: BootId
    ended: UpgradeStatus | None = None
    reporter: InstanceId | None = None


@dataclass(frozen=True, slots=True)
class Condemned:
    """A quarantine mark: the reason, and the attempt that failed; None where the mark does not say."""

    reason: str
    attempt: AttemptId | None = None


# --- events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DesiredSeen:
    """A valid desired release. The revision alone says how new it is."""

    revision: Revision
    desired: DesiredAgent


@dataclass(frozen=True, slots=True)
class DesiredWithdrawn:
    """The desired release was deleted."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class StreamWentBack:
    """The server lost revisions that it had acknowledged and uses them again: what is told next counts."""


@dataclass(frozen=True, slots=True)
class BecameManaging:
    """This instance holds the host lock from now on."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The operator asks an instance to exit."""

    request: StopRequest


@dataclass(frozen=True, slots=True)
class SlotGranted:
    """The operator gave the attempt its upgrade slot."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing is under way on the workloads, and all of them are healthy."""

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
class StageRefused:
    """The release cannot be put on this disk, and trying again will not help."""

    attempt: AttemptId
    reason: str


@dataclass(frozen=True, slots=True)
class StageOverran:
    """The release could not be fetched or written for now."""

    attempt: AttemptId
    reason: str


@dataclass(frozen=True, slots=True)
class SelfTestPassed:
    """The staged release tested itself and reported that it is itself."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class SelfTestFailed:
    """It did not."""

    attempt: AttemptId
    reason: str


@dataclass(frozen=True, slots=True)
class SwapDone:
    """The attempt is on disk, the link leads to the new release, and the other unit was started."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class SwapFailed:
    """One of the three could not be done."""

    attempt: AttemptId
    reason: str


@dataclass(frozen=True, slots=True)
class OverlapWatched:
    """A look at the overlap.

    `connected` is how long it has lasted with a connection to the bus and an operator that answers, `condemned` the
    reason in a quarantine mark that the boot guard has set on the new release. `whole` is False if the unit does not
    run and the release's files are not on disk as they were staged: then the disk is to blame.
    """

    attempt: AttemptId
    unit: UnitState
    connected: Duration
    condemned: str | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class TrialWatched:
    """A look at a trial that has no predecessor beside it. `connected` as in `OverlapWatched`."""

    attempt: AttemptId
    connected: Duration


@dataclass(frozen=True, slots=True)
class LookedAgain:
    """The desired record was read directly just now; if it says anything new, that was told before this.

    `whole`: the files of the release are on disk as they were staged.
    """

    attempt: AttemptId
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Restored:
    """Everything that a roll-back has to do is done."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class MarkedVerified:
    """The release that runs here is marked verified on disk."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Closed:
    """The success is on disk, and nothing runs in the slot that the attempt began in."""

    attempt: AttemptId


Event = (
    DesiredSeen
    | DesiredWithdrawn
    | StreamWentBack
    | BecameManaging
    | StopAsked
    | SlotGranted
    | Drained
    | DrainOverran
    | Staged
    | StageRefused
    | StageOverran
    | SelfTestPassed
    | SelfTestFailed
    | SwapDone
    | SwapFailed
    | OverlapWatched
    | TrialWatched
    | LookedAgain
    | Restored
    | MarkedVerified
    | Closed
)

# --- instructions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AskLock:
    """Ask the operator until it grants the slot. Ends in `SlotGranted`."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Drain:
    """Bring the workloads to rest. Ends in `Drained` or `DrainOverran`."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Hold:
    """Touch no workload, on behalf of this attempt: its overlap was under way before this process began."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Undrain:
    """Work on workloads again, if it was this attempt that brought them to rest."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Stage:
    """Put the release on disk. Ends in `Staged`, `StageRefused` or `StageOverran`."""

    attempt: AttemptId
    artefact: Artefact


@dataclass(frozen=True, slots=True)
class RunSelfTest:
    """Run the staged release's self-test.

    Ends in `SelfTestPassed` or `SelfTestFailed`, or in `StageOverran` if its files were damaged meanwhile.
    """

    attempt: AttemptId
    release: Release


@dataclass(frozen=True, slots=True)
class RecordAttempt:
    """Write the attempt to disk."""

    record: AttemptRecord


@dataclass(frozen=True, slots=True)
class SwapLink:
    """Let the current link lead to this release, if that is whole."""

    release: Release


@dataclass(frozen=True, slots=True)
class StartUnit:
    """Start the unit of a slot."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class StopUnit:
    """Stop the unit of a slot, and forget its failures."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Condemn a release by its sha256, durably: it has failed in this attempt."""

    release: Release
    reason: str
    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class LiftQuarantine:
    """Take the mark off a release, durably: the operator asked for that."""

    release: Release


@dataclass(frozen=True, slots=True)
class MarkVerified:
    """Write the release down as the one that is good."""

    release: Release


Step = RecordAttempt | SwapLink | StartUnit | StopUnit | Quarantine | LiftQuarantine | MarkVerified
"""A small change to the device. Doing it twice is the same as doing it once."""


@dataclass(frozen=True, slots=True)
class TrySwap:
    """Do the steps in order, once. Ends in `SwapDone`, or in `SwapFailed` at the first that fails."""

    attempt: AttemptId
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Insist:
    """Do the steps in order; go on at one that fails, and come back to it until all are done. Then tell `done`."""

    steps: tuple[Step, ...]
    done: Restored | MarkedVerified | Closed


@dataclass(frozen=True, slots=True)
class Note:
    """Write the attempt to disk once. When that fails, nothing is lost but work that is done again after a restart."""

    record: AttemptRecord


@dataclass(frozen=True, slots=True)
class WatchOverlap:
    """Look at the overlap again and again: `OverlapWatched`, until abandoned."""

    attempt: AttemptId
    release: Release


@dataclass(frozen=True, slots=True)
class WatchTrial:
    """Look at the trial again and again: `TrialWatched`, until abandoned."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Read the own desired record directly. Ends in `LookedAgain` if that worked; the next look asks again if not."""

    attempt: AttemptId
    release: Release


@dataclass(frozen=True, slots=True)
class Abandon:
    """Drop whatever is under way."""


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the operator where an attempt stands."""

    attempt: AttemptId
    release: Release
    status: UpgradeStatus
    reporter: InstanceId


@dataclass(frozen=True, slots=True)
class Exit:
    """End this process in order. With a code other than 0 the service manager starts the unit again."""

    code: int


Instruction = (
    AskLock
    | Drain
    | Hold
    | Undrain
    | Stage
    | RunSelfTest
    | TrySwap
    | Insist
    | Note
    | WatchOverlap
    | WatchTrial
    | LookAgain
    | Abandon
    | Report
    | Exit
)
