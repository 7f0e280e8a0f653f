"""The brain of the hand-over protocol (ADR-022): pure, one instance of it per agent process.

The old instance goes `Idle → Locking → Draining → Staging → Testing → Swapping → Overlapping` and ends with the
operator's stop, or with `GoingBack`. The new instance begins `OnTrial` until the operator has confirmed it by its
heartbeats, and reports success once it is marked verified on disk *and* holds the host lock: only then is the old one
proven gone. Every attempt ends in exactly one terminal report.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from agent.events import (
    Abandon,
    AskLock,
    Attempt,
    DesiredSeen,
    Drain,
    Drained,
    DrainOverran,
    Event,
    GoBack,
    HandedOver,
    HandOver,
    Instruction,
    Leave,
    LockAnswered,
    LockHeld,
    MarkVerified,
    NotStaged,
    OverlapFailed,
    Quarantine,
    Report,
    SelfTest,
    Stage,
    Staged,
    StopAsked,
    TestFailed,
    TestPassed,
    Undrain,
    Verified,
    WatchOverlap,
    WentBack,
)
from fleet.contracts.errors import IllegalTransition
from fleet.contracts.ids import Architecture, AttemptId, InstanceId, Release, Sha256, Slot
from fleet.contracts.records import (
    TERMINAL,
    DeferredUpgrade,
    DesiredAgent,
    InProgress,
    LockDenied,
    LockGranted,
    RefusedUpgrade,
    RolledBack,
    Succeeded,
    UpgradePhase,
    UpgradeState,
    UpgradeStatus,
)
from fleet.contracts.time import ZERO

_STORY: Final = 20

Instructions = tuple[Instruction, ...]
E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Facts:
    """What an agent process knows of itself and its disk when it starts.

    `verified` is the release last confirmed here. `reported` is the device's own newest report, if it could be read.
    """

    me: InstanceId
    release: Release
    slot: Slot
    architecture: Architecture
    verified: Release | None
    attempt: Attempt | None
    quarantined: Mapping[Sha256, str]
    reported: UpgradeState | None


@dataclass(frozen=True, slots=True)
class Idle:
    """No attempt is under way. `ended` is the one that ended last."""

    ended: AttemptId | None


@dataclass(frozen=True, slots=True)
class Locking:
    """Waits for the upgrade slot."""

    desired: DesiredAgent


@dataclass(frozen=True, slots=True)
class Draining:
    """Brings the workloads to rest."""

    desired: DesiredAgent


@dataclass(frozen=True, slots=True)
class Staging:
    """Brings the release onto the disk."""

    desired: DesiredAgent


@dataclass(frozen=True, slots=True)
class Testing:
    """Lets the release test itself."""

    desired: DesiredAgent


@dataclass(frozen=True, slots=True)
class Swapping:
    """Records the attempt, swaps the link, starts the other unit. Cannot be called off."""

    desired: DesiredAgent
    newer: DesiredAgent | None = None


@dataclass(frozen=True, slots=True)
class Overlapping:
    """Both instances run. Once the operator has `confirmed` the new one, nothing goes back any more."""

    attempt: AttemptId
    release: Release
    confirmed: bool
    newer: DesiredAgent | None = None


@dataclass(frozen=True, slots=True)
class GoingBack:
    """Undoes the swap."""

    attempt: AttemptId
    release: Release
    reason: str
    newer: DesiredAgent | None = None


@dataclass(frozen=True, slots=True)
class OnTrial:
    """This process runs a release that nobody has confirmed yet. `newer` is another desired release, kept for later."""

    newer: DesiredAgent | None = None


@dataclass(frozen=True, slots=True)
class Succeeding:
    """The desired release runs here and is confirmed; `marked` on disk; reported once the host lock is held too."""

    desired: DesiredAgent
    marked: bool


@dataclass(frozen=True, slots=True)
class Left:
    """The operator has stopped this instance."""


State = Idle | Locking | Draining | Staging | Testing | Swapping | Overlapping | GoingBack | OnTrial | Succeeding | Left
_Working = Locking | Draining | Staging | Testing


class Upgrade:
    """The state machine. `begin` once, then `handle` per event."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._managing = False
        self._quarantined = dict(facts.quarantined)
        self._story: deque[str] = deque(maxlen=_STORY)
        self.state: State = Idle(None)

    @property
    def draining(self) -> bool:
        """Whether nothing new may be reconciled."""
        return isinstance(self.state, Draining | Staging | Testing | Swapping | Overlapping | GoingBack)

    def begin(self) -> Instructions:
        """Find out from the disk what this process is."""
        facts, attempt = self._facts, self._facts.attempt
        if attempt is not None and attempt.previous == facts.release and self._survives(attempt):
            self.state = Overlapping(attempt.attempt, attempt.release, attempt.confirmed)
            return (WatchOverlap(attempt.attempt),)
        if facts.verified != facts.release:
            self.state = OnTrial()
            return ()
        self.state = Idle(self._reported_end())
        if attempt is not None and attempt.release != facts.release and self._reported_end() != attempt.attempt:
            return self._returned(attempt)
        return ()

    def handle(self, event: Event) -> Instructions:
        """Decide. Results of work on an attempt that was abandoned are passed over.

        Raises:
            IllegalTransition: the state has no answer to the event; tells how it came to that.
        """
        before = type(self.state).__name__
        instructions = self._handle(event)
        self._story.append(f"{before} --{type(event).__name__}--> {type(self.state).__name__}")
        return instructions

    def _handle(self, event: Event) -> Instructions:
        match event:
            case DesiredSeen(desired):
                return self._desired(desired)
            case StopAsked(request):
                return self._stop(request.instance)
            case LockHeld():
                return self._lock_held()
            case _:
                if event.attempt != self._attempt():
                    return ()
                return _ANSWERS.get((type(self.state), type(event)), Upgrade._illegal)(self, event)

    # --- what is desired -----------------------------------------------------------------------------

    def _desired(self, desired: DesiredAgent) -> Instructions:
        match self.state:
            case Idle(ended):
                return () if desired.attempt == ended else self._take_up(desired)
            case Locking() | Draining() | Staging() | Testing() as working:
                if desired.attempt == working.desired.attempt:
                    return ()
                reason = f"superseded by attempt {desired.attempt}"
                given_up = self._end(DeferredUpgrade(phase=_phase(working), reason=reason), undrain=self.draining)
                return (Abandon(), *given_up, *self._take_up(desired))
            case Swapping() as swapping:
                if desired.attempt != swapping.desired.attempt:
                    self.state = replace(swapping, newer=desired)
                else:
                    self.state = replace(swapping, desired=desired)
                return ()
            case Overlapping() as overlapping:
                if desired.attempt != overlapping.attempt:
                    self.state = replace(overlapping, newer=desired)
                else:
                    self.state = replace(overlapping, confirmed=desired.confirmed is not None)
                return ()
            case GoingBack() as going:
                self.state = replace(going, newer=desired if desired.attempt != going.attempt else None)
                return ()
            case OnTrial():
                return self._desired_on_trial(desired)
            case Succeeding() as succeeding:
                if desired.attempt == succeeding.desired.attempt:
                    return ()
                if not succeeding.marked or not self._managing:
                    return ()  # Read again on the slow period; first this attempt becomes terminal.
                return self._take_up(desired)
            case Left():
                return ()

    def _take_up(self, desired: DesiredAgent) -> Instructions:
        release, facts = desired.artefact.release, self._facts
        if release.sha256 == facts.release.sha256:
            self.state = Succeeding(desired, marked=True)
            return self._succeed_if_due()
        self.state = Locking(desired)
        reason = self._quarantined.get(release.sha256)
        if reason is not None:
            return self._refuse(f"quarantined on this device: {reason}")
        if desired.artefact.architecture is not facts.architecture:
            return self._refuse(f"built for {desired.artefact.architecture}, this is {facts.architecture}")
        return (self._progress(UpgradePhase.LOCKING), AskLock(desired.attempt, ZERO))

    def _desired_on_trial(self, desired: DesiredAgent) -> Instructions:
        if desired.artefact.release.sha256 != self._facts.release.sha256:
            if self._managing:
                return self._take_up(desired)
            self.state = OnTrial(newer=desired)
            return ()
        self.state = OnTrial()
        if desired.confirmed != self._facts.me:
            return ()
        self.state = Succeeding(desired, marked=False)
        return (MarkVerified(desired.attempt),)

    # --- the old instance's way ------------------------------------------------------------------------

    def _lock_answered(self, event: LockAnswered) -> Instructions:
        desired = self._working().desired
        match event.reply.answer:
            case LockDenied(retry_after=pause):
                return (AskLock(desired.attempt, pause),)
            case LockGranted():
                self.state = Draining(desired)
                return (self._progress(UpgradePhase.DRAINING), Drain(desired.attempt))

    def _drained(self, event: Drained) -> Instructions:
        desired = self._working().desired
        self.state = Staging(desired)
        return (self._progress(UpgradePhase.STAGING), Stage(desired.attempt, desired.artefact))

    def _drain_overran(self, event: DrainOverran) -> Instructions:
        return self._end(DeferredUpgrade(phase=UpgradePhase.DRAINING, reason=event.reason))

    def _staged(self, event: Staged) -> Instructions:
        desired = self._working().desired
        self.state = Testing(desired)
        return (self._progress(UpgradePhase.TESTING), SelfTest(desired.attempt, desired.artefact.release))

    def _not_staged(self, event: NotStaged) -> Instructions:
        kind = DeferredUpgrade if event.later else RefusedUpgrade
        return self._end(kind(phase=UpgradePhase.STAGING, reason=event.reason))

    def _test_passed(self, event: TestPassed) -> Instructions:
        desired = self._working().desired
        self.state = Swapping(desired)
        return (self._progress(UpgradePhase.SWAPPING), HandOver(desired.attempt, desired.artefact.release))

    def _test_failed(self, event: TestFailed) -> Instructions:
        release = self._working().desired.artefact.release
        self._quarantined[release.sha256] = event.reason
        status = RolledBack(phase=UpgradePhase.TESTING, reason=event.reason)
        return (Quarantine(release, event.reason), *self._end(status))

    def _handed_over(self, event: HandedOver) -> Instructions:
        swapping = self.state
        assert isinstance(swapping, Swapping)
        desired = swapping.desired
        report = self._progress(UpgradePhase.OVERLAPPING)
        confirmed = desired.confirmed is not None
        self.state = Overlapping(desired.attempt, desired.artefact.release, confirmed, swapping.newer)
        return (report, WatchOverlap(desired.attempt))

    def _swap_failed(self, event: OverlapFailed) -> Instructions:
        swapping = self.state
        assert isinstance(swapping, Swapping)
        return self._go_back(swapping.desired.artefact.release, event.reason, swapping.newer)

    def _overlap_failed(self, event: OverlapFailed) -> Instructions:
        overlapping = self.state
        assert isinstance(overlapping, Overlapping)
        if overlapping.confirmed:
            return (WatchOverlap(overlapping.attempt),)
        return self._go_back(overlapping.release, event.reason, overlapping.newer)

    def _go_back(self, release: Release, reason: str, newer: DesiredAgent | None) -> Instructions:
        attempt = self._attempt()
        assert attempt is not None
        self._quarantined[release.sha256] = reason
        self.state = GoingBack(attempt, release, reason, newer)
        return (GoBack(attempt, release, reason),)

    def _went_back(self, event: WentBack) -> Instructions:
        going = self.state
        assert isinstance(going, GoingBack)
        ended = self._end(RolledBack(phase=UpgradePhase.OVERLAPPING, reason=going.reason))
        return (*ended, *(self._take_up(going.newer) if going.newer is not None else ()))

    def _stop(self, instance: InstanceId) -> Instructions:
        """Only an overlap is ended by a stop; at any other time it is late, or meant for somebody else."""
        if instance != self._facts.me or not isinstance(self.state, Overlapping):
            return ()
        self.state = Left()
        return (Leave(),)

    # --- the new instance's way ------------------------------------------------------------------------

    def _verified(self, event: Verified) -> Instructions:
        succeeding = self.state
        assert isinstance(succeeding, Succeeding)
        self.state = replace(succeeding, marked=True)
        return self._succeed_if_due()

    def _lock_held(self) -> Instructions:
        self._managing = True
        match self.state:
            case OnTrial(newer) if newer is not None:
                return self._take_up(newer)
            case Succeeding():
                return self._succeed_if_due()
            case _:
                return ()

    def _succeed_if_due(self) -> Instructions:
        if isinstance(self.state, Succeeding) and self.state.marked and self._managing:
            return self._end(Succeeded(), undrain=False)
        return ()

    # --- at the start ----------------------------------------------------------------------------------

    def _survives(self, attempt: Attempt) -> bool:
        """Whether this is the old instance of an overlap, started again in the same boot."""
        return attempt.boot == self._facts.me.boot and attempt.origin is self._facts.slot

    def _reported_end(self) -> AttemptId | None:
        reported = self._facts.reported
        return reported.attempt if reported is not None and isinstance(reported.status, TERMINAL) else None

    def _returned(self, attempt: Attempt) -> Instructions:
        """The boot guard has gone back to the verified release, or the power went before the swap was durable."""
        self.state = Idle(attempt.attempt)
        reason = self._quarantined.get(attempt.release.sha256)
        status: UpgradeStatus
        if reason is None:
            reason = "the device restarted before the new release could be confirmed"
            status = DeferredUpgrade(phase=UpgradePhase.SWAPPING, reason=reason)
        else:
            status = RolledBack(phase=UpgradePhase.OVERLAPPING, reason=reason)
        return (Report(attempt.attempt, attempt.release, status),)

    # --- small parts -----------------------------------------------------------------------------------

    def _refuse(self, reason: str) -> Instructions:
        return self._end(RefusedUpgrade(phase=UpgradePhase.LOCKING, reason=reason), undrain=False)

    def _end(self, status: UpgradeStatus, *, undrain: bool = True) -> Instructions:
        attempt, release = self._attempt(), self._release()
        assert attempt is not None
        assert release is not None
        self.state = Idle(attempt)
        report = Report(attempt, release, status)
        return (Undrain(), report) if undrain else (report,)

    def _progress(self, phase: UpgradePhase) -> Report:
        attempt, release = self._attempt(), self._release()
        assert attempt is not None
        assert release is not None
        return Report(attempt, release, InProgress(phase=phase))

    def _attempt(self) -> AttemptId | None:
        match self.state:
            case Overlapping(attempt=attempt) | GoingBack(attempt=attempt):
                return attempt
            case Idle() | OnTrial() | Left():
                return None
            case state:
                return state.desired.attempt

    def _release(self) -> Release | None:
        match self.state:
            case Overlapping(release=release) | GoingBack(release=release):
                return release
            case Idle() | OnTrial() | Left():
                return None
            case state:
                return state.desired.artefact.release

    def _working(self) -> _Working:
        assert isinstance(self.state, _Working)
        return self.state

    def _illegal(self, event: Event) -> Instructions:
        raise IllegalTransition(repr(self.state), repr(event), tuple(self._story))


