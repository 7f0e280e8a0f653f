"""Runs one scenario on one target: set up, drive, heal, converge, check, tear down, and says how it ended.

The drive is one coroutine over a `Session`, with one task for the steps and one per fault. It only ever waits on the
session's clock, so the same code runs on virtual time and on wall time. Safety is judged by the court at every event;
whatever has to come eventually is given time after everything has healed.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from asyncio import Task
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fleet.contracts.errors import FleetError, IllegalTransition, NotFound, Refused
from fleet.contracts.ids import DeviceId
from fleet.contracts.time import ZERO, Duration, Instant
from harness.checks import watch
from harness.court import Court
from harness.invariants.secrets_stay import SecretsStay
from harness.progress import Progress
from harness.scenario import Cast
from harness.schema_faults import KIND, AnyFault, bind, describe, length_of
from harness.schema_steps import (
    Abort,
    AnyStep,
    Deploy,
    Install,
    Pause,
    Reconcile,
    ReEnroll,
    Resume,
    Retry,
    Revoke,
    RotateKey,
    RotateSecret,
    Undeploy,
    Upgrade,
    Wait,
)
from harness.schema_steps import describe as describe_step
from harness.schema_triggers import Triggered
from harness.steps import deploy, identity, needs, secrets, steer, undeploy, upgrade
from harness.targets.port import TOKEN_LIFE, Logins, Need, Session, Target
from harness.verdict import (
    Crashed,
    HarnessBroken,
    Held,
    NotApplicable,
    Stuck,
    Verdict,
    Violated,
    details,
    reason,
)
from sim.journal import FaultHealed, FaultInjected, Journal, PhaseEntered, StepDone

POLL = Duration.seconds(1)
QUIET = Duration.minutes(2)
"""A fleet that has been as desired for this long will not set off any trigger that still waits for an event."""
STAYS = Duration.seconds(40)
"""What was reached has to stay for this long, more than a heartbeat's interval, before the end is judged."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one run ended, with what a person needs to act on it."""

    scenario: str
    target: str
    seed: int
    verdict: Verdict
    devices: int
    simulated_s: float
    wall_s: float
    events: int
    journal_sha256: str
    faults_injected: int
    trail: tuple[str, ...] = ()
    """The latest events before the verdict, and those of the devices it concerns."""
    timeline: tuple[str, ...] = ()
    """The run on one page (`harness.timeline`)."""

    @property
    def reason(self) -> str:
        """One line; empty when everything held."""
        return reason(self.verdict)


def run_scenario(
    cast: Cast,
    target: Target,
    seed: int,
    progress: Progress,
    on_journal: Callable[[Journal], None] | None = None,
) -> Result:
    """Run a scenario with its devices on a target. `on_journal` may subscribe to the journal before anything happens.

    Never raises for anything that happens in the run: that is what verdicts are for.
    """
    began = time.perf_counter()
    drive: list[_Drive] = []

    async def main(session: Session) -> Verdict:
        if on_journal is not None:
            on_journal(session.journal)
        drive.append(_Drive(cast, session, progress))
        return await drive[0].run()

    lacks = _lacks(cast, target)
    if lacks is not None:
        verdict: Verdict = NotApplicable(lacks)
    else:
        try:
            verdict = target.run(cast.plan, seed, main)
        except Exception as error:  # noqa: BLE001 - whatever came out of a run is its verdict
            verdict = _fallen(error)
            if drive and drive[0].court.violation is not None:
                verdict = drive[0].court.violation  # the violation came first; the error may be its consequence
    took = time.perf_counter() - began
    return _result(cast, target, seed, verdict, took, drive[0] if drive else None)


