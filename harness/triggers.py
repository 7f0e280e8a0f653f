"""Events of the run that set off steps, faults and checks: found in the journal at the moment they happen."""

from __future__ import annotations

from collections.abc import Callable

from fleet.contracts.ids import AttemptId, DeviceId
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.records import InProgress, UpgradePhase, UpgradeState
from harness.checks import watch
from harness.scenario import Cast
from harness.schema_triggers import Becomes, PhaseEntered, RolloutReached, StepFinished, When
from harness.view import FleetView
from sim.journal import Journal, KvStored, StepDone

Fire = Callable[[DeviceId | None], None]
"""Told once that the event happened, and on which device, if it happened on one. Must not raise."""


class Triggers:
    """Waits for events. Make it after the view, so that the view is up to date when a trigger fires."""

    def __init__(self, cast: Cast, view: FleetView, journal: Journal) -> None:
        self._cast = cast
        self._view = view
        self._phases: dict[DeviceId, tuple[AttemptId, UpgradePhase | None]] = {}
        self._on_phase: list[Callable[[DeviceId, UpgradePhase], None]] = []
        self._on_step: list[Callable[[int], None]] = []
        journal.subscribe(KvStored, self._stored)
        journal.subscribe(StepDone, self._step_done)

    def on(self, when: When, fire: Fire) -> None:
        """Call `fire` once, when the event happens (the `after` of the trigger is the caller's to wait)."""
        once = _Once(fire)
        match when:
            case PhaseEntered():
                self._on_phase.append(_phase_listener(when, once))
            case StepFinished(step=wanted):
                self._on_step.append(lambda step: once(None) if step == wanted else None)
            case RolloutReached():
                self._watch(once, lambda: self._reached(when))
            case Becomes():
                watched = watch(when.that, self._cast, self._view)
                self._view.on_change(watched.changed)
                self._watch(once, lambda: watched.holds)

    def _watch(self, once: _Once, condition: Callable[[], bool]) -> None:
        def look(_: DeviceId | None) -> None:
            if not once.done and condition():
                once(None)

        self._view.on_change(look)
        look(None)

    def _reached(self, when: RolloutReached) -> bool:
        rollout = self._view.rollouts.get(when.rollout)
        if rollout is None or rollout.status.observed_generation != rollout.metadata.generation:
            return False
        status = rollout.status
        return status.total > 0 and status.upgraded * 100 >= when.percent * status.total

    def _stored(self, event: KvStored) -> None:
        if event.bucket is not Bucket.STATE:
            return
        read = self._view.read(event)
        if not isinstance(read, Valid) or not isinstance(read.record, UpgradeState):
            return
        report = read.record
        phase = report.status.phase if isinstance(report.status, InProgress) else None
        entered = (report.attempt, phase)
        if self._phases.get(report.device) == entered:
            return
        self._phases[report.device] = entered
        if phase is not None:
            for listener in self._on_phase:
                listener(report.device, phase)

    def _step_done(self, event: StepDone) -> None:
        self._view.now = event.at
        for listener in self._on_step:
            listener(event.index)


class _Once:
    """A callback that happens at most once."""

    def __init__(self, fire: Fire) -> None:
        self._fire = fire
        self.done = False

    def __call__(self, device: DeviceId | None) -> None:
        if not self.done:
            self.done = True
            self._fire(device)


def _phase_listener(when: PhaseEntered, once: _Once) -> Callable[[DeviceId, UpgradePhase], None]:
    entered: dict[DeviceId, None] = {}

    def listen(device: DeviceId, phase: UpgradePhase) -> None:
        if phase is not when.phase:
            return
        entered[device] = None
        if device == when.device or len(entered) == when.count:
            once(device)

    return listen
