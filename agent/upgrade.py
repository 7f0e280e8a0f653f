"""The brain of the hand-over protocol (ADR-022): pure, one of it per agent process.

The old instance goes `Idle → Locking → Draining → Staging → Testing → Swapping → Overlapping` and ends with the
operator's stop, or with `RollingBack`. The new instance is `OnTrial` until the operator has confirmed it by its
heartbeats, then `Marking`, then `Confirmed` until it holds the host lock, which proves the old one gone; only then
does it close the attempt as a success. Every attempt that this device answers to gets exactly one terminal report.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

from agent.events import (
    Abandon,
    AskLock,
    AttemptRecord,
    BecameManaging,
    Closed,
    Condemned,
    DesiredSeen,
    DesiredWithdrawn,
    Drain,
    Drained,
    DrainOverran,
    Event,
    Exit,
    Hold,
    Insist,
    Instruction,
    LiftQuarantine,
    LookAgain,
    LookedAgain,
    MarkedVerified,
    MarkVerified,
    Note,
    OverlapWatched,
    Quarantine,
    RecordAttempt,
    Report,
    Restored,
    RunSelfTest,
    SelfTestFailed,
    SelfTestPassed,
    SlotGranted,
    Stage,
    Staged,
    StageOverran,
    StageRefused,
    StartUnit,
    Step,
    StopAsked,
    StopUnit,
    StreamWentBack,
    SwapDone,
    SwapFailed,
    SwapLink,
    TrialWatched,
    TrySwap,
    Undrain,
    WatchOverlap,
    WatchTrial,
)
from agent.states import (
    Closing,
    Confirmed,
    Draining,
    Found,
    Idle,
    Leaving,
    Locking,
    Marking,
    Me,
    OnTrial,
    Overlapping,
    RollingBack,
    Staging,
    State,
    Swapping,
    Testing,
)
from agent.transitions import BEGINS, is_declared
from fleet.capabilities.host import Failing, Running, Stopped, UnitState
from fleet.contracts.errors import IllegalTransition
from fleet.contracts.ids import AttemptId, Revision, Sha256
from fleet.contracts.records import (
    DeferredUpgrade,
    DesiredAgent,
    InProgress,
    RefusedUpgrade,
    RolledBack,
    StopRequest,
    Succeeded,
    UpgradePhase,
    UpgradeStatus,
)
from fleet.contracts.time import Duration

ENOUGH_EXITS: Final = 3
"""The new unit is given up after this many bad ends: its boot guard starts an unverified release no more often."""
ENOUGH_STOPPED: Final = 2
"""… or when this many looks in a row find it stopped: at a shutdown all units stop, and that condemns nobody."""
_LONGEST_REASON: Final = 1000
_STORY: Final = 30

Instructions = tuple[Instruction, ...]


_Working = Locking | Draining | Staging | Testing

_PHASES: Final[dict[type[_Working], UpgradePhase]] = {
    Locking: UpgradePhase.LOCKING,
    Draining: UpgradePhase.DRAINING,
    Staging: UpgradePhase.STAGING,
    Testing: UpgradePhase.TESTING,
}


class Upgrade:
    """The state machine. `begin` once, then `handle` per event."""

    def __init__(self, me: Me, found: Found, overlap: Duration) -> None:
        self._me = me
        self._found = found
        self._deadline = overlap
        self._verified = found.verified
        self._condemned: dict[Sha256, Condemned] = dict(found.condemned or {})
        self._managing = False
        self._seen = Revision(0)
        self._wanted: DesiredAgent | None = None
        self._settled: AttemptRecord | None = None
        self._left_open: AttemptRecord | None = None
        self._story: deque[str] = deque(maxlen=_STORY)
        self.state: State = Idle()

    def handle(self, event: Event) -> Instructions:
        """Decide. What comes of work that was abandoned is passed over.

        Raises:
            IllegalTransition: the state has no answer to the event, or not this one; tells how it came to that.
        """
        if self._is_stale(event):
            return ()
        before = self.state
        instructions = self._handle(event)
        if not is_declared(type(before), type(event), type(self.state)):
            story, after, self.state = tuple(self._story), self.state, before
            raise IllegalTransition(repr(before), f"{event!r} to {type(after).__name__}", story)
        self._story.append(f"{type(before).__name__} --{type(event).__name__}--> {type(self.state).__name__}")
        return instructions

    def _handle(self, event: Event) -> Instructions:
        match event:
            case StreamWentBack():
                self._seen = Revision(0)
                return ()
            case DesiredSeen(revision, desired):
                return self._desired_seen(revision, desired)
            case DesiredWithdrawn(revision):
                return self._withdrawn(revision)
            case BecameManaging():
                return self._became_managing()
            case StopAsked(request):
                return self._stop_asked(request)
            case OverlapWatched() | TrialWatched() | LookedAgain():
                return self._watched(event)
            case _:
                return self._worked(event)

    def _is_stale(self, event: Event) -> bool:
        match event:
            case DesiredSeen() | DesiredWithdrawn() | StreamWentBack() | BecameManaging() | StopAsked():
                return False
            case OverlapWatched() | TrialWatched() | LookedAgain():
                return event.attempt != self.attempt or not isinstance(self.state, Overlapping | OnTrial)
            case _:
                return event.attempt != self.attempt

    @property
    def attempt(self) -> AttemptId | None:
        """The attempt under way, if one is."""
        match self.state:
            case Locking(desired) | Draining(desired) | Staging(desired) | Testing(desired):
                return desired.attempt
            case Idle() | Leaving():
                return None
            case state:
                return state.record.attempt if state.record is not None else None

    # --- at the start ------------------------------------------------------------------------------------

    def begin(self) -> Instructions:
        """Find out from the disk what this process is."""
        instructions = self._begin()
        assert type(self.state) in BEGINS, self.state
        return instructions

    def _begin(self) -> Instructions:
        record = self._found.attempt
        if record is None:
            return self._begin_plain()
        if record.ended is not None:
            return self._begin_after(record)
        if record.release == self._me.release:
            return self._begin_as_new(record)
        if record.previous == self._me.release:
            return self._begin_as_old(record)
        return self._begin_plain()

    def _begin_plain(self) -> Instructions:
        if self._verified != self._me.release:
            self.state = OnTrial(None)
        return ()

    def _begin_after(self, record: AttemptRecord) -> Instructions:
        """The last attempt has ended."""
        mark = self._condemned.get(record.release.sha256)
        succeeded = isinstance(record.ended, Succeeded)
        if succeeded and record.release == self._me.release and record.previous != record.release:
            self._verified = self._me.release
            return self._close(record)
        if succeeded and record.release != self._me.release and mark is not None:
            self._settled = self._ended(record, _rolled_back(mark.reason))
            return (Note(self._settled), *self._begin_plain())
        self._settled = record
        return self._begin_plain()

    def _begin_as_new(self, record: AttemptRecord) -> Instructions:
        self.state = Confirmed(record) if self._verified == self._me.release else OnTrial(record)
        return ()

    def _begin_as_old(self, record: AttemptRecord) -> Instructions:
        mark = self._condemned.get(record.release.sha256)
        if mark is not None and mark.attempt in (None, record.attempt):
            return (Hold(record.attempt), *self._roll_back(record, _rolled_back(mark.reason), mark.reason))
        if self._found.current != record.release.version:
            self._left_open = record  # Never swapped, or swapped back: begins anew if it is still desired.
            return self._begin_plain()
        resumed = record.model_copy(update={"origin": self._me.slot, "boot": self._me.instance.boot})
        self.state = Swapping(resumed)
        steps = (RecordAttempt(resumed), SwapLink(resumed.release), StartUnit(self._me.slot.other))
        return (Hold(resumed.attempt), TrySwap(resumed.attempt, steps))

    # --- what is desired -----------------------------------------------------------------------------------

    def _desired_seen(self, revision: Revision, desired: DesiredAgent) -> Instructions:
        if revision <= self._seen:
            return ()
        self._seen, self._wanted = revision, desired
        left_open = self._close_left_open(f"superseded by attempt {desired.attempt}", desired.attempt)
        return (*left_open, *self._desired_now(desired))

    def _desired_now(self, desired: DesiredAgent) -> Instructions:
        match self.state:
            case Idle():
                return self._consider()
            case Locking() | Draining() | Staging() | Testing() as working:
                if desired.attempt == working.desired.attempt:
                    return ()
                return (Abandon(), *self._defer(working, f"superseded by attempt {desired.attempt}"))
            case Overlapping() as overlapping:
                return self._desired_in_overlap(overlapping, desired)
            case OnTrial():
                return self._desired_on_trial()
            case _:
                return ()  # Looked at when the attempt under way has ended.

    def _withdrawn(self, revision: Revision) -> Instructions:
        """Before the swap the attempt is dropped, in the overlap it is undone: nobody will confirm the release."""
        if revision <= self._seen:
            return ()
        self._seen, self._wanted = revision, None
        match self.state:
            case Locking() | Draining() | Staging() | Testing() as working:
                return (Abandon(), *self._defer(working, _WITHDRAWN))
            case Overlapping(record):
                return self._withdraw_overlap(record)
            case _:
                return self._close_left_open(_WITHDRAWN)

    def _withdraw_overlap(self, record: AttemptRecord) -> Instructions:
        status = DeferredUpgrade(phase=UpgradePhase.OVERLAPPING, reason=_WITHDRAWN)
        return (Abandon(), *self._roll_back(record, status))

    def _close_left_open(self, reason: str, wanted: AttemptId | None = None) -> Instructions:
        """An attempt that a crash cut off before its end is answered, unless it is going to begin anew."""
        record, self._left_open = self._left_open, None
        if record is None or record.attempt == wanted:
            return ()
        ended = self._ended(record, DeferredUpgrade(phase=UpgradePhase.SWAPPING, reason=reason))
        self._settled = ended
        return (Note(ended), _report(ended))

    def _consider(self) -> Instructions:
        """Idle: look whether something else is desired. Only the managing instance begins anything."""
        wanted, me = self._wanted, self._me
        if wanted is None or not self._managing:
            return ()
        if self._settled is not None and self._settled.attempt == wanted.attempt:
            return (_report(self._settled),)
        if wanted.artefact.release == me.release:
            if self._verified == me.release:
                return self._settle(wanted, Succeeded())
            self.state = OnTrial(None)
            return self._desired_on_trial()
        reason = self._objection(wanted)
        if reason:
            return self._settle(wanted, RefusedUpgrade(phase=UpgradePhase.LOCKING, reason=_short(reason)))
        self.state = Locking(wanted)
        return (self._progress(wanted, UpgradePhase.LOCKING), AskLock(wanted.attempt))

    def _objection(self, wanted: DesiredAgent) -> str:
        """Why this release is not even tried; "" when nothing speaks against it."""
        release, me = wanted.artefact.release, self._me
        if release.sha256 == me.release.sha256:
            return f"this very file runs here as version {me.release.version}"
        mark = self._condemned.get(release.sha256)
        if mark is not None and not self._lifts(wanted):
            return f"quarantined on this device: {mark.reason}"
        if wanted.artefact.architecture is not me.architecture:
            return f"built for {wanted.artefact.architecture.value}, this is {me.architecture.value}"
        for other in (me.release, *self._found.on_disk):
            if other.version == release.version and other.sha256 != release.sha256:
                return f"version {release.version} is on disk with another sha256, {other.sha256.short}"
        return ""

    def _lifts(self, wanted: DesiredAgent) -> bool:
        """Whether the release is condemned and the operator lifts that: once for an attempt, and never its own doing.

        A mark that does not say who set it may be the boot guard's during this attempt, if that is on disk already.
        """
        mark = self._condemned.get(wanted.artefact.release.sha256)
        known = self._found.attempt
        began = known is not None and known.attempt == wanted.attempt
        return wanted.lift_quarantine and mark is not None and mark.attempt != wanted.attempt and not began

    def _became_managing(self) -> Instructions:
        self._managing = True
        match self.state:
            case Idle():
                return self._consider()
            case OnTrial():
                return self._desired_on_trial()
            case Confirmed(record):
                return self._close(record)
            case _:
                return ()

    # --- the old instance's way -------------------------------------------------------------------------------

    def _worked(
        self,
        event: SlotGranted
        | Drained
        | DrainOverran
        | Staged
        | StageRefused
        | StageOverran
        | SelfTestPassed
        | SelfTestFailed
        | SwapDone
        | SwapFailed
        | Restored
        | MarkedVerified
        | Closed,
    ) -> Instructions:
        match self.state, event:
            case Locking(desired), SlotGranted():
                self.state = Draining(desired)
                return (self._progress(desired, UpgradePhase.DRAINING), Drain(desired.attempt))
            case Draining(desired), Drained():
                self.state = Staging(desired)
                return (self._progress(desired, UpgradePhase.STAGING), Stage(desired.attempt, desired.artefact))
            case Draining() as working, DrainOverran(reason=reason):
                return self._defer(working, reason)
            case Staging(desired), Staged():
                self.state = Testing(desired)
                test = RunSelfTest(desired.attempt, desired.artefact.release)
                return (self._progress(desired, UpgradePhase.TESTING), test)
            case (Staging() | Testing()) as working, StageOverran(reason=reason):
                return self._defer(working, reason)
            case Staging(desired), StageRefused(reason=reason):
                refused = RefusedUpgrade(phase=UpgradePhase.STAGING, reason=_short(reason))
                return (*self._settle(desired, refused), Undrain(desired.attempt), *self._consider_anew(desired))
            case Testing(desired), SelfTestPassed():
                return self._swap(desired)
            case Testing(desired), SelfTestFailed(reason=reason):
                return self._condemn_untried(desired, reason)
            case Swapping(record), SwapDone():
                return self._overlap(record)
            case Swapping(record), SwapFailed(reason=reason):
                status = DeferredUpgrade(phase=UpgradePhase.SWAPPING, reason=_short(reason))
                return self._roll_back(record, status)
            case RollingBack() as rolling, Restored():
                return self._restored(rolling)
            case Marking(record), MarkedVerified():
                self._verified = self._me.release
                self._condemned.pop(self._me.release.sha256, None)
                self.state = Confirmed(record)
                return self._close(record) if self._managing else ()
            case Closing(record), Closed():
                return self._closed(record)
            case _:
                raise IllegalTransition(repr(self.state), repr(event), tuple(self._story))

    def _defer(self, working: _Working, reason: str) -> Instructions:
        """Not now; and see whether something else is desired instead."""
        status = DeferredUpgrade(phase=_PHASES[type(working)], reason=_short(reason))
        undrain = () if isinstance(working, Locking) else (Undrain(working.desired.attempt),)
        return (*self._settle(working.desired, status), *undrain, *self._consider_anew(working.desired))

    def _consider_anew(self, ended: DesiredAgent) -> Instructions:
        """What was just answered is not answered again."""
        return () if self._wanted is not None and self._wanted.attempt == ended.attempt else self._consider()

    def _swap(self, desired: DesiredAgent) -> Instructions:
        record, other = self._record(desired), self._me.slot.other
        self.state = Swapping(record)
        lift = (LiftQuarantine(record.release),) if self._lifts(desired) else ()
        steps: tuple[Step, ...] = (
            *lift,
            StopUnit(other),
            RecordAttempt(record),
            SwapLink(record.release),
            StartUnit(other),
        )
        return (self._progress(desired, UpgradePhase.SWAPPING), TrySwap(record.attempt, steps))

    def _condemn_untried(self, desired: DesiredAgent, reason: str) -> Instructions:
        """The release failed its self-test: nothing was swapped, so nothing but the mark is needed."""
        self._condemned[desired.artefact.release.sha256] = Condemned(reason, desired.attempt)
        ended = self._ended(self._record(desired), RolledBack(phase=UpgradePhase.TESTING, reason=_short(reason)))
        self.state = RollingBack(ended)
        return (Insist((_quarantine(ended, reason), RecordAttempt(ended)), Restored(ended.attempt)),)

    def _overlap(self, record: AttemptRecord) -> Instructions:
        self._condemned.pop(record.release.sha256, None)
        self.state = overlapping = Overlapping(record)
        report = Report(record.attempt, record.release, _OVERLAPPING, self._me.instance)
        watch = WatchOverlap(record.attempt, record.release)
        if self._wanted is not None:
            return (report, watch, *self._desired_in_overlap(overlapping, self._wanted))
        return (report, watch, *(self._withdraw_overlap(record) if self._seen else ()))

    def _desired_in_overlap(self, overlapping: Overlapping, desired: DesiredAgent) -> Instructions:
        record = overlapping.record
        if desired.attempt == record.attempt:
            self.state = replace(overlapping, confirmed=overlapping.confirmed or desired.confirmed is not None)
            return ()
        superseded = DeferredUpgrade(phase=UpgradePhase.OVERLAPPING, reason=f"superseded by attempt {desired.attempt}")
        if desired.artefact.release != record.release:
            # The operator judges what it desires and nothing else: this overlap would never be confirmed.
            return (Abandon(), *self._roll_back(record, superseded))
        adopted = record.model_copy(update={"attempt": desired.attempt})
        self.state = Overlapping(adopted, confirmed=desired.confirmed is not None)
        return (
            Abandon(),
            Report(record.attempt, record.release, superseded, self._me.instance),
            Hold(adopted.attempt),
            Note(adopted),
            Report(adopted.attempt, adopted.release, _OVERLAPPING, self._me.instance),
            WatchOverlap(adopted.attempt, adopted.release),
        )

    def _watched(self, event: OverlapWatched | TrialWatched | LookedAgain) -> Instructions:
        """Observations of an overlap, or of a trial."""
        match self.state, event:
            case Overlapping() as overlapping, OverlapWatched():
                return self._overlap_watched(overlapping, event)
            case Overlapping(record, confirmed=False), LookedAgain(whole=False):
                return self._undo_damaged(record)
            case Overlapping(record, confirmed=False), LookedAgain():
                reason = f"not confirmed by the operator within {self._deadline} in which it could have been"
                return (Abandon(), *self._roll_back(record, _rolled_back(reason), reason))
            case OnTrial(), TrialWatched(connected=connected):
                return (LookAgain(event.attempt, self._me.release),) if connected >= self._deadline else ()
            case OnTrial(AttemptRecord() as record), LookedAgain():
                return self._give_myself_up(record)
            case _:
                return ()

    def _overlap_watched(self, overlapping: Overlapping, event: OverlapWatched) -> Instructions:
        stopped = overlapping.stopped + 1 if isinstance(event.unit, Stopped) else 0
        self.state = replace(overlapping, stopped=stopped)
        reason = event.condemned or _dead(event.unit, stopped)
        if reason and not event.whole:
            return self._undo_damaged(overlapping.record)
        if reason:
            return (Abandon(), *self._roll_back(overlapping.record, _rolled_back(reason), reason))
        if not overlapping.confirmed and event.connected >= self._deadline:
            return (LookAgain(overlapping.record.attempt, overlapping.record.release),)
        return ()

    def _undo_damaged(self, record: AttemptRecord) -> Instructions:
        """What the disk did to a release says nothing about the release."""
        reason = f"the files of {record.release} were damaged on this disk"
        status = DeferredUpgrade(phase=UpgradePhase.OVERLAPPING, reason=reason)
        return (Abandon(), *self._roll_back(record, status))

    def _stop_asked(self, request: StopRequest) -> Instructions:
        """Only an overlap is ended by a stop: at any other time the device would be left without an agent."""
        if request.instance != self._me.instance or not isinstance(self.state, Overlapping):
            return ()
        if request.successor.version != self.state.record.release.version:
            return ()
        self.state = Leaving()
        return (Abandon(), Exit(0))

    # --- going back -----------------------------------------------------------------------------------------------

    def _roll_back(self, record: AttemptRecord, status: UpgradeStatus, condemn: str = "") -> Instructions:
        """Condemn first, if the release is to blame: whatever interrupts this, it is not tried again unasked.

        Stop the unit before the link is swapped: without blame, only the link tells a restarted process to go on here.
        """
        ended = self._ended(record, status)
        steps: list[Step] = [StopUnit(self._me.slot.other), SwapLink(record.previous)]
        if condemn:
            self._condemned[record.release.sha256] = Condemned(condemn, record.attempt)
            steps.insert(0, _quarantine(record, condemn))
        if self._verified == self._me.release:
            steps.append(MarkVerified(self._me.release))  # The new instance may have marked itself.
        self.state = RollingBack(ended)
        return (Insist((*steps, RecordAttempt(ended)), Restored(ended.attempt)),)

    def _give_myself_up(self, record: AttemptRecord) -> Instructions:
        """A trial that nobody watches and nobody confirms goes back by itself."""
        if record.previous == record.release or record.previous.sha256 in self._condemned:
            return ()
        if self._wanted is None or self._wanted.artefact.release != record.release:
            return ()  # Nobody could have confirmed it.
        reason = f"not confirmed by the operator within {self._deadline} in which it could have been"
        self._condemned[record.release.sha256] = Condemned(reason, record.attempt)
        ended = self._ended(record, _rolled_back(reason))
        self.state = RollingBack(ended, leave=True)
        steps = (_quarantine(record, reason), SwapLink(record.previous), RecordAttempt(ended))
        return (Abandon(), Insist(steps, Restored(ended.attempt)))

    def _restored(self, rolling: RollingBack) -> Instructions:
        if rolling.leave:
            self.state = Leaving()
            return (Exit(1),)
        self._settled = rolling.record
        self.state = Idle()
        wanted = self._wanted
        if wanted is not None and wanted.attempt == rolling.record.attempt:
            return (_report(rolling.record), Undrain(rolling.record.attempt))
        return (_report(rolling.record), Undrain(rolling.record.attempt), *self._consider())

    # --- the new instance's way -------------------------------------------------------------------------------------

    def _desired_on_trial(self) -> Instructions:
        trial, wanted = self.state, self._wanted
        assert isinstance(trial, OnTrial)
        if wanted is None:
            return self._watch_trial(trial)
        if wanted.artefact.release != self._me.release:
            return self._trial_superseded(trial, wanted) if self._managing else ()
        record = trial.record or self._record(wanted)
        if record.attempt != wanted.attempt:
            record = record.model_copy(update={"attempt": wanted.attempt})
            trial = OnTrial(record)
        self.state = trial = replace(trial, record=record)
        if wanted.confirmed == self._me.instance:
            self.state = Marking(record)
            lift = (LiftQuarantine(record.release),) if self._lifts(wanted) else ()
            return (Abandon(), Insist((*lift, MarkVerified(self._me.release)), MarkedVerified(record.attempt)))
        return self._watch_trial(trial)

    def _watch_trial(self, trial: OnTrial) -> Instructions:
        """Once it manages, there is no old instance left that would watch it."""
        record = trial.record
        if record is None or not self._managing or trial.watched:
            return ()
        self.state = replace(trial, watched=True)
        report = Report(record.attempt, record.release, _OVERLAPPING, self._me.instance)
        return (Abandon(), Note(record), report, WatchTrial(record.attempt))

    def _trial_superseded(self, trial: OnTrial, wanted: DesiredAgent) -> Instructions:
        record = trial.record
        self.state = Idle()
        if record is None or record.attempt == wanted.attempt:
            return (Abandon(), *self._consider())
        reason = f"superseded by attempt {wanted.attempt}"
        self._settled = self._ended(record, DeferredUpgrade(phase=UpgradePhase.OVERLAPPING, reason=reason))
        return (Abandon(), Note(self._settled), _report(self._settled), *self._consider())

    def _close(self, record: AttemptRecord) -> Instructions:
        """Success: the operator confirmed this instance, and the host lock proves that no other manages.

        The predecessor was stopped by the operator. One that had crashed just then would be started once more by its
        service manager, as what its boot guard makes of the disk, and nobody would stop it again: hence the unit is
        stopped, too.
        """
        ended = record if record.ended is not None else self._ended(record, Succeeded())
        self.state = Closing(ended)
        steps = (RecordAttempt(ended), StopUnit(self._me.slot.other), MarkVerified(self._me.release))
        return (Insist(steps, Closed(ended.attempt)),)

    def _closed(self, record: AttemptRecord) -> Instructions:
        self._settled = record
        self.state = Idle()
        wanted = self._wanted
        if not self._managing or (wanted is not None and wanted.attempt != record.attempt):
            return self._consider()
        return (_report(record),)

    # --- small parts ------------------------------------------------------------------------------------------------

    def _record(self, desired: DesiredAgent) -> AttemptRecord:
        me = self._me
        return AttemptRecord(
            attempt=desired.attempt,
            release=desired.artefact.release,
            previous=me.release,
            origin=me.slot,
            boot=me.instance.boot,
        )

    def _ended(self, record: AttemptRecord, status: UpgradeStatus) -> AttemptRecord:
        return record.model_copy(update={"ended": status, "reporter": self._me.instance})

    def _settle(self, desired: DesiredAgent, status: UpgradeStatus) -> Instructions:
        """The attempt ends without a trace on the device but its record."""
        self.state = Idle()
        self._settled = self._ended(self._record(desired), status)
        return (Note(self._settled), _report(self._settled))

    def _progress(self, desired: DesiredAgent, phase: UpgradePhase) -> Report:
        return Report(desired.attempt, desired.artefact.release, InProgress(phase=phase), self._me.instance)


_OVERLAPPING: Final = InProgress(phase=UpgradePhase.OVERLAPPING)


_WITHDRAWN: Final = "the desired release was withdrawn"


def _quarantine(record: AttemptRecord, reason: str) -> Quarantine:
    return Quarantine(record.release, _short(reason), record.attempt)


def _report(record: AttemptRecord) -> Report:
    assert record.ended is not None
    assert record.reporter is not None
    return Report(record.attempt, record.release, record.ended, record.reporter)


def _rolled_back(reason: str) -> RolledBack:
    return RolledBack(phase=UpgradePhase.OVERLAPPING, reason=_short(reason))


def _short(reason: str) -> str:
    return reason[:_LONGEST_REASON]


def _dead(unit: UnitState, stopped: int) -> str:
    """Why the new unit will not come to anything; "" while it may."""
    match unit:
        case Running():
            return ""
        case Stopped():
            return "the new instance has ended" if stopped >= ENOUGH_STOPPED else ""
        case Failing(exits, gave_up):
            return f"the new instance ended badly {exits} times" if gave_up or exits >= ENOUGH_EXITS else ""