def _result(cast: Cast, target: Target, seed: int, verdict: Verdict, took: float, drive: _Drive | None) -> Result:
    trail = drive.trail if drive and not isinstance(verdict, Held) else ()
    timeline = drive.court.timeline.finished() if drive else ()
    shown = drive.shown_in("\n".join((reason(verdict), details(verdict), *trail, *timeline))) if drive else ()
    if shown:
        evidence = f"the report of the run would show the value of {', '.join(shown)}: it is left out"
        verdict, trail, timeline = Violated(SecretsStay.name, evidence), (), ()
    return Result(
        scenario=cast.scenario.name,
        target=target.name,
        seed=seed,
        verdict=verdict,
        devices=len(cast.devices),
        simulated_s=round(drive.ended.in_seconds, 3) if drive else 0.0,
        wall_s=round(took, 3),
        events=drive.events if drive else 0,
        journal_sha256=drive.sha256 if drive else "",
        faults_injected=len(drive.happened) if drive else 0,
        trail=trail,
        timeline=timeline,
    )


def _lacks(cast: Cast, target: Target) -> str | None:
    """Why the target cannot do the scenario; None when it can."""
    cannot = target.cannot
    for index, fault in enumerate(cast.scenario.faults, 1):
        why = cannot.get(KIND[type(fault)])
        if why is not None:
            return f"target {target.name} cannot inject fault {index} ({fault.fault}): {why}"
    if cast.plan.logins is Logins.TOKEN and Need.IDENTITIES in target.lacks:
        return f"target {target.name} has no {Need.IDENTITIES.value}: {target.lacks[Need.IDENTITIES]}"
    if _outlives_tokens(cast) and Need.TOKENS_THAT_END in target.lacks:
        why = target.lacks[Need.TOKENS_THAT_END]
        return f"target {target.name} has no {Need.TOKENS_THAT_END.value}: {why}"
    items = [(f"step {number}", step) for number, step in enumerate(cast.scenario.steps, 1)]
    return _lacking(target, [*items, *((f"fault {number}", it) for number, it in enumerate(cast.scenario.faults, 1))])


def _lacking(target: Target, items: Sequence[tuple[str, AnyStep | AnyFault]]) -> str | None:
    for named, item in items:
        for need in needs(item):
            if need in target.lacks:
                why = target.lacks[need]
                return f"{named} needs {need.value}, which target {target.name} does not have: {why}"
    return None


def _outlives_tokens(cast: Cast) -> bool:
    """Whether the file is about the end of tokens: it has devices that log in by them, and lets more time pass."""
    return cast.plan.logins is Logins.TOKEN and cast.scenario.scenario.drive_within > TOKEN_LIFE


def _fallen(error: Exception) -> Verdict:
    """What an exception out of a run means: production code fell over, or the target or harness did."""
    text = "".join(traceback.format_exception(error))
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, IllegalTransition) or (not isinstance(error, FleetError) and _is_production(error)):
        return Crashed(words, text)
    notes = "\n".join(getattr(error, "__notes__", ()))  # what a target knows beyond the error, such as the ends of logs
    return HarnessBroken(words, notes if isinstance(error, FleetError) else text)