def _phase(state: _Working) -> UpgradePhase:
    match state:
        case Locking():
            return UpgradePhase.LOCKING
        case Draining():
            return UpgradePhase.DRAINING
        case Staging():
            return UpgradePhase.STAGING
        case Testing():
            return UpgradePhase.TESTING


_Answer = Callable[[Upgrade, Event], Instructions]


def _when(event: type[E], answer: Callable[[Upgrade, E], Instructions]) -> _Answer:
    def checked(brain: Upgrade, told: Event) -> Instructions:
        assert isinstance(told, event)
        return answer(brain, told)

    return checked


_ANSWERS: Final[dict[tuple[type[State], type[Event]], _Answer]] = {
    (Locking, LockAnswered): _when(LockAnswered, Upgrade._lock_answered),
    (Draining, Drained): _when(Drained, Upgrade._drained),
    (Draining, DrainOverran): _when(DrainOverran, Upgrade._drain_overran),
    (Staging, Staged): _when(Staged, Upgrade._staged),
    (Staging, NotStaged): _when(NotStaged, Upgrade._not_staged),
    (Testing, TestPassed): _when(TestPassed, Upgrade._test_passed),
    (Testing, TestFailed): _when(TestFailed, Upgrade._test_failed),
    (Swapping, HandedOver): _when(HandedOver, Upgrade._handed_over),
    (Swapping, OverlapFailed): _when(OverlapFailed, Upgrade._swap_failed),
    (Overlapping, OverlapFailed): _when(OverlapFailed, Upgrade._overlap_failed),
    (GoingBack, WentBack): _when(WentBack, Upgrade._went_back),
    (Succeeding, Verified): _when(Verified, Upgrade._verified),
}
"""Which result of work fits which state. Any other pair is a defect."""