def _is_production(error: BaseException) -> bool:
    """The innermost frame of the project's own code belongs to a production program."""
    rooms = [
        frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    ours = [room for room in rooms if room in ("fleet", "agent", "sim", "harness")]
    return bool(ours) and ours[-1] in ("fleet", "agent")


def _cancel(work: Task[Verdict]) -> None:
    work.cancel()


class _Ended(Exception):
    """Leaves the phases early with a verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict)
        self.verdict = verdict


class _Drive:
    """One run."""

    def __init__(self, cast: Cast, session: Session, progress: Progress) -> None:
        self.court = Court(cast, session.journal)
        self.happened: list[int] = []
        """The numbers of the faults that happened."""
        self.ended = Instant(0)
        self.events = 0
        self.sha256 = ""
        self.trail: tuple[str, ...] = ()
        self._cast = cast
        self._session = session
        self._clock = session.clock
        self._progress = progress
        self._began = Instant(0)
        self._steps_done = 0
        self._missed: dict[int, str] = {}
        self._open: dict[int, tuple[str, str, Callable[[], Awaitable[None]]]] = {}
        self._waiting_for_events = 0

    async def run(self) -> Verdict:
        """All phases. A violation ends them at once."""
        self._progress.begin(self._cast, self.court.view)
        work = asyncio.create_task(self._phases())
        self.court.on_violation(lambda: _cancel(work))
        try:
            verdict = await self._outcome(work)
        finally:
            self._enter("tear-down")
            self.court.close()
            self._seal()
        return verdict

    def shown_in(self, text: str) -> tuple[str, ...]:
        """The names of the secrets of the run whose value stands in the text."""
        return self._session.secrets.shown_in(text)

    async def _outcome(self, work: Task[Verdict]) -> Verdict:
        try:
            verdict = await work
        except asyncio.CancelledError:
            if self.court.violation is None:
                raise
            verdict = self.court.violation
        except _Ended as ended:
            verdict = ended.verdict
        return self.court.violation or verdict

    def _seal(self) -> None:
        journal = self._session.journal
        self.ended, self.events, self.sha256 = self._now(), journal.count, journal.sha256()
        self.trail = self.court.evidence or self.court.trail.lines(self.court.convergence.lacking[:3])

    async def _phases(self) -> Verdict:
        about = self._cast.scenario.scenario
        self._enter("set-up")
        await self._session.start()
        await self._until_settled(about.set_up_within, "set-up")
        self._enter("drive")
        self._began = self._now()
        self.court.begin(self._began)
        await self._drive(about.drive_within)
        self._enter("heal")
        for index in sorted(self._open):
            await self._end(index)
        self._enter("converge")
        await self._until_settled(about.converge_within, "converge")
        await self._until_promises_kept()
        self._enter("check")
        await self._stay()
        await self._session.settle()
        await self._session.secrets.search()
        self.court.finish()
        return self._judgement()

    def _judgement(self) -> Verdict:
        if self.court.violation is not None:
            return self.court.violation
        gaps = (*self._gaps(), *self.court.idle())
        return HarnessBroken("; ".join(gaps)) if gaps else Held()

    def _gaps(self) -> list[str]:
        """What was declared and never happened."""
        scenario = self._cast.scenario
        gaps = []
        if self._steps_done < len(scenario.steps):
            text = describe_step(scenario.steps[self._steps_done])
            gaps.append(f"step {self._steps_done + 1} never happened ({text})")
        for index, fault in enumerate(scenario.faults, 1):
            if index not in self.happened:
                why = self._missed.get(index, "its trigger never came")
                gaps.append(f"fault {index} never happened ({fault.fault}): {why}")
        return gaps

    # --- waiting

    def _now(self) -> Instant:
        return self._clock.monotonic()

    def _enter(self, phase: str) -> None:
        self._session.journal.record(PhaseEntered(self._now(), phase))
        self._progress.phase(phase)

    async def _tick(self) -> None:
        await self._clock.sleep(POLL)
        self.court.passed(self._now())

    async def _until_settled(self, within: Duration, phase: str) -> None:
        """Wait until what is observed equals what is desired."""
        deadline = self._now() + within
        while True:
            await self._session.settle()
            if self.court.convergence.settled:
                return
            if self._now() >= deadline:
                raise _Ended(Stuck(f"{phase} took longer than {within}", self.court.convergence.waiting_for()))
            await self._tick()

    async def _until_promises_kept(self) -> None:
        """Checks with a deadline may still wait for something: it comes, or its deadline does."""
        while self.court.pending:
            await self._tick()

    async def _stay(self) -> None:
        """Let time pass in which nothing may come undone."""
        until = self._now() + STAYS
        while self._now() < until:
            await self._tick()

    # --- the drive

    async def _drive(self, within: Duration) -> None:
        """Carry out steps and faults, until all are over, time is up, or nothing can set off those that are left."""
        scenario = self._cast.scenario
        tasks = [asyncio.create_task(self._steps())]
        tasks += [asyncio.create_task(self._fault(index, fault)) for index, fault in enumerate(scenario.faults, 1)]
        deadline, quiet = self._began + within, ZERO
        try:
            left = tasks
            while left:
                await self._tick()
                for task in left:
                    if task.done():
                        task.result()
                left = [task for task in left if not task.done()]
                idle = len(left) == self._waiting_for_events and self.court.convergence.settled
                quiet = quiet + POLL if idle else ZERO
                if quiet >= QUIET or self._now() >= deadline:
                    return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _arm(self, item: Triggered) -> asyncio.Future[tuple[DeviceId | None, Instant]]:
        """Begin to wait for an item's event: from the beginning of the drive, whenever the item's turn comes."""
        fired: asyncio.Future[tuple[DeviceId | None, Instant]] = asyncio.get_running_loop().create_future()

        def fire(device: DeviceId | None) -> None:
            if not fired.done():
                fired.set_result((device, self._now()))

        if item.when is not None:
            self.court.triggers.on(item.when, fire)
        return fired

    async def _trigger(
        self, item: Triggered, fired: asyncio.Future[tuple[DeviceId | None, Instant]]
    ) -> DeviceId | None:
        """Wait for the item's time or event; the device that the event happened on."""
        if item.at is not None:
            await self._sleep_until(self._began + item.at)
        if item.when is None:
            return None
        self._waiting_for_events += 1
        try:
            device, at = await fired
        finally:
            self._waiting_for_events -= 1
        await self._sleep_until(at + item.when.after)
        return device

    async def _sleep_until(self, moment: Instant) -> None:
        left = moment - self._now()
        if left > 0:
            await self._clock.sleep(left)

    async def _steps(self) -> None:
        steps = [(step, self._arm(step)) for step in self._cast.scenario.steps]
        for index, (step, fired) in enumerate(steps, 1):
            await self._trigger(step, fired)
            await self._step(step)
            self._steps_done = index
            text = describe_step(step)
            self._session.journal.record(StepDone(self._now(), index, text))
            self._progress.note(f"step {index}: {text}")

    async def _step(self, step: AnyStep) -> None:
        match step:
            case Deploy():
                await deploy(self._session, self._cast, step)
            case Undeploy():
                await undeploy(self._session, step)
            case Upgrade():
                await upgrade(self._session, self._cast, step)
            case Pause() | Resume() | Abort() | Retry():
                await steer(self._session, step)
            case Revoke() | ReEnroll() | RotateKey() | Reconcile():
                await identity(self._session, step)
            case Install() | RotateSecret():
                await secrets(self._session, step)
            case Wait():
                await self._wait(step)

    async def _wait(self, step: Wait) -> None:
        if step.length is not None:
            await self._clock.sleep(step.length)
            return
        assert step.until is not None
        assert step.within is not None
        deadline = self._now() + step.within
        watched = watch(step.until, self._cast, self.court.view)
        self.court.view.on_change(watched.changed)
        while not watched.holds:
            if self._now() >= deadline:
                raise _Ended(Stuck(f"{describe_step(step)} took longer", (watched.explain(),)))
            await self._clock.sleep(POLL)

    async def _fault(self, index: int, spec: AnyFault) -> None:
        triggering = await self._trigger(spec, self._arm(spec))
        view = self.court.view
        replicas = self._cast.plan.operators
        fault = bind(
            spec,
            triggering,
            self._cast.members,
            lambda device: view.devices[device].holder,
            lambda named: view.replica(named, replicas),
        )
        if fault is None:
            self._missed[index] = "what it should hit was not there: no instance managed the device, no replica led"
            return
        text, subject = describe(fault)
        self._missed[index] = "the moment it waits for never came"
        self._waiting_for_events += 1
        try:
            end = await self._session.inject(fault)
        except (NotFound, Refused) as error:
            self._missed[index] = str(error)
            return
        finally:
            self._waiting_for_events -= 1
        self.happened.append(index)
        self._session.journal.record(FaultInjected(self._now(), index, text, subject))
        self._progress.note(f"fault {index}: {text} on {subject}")
        if end is not None:
            self._open[index] = (text, subject, end)
            await self._clock.sleep(length_of(fault))
            await self._end(index)

    async def _end(self, index: int) -> None:
        text, subject, end = self._open.pop(index)
        await end()
        self._session.journal.record(FaultHealed(self._now(), index, text, subject))
        self._progress.note(f"fault {index} is over: {text} on {subject}")
