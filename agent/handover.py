"""The hands of the hand-over protocol: carry out what the upgrade brain decides, feed the results back as events."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from agent import paths, selftest, staging
from agent.desired import Desired
from agent.events import (
    Abandon,
    AskLock,
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
    MarkVerified,
    Note,
    OverlapWatched,
    Quarantine,
    RecordAttempt,
    Report,
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
    SwapDone,
    SwapFailed,
    SwapLink,
    TrialWatched,
    TrySwap,
    Undrain,
    WatchOverlap,
    WatchTrial,
)
from agent.ports import AgentPorts, AgentTimings
from agent.reconcile import Reconciler
from agent.reports import Reports
from agent.states import Me
from agent.store import Store, point_link
from agent.upgrade import Upgrade
from fleet.capabilities.host import Exited, NotStartable, Overran, ProgramEnd, Running, UnitState
from fleet.contracts import layout
from fleet.contracts.errors import Definite, InvalidValue, NoSpace, NotFound, Refused, Unknown
from fleet.contracts.ids import AttemptId, Release
from fleet.contracts.records import LockDenied, LockGranted, LockReply, LockRequest, StopRequest, UpgradeState
from fleet.contracts.time import ZERO, Duration, Instant

_log = logging.getLogger(__name__)

MARK_TRIES: Final = 3
"""A mark that cannot be written this often (the disk is full) is given up: rolling back must not wait for it."""
STEP_TRIES: Final = 60
"""A link that cannot be swapped back and a unit that cannot be stopped are given up after this many tries."""
_SHOWN: Final = 300
"""Characters of a failed self-test's output that go into the reason."""

_Work = AskLock | Drain | Stage | RunSelfTest | TrySwap | Insist | Note | WatchOverlap | WatchTrial | LookAgain


@dataclass(frozen=True, slots=True)
class Tools:
    """What the hands work with."""

    me: Me
    ports: AgentPorts
    timings: AgentTimings
    store: Store
    reports: Reports
    desired: Desired
    reconciler: Reconciler
    leave: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Judged:
    """How long somebody could have judged the new release, without a break that makes the operator count anew.

    `asked`: when the operator was last asked whether it is there. `broken`: how long there has been no connection.
    """

    time: Duration
    asked: Instant
    broken: Duration = ZERO


class Hands:
    """The brain is asked synchronously, event by event; its work runs beside it, until it is abandoned."""

    def __init__(self, brain: Upgrade, tools: Tools, group: asyncio.TaskGroup) -> None:
        self._brain = brain
        self._tools = tools
        self._group = group
        self._work: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Let the brain take up what the disk says."""
        self._perform(self._brain.begin())

    def tell(self, event: Event) -> None:
        """Something happened."""
        self._perform(self._brain.handle(event))

    def stop_asked(self, request: StopRequest) -> bool:
        """The operator asks for a stop. Whether this process is going to end."""
        instructions = self._brain.handle(StopAsked(request))
        self._perform(instructions)
        return any(isinstance(instruction, Exit) for instruction in instructions)

    def end(self) -> None:
        """Drop all work."""
        for task in self._work:
            task.cancel()

    def _perform(self, instructions: tuple[Instruction, ...]) -> None:
        tools = self._tools
        for instruction in instructions:
            match instruction:
                case Report():
                    self._report(instruction)
                case Hold(attempt):
                    tools.reconciler.hold(attempt)
                case Undrain(attempt):
                    tools.reconciler.undrain(attempt)
                case Abandon():
                    self._abandon()
                case Exit(code):
                    tools.leave(code)
                case _:
                    self._work = [task for task in self._work if not task.done()]
                    self._work.append(self._group.create_task(self._carry_out(instruction)))

    def _abandon(self) -> None:
        """End all work; the task that told of what led to this ends by itself."""
        for task in self._work:
            if task is not asyncio.current_task():
                task.cancel()
        self._work.clear()

    def _is_wanted(self) -> bool:
        """Whether the work of this very task was not abandoned by what it told itself."""
        return asyncio.current_task() in self._work

    def _report(self, report: Report) -> None:
        _log.info("attempt %s to %s: %r", report.attempt, report.release, report.status)
        self._tools.reports.want(
            UpgradeState(
                device=self._tools.me.instance.device,
                attempt=report.attempt,
                release=report.release,
                reporter=report.reporter,
                status=report.status,
            )
        )

    async def _carry_out(self, work: _Work) -> None:
        match work:
            case AskLock():
                self.tell(await self._ask_lock(work))
            case Drain(attempt):
                reason = await self._tools.reconciler.drain(attempt, self._tools.timings.drain)
                self.tell(DrainOverran(attempt, reason) if reason else Drained(attempt))
            case Stage():
                self.tell(await self._stage(work))
            case RunSelfTest():
                self.tell(await self._self_test(work))
            case TrySwap():
                self.tell(await self._try_swap(work))
            case Insist():
                await self._insist(work.steps)
                self.tell(work.done)
            case Note(record):
                await self._try(RecordAttempt(record))
            case WatchOverlap():
                await self._watch_overlap(work)
            case WatchTrial():
                await self._watch_trial(work)
            case LookAgain(attempt, release):
                if await self._read_desired():
                    self.tell(LookedAgain(attempt, await self._whole(release)))
            case _:
                assert_never(work)

    # --- towards the swap ----------------------------------------------------------------------------------

    async def _ask_lock(self, work: AskLock) -> SlotGranted:
        ports, timings = self._tools.ports, self._tools.timings
        while True:
            pause = timings.retry
            try:
                reply = await self._request_lock(work.attempt)
                if isinstance(reply, LockGranted):
                    return SlotGranted(work.attempt)
                pause = max(reply.retry_after, Duration.seconds(1))
            except (Definite, Unknown, InvalidValue) as error:
                _log.debug("no upgrade slot yet: %s", error)
            await ports.clock.sleep(pause)

    async def _request_lock(self, attempt: AttemptId) -> LockGranted | LockDenied:
        """Ask the operator once. Raises as `Bus.request`, and InvalidValue for an answer that cannot be read."""
        me, timings = self._tools.me.instance, self._tools.timings
        request = layout.encode(LockRequest(device=me.device, attempt=attempt, instance=me))
        answer = await self._tools.ports.bus.request(layout.lock(me.device).name, request, timings.lock_request)
        return layout.decode(LockReply, answer).answer

    async def _stage(self, work: Stage) -> Staged | StageRefused | StageOverran:
        ports, timings = self._tools.ports, self._tools.timings
        fetching = staging.Fetching(ports.artefacts, ports.clock, timings.retry)
        try:
            async with ports.clock.timeout(timings.stage):
                await staging.stage(ports.disk, work.artefact, fetching)
        except NoSpace as error:
            return StageRefused(work.attempt, f"disk full: {error}")
        except (Refused, NotFound) as error:
            return StageRefused(work.attempt, str(error))
        except TimeoutError:
            return StageOverran(work.attempt, f"not fetched within {timings.stage}")
        except (Definite, Unknown) as error:
            return StageOverran(work.attempt, f"disk: {error}")
        return Staged(work.attempt)

    async def _self_test(self, work: RunSelfTest) -> SelfTestPassed | SelfTestFailed | StageOverran:
        """Run it. A failure is the release's only if its files are still what was staged: cards lose bits, too."""
        program, limit = paths.release(work.release.version), self._tools.timings.self_test
        end = await self._tools.ports.programs.run(program, ("--self-test",), limit)
        reason = _verdict(end, work.release, limit)
        if not reason:
            return SelfTestPassed(work.attempt)
        if not await self._whole(work.release):
            return StageOverran(work.attempt, f"its files were damaged on this disk after staging; self-test: {reason}")
        return SelfTestFailed(work.attempt, f"self-test: {reason}")

    async def _try_swap(self, work: TrySwap) -> SwapDone | SwapFailed:
        for step in work.steps:
            try:
                await self._do(step)
            except (Definite, Unknown) as error:
                return SwapFailed(work.attempt, f"{type(step).__name__}: {error}")
        return SwapDone(work.attempt)

    # --- small steps ---------------------------------------------------------------------------------------

    async def _insist(self, steps: tuple[Step, ...]) -> None:
        """Do the steps; those of a roll-back are given up in the end: an attempt has to come to its end.

        A link that cannot go back leads to a release that the boot guard knows to be condemned, and a unit that cannot
        be stopped stands by without the host lock. What marks a success is never given up.
        """
        tries = 0
        while steps:
            tries += 1
            left = [step for step in steps if not await self._try(step)]
            steps = tuple(step for step in left if tries < _patience(step))
            if steps:
                await self._tools.ports.clock.sleep(self._tools.timings.retry)

    async def _try(self, step: Step) -> bool:
        try:
            await self._do(step)
        except (Definite, Unknown) as error:
            _log.error("%r is not done: %s", step, error)
            return False
        return True

    async def _do(self, step: Step) -> None:
        store, ports = self._tools.store, self._tools.ports
        match step:
            case RecordAttempt(record):
                await store.record_attempt(record)
            case SwapLink(release):
                await self._make_whole(release)
                await point_link(ports.disk, paths.CURRENT, paths.release(release.version))
            case StartUnit(slot):
                await ports.services.start(slot)
            case StopUnit(slot):
                await ports.services.stop(slot)
            case Quarantine(release, reason, attempt):
                await store.quarantine(release, reason, attempt)
            case LiftQuarantine(release):
                await store.lift_quarantine(release)
            case MarkVerified(release):
                await store.mark_verified(release)
            case _:
                assert_never(step)

    async def _make_whole(self, release: Release) -> None:
        """Check a release before the link leads to it, and mend what was unpacked of it, which its own archive holds.

        The release that runs here is gone back to although its folder cannot be mended: it runs, and nothing is better.
        """
        disk = self._tools.ports.disk
        if not await staging.is_whole(disk, release):
            raise Refused(f"{release} is not whole on this disk")
        try:
            await staging.mend(disk, release)
        except (Definite, Unknown) as error:
            if release != self._tools.me.release:
                raise
            _log.error("what was unpacked of %s is damaged: %s", release, error)

    async def _whole(self, release: Release) -> bool:
        """Whether a release is on disk as it was staged; a disk that cannot say so is not whole either."""
        try:
            return await staging.is_complete(self._tools.ports.disk, release)
        except (Definite, Unknown) as error:
            _log.warning("%s cannot be read back: %s", release, error)
            return False

    # --- watching ------------------------------------------------------------------------------------------

    async def _watch_overlap(self, work: WatchOverlap) -> None:
        judged = _Judged(ZERO, self._tools.ports.clock.monotonic())
        while self._is_wanted():
            judged = await self._next_look(judged, work.attempt)
            if judged.time >= self._tools.timings.overlap and not await self._tools.ports.bus.may_log_in():
                judged = _Judged(ZERO, judged.asked)  # The new instance gets no connection either: no verdict.
            unit, condemned = await self._other_unit(), await self._mark(work.release)
            whole = isinstance(unit, Running) or await self._whole(work.release)
            self.tell(OverlapWatched(work.attempt, unit, judged.time, condemned, whole))

    async def _watch_trial(self, work: WatchTrial) -> None:
        judged = _Judged(ZERO, self._tools.ports.clock.monotonic())
        while self._is_wanted():
            judged = await self._next_look(judged, work.attempt)
            self.tell(TrialWatched(work.attempt, judged.time))

    async def _next_look(self, judged: _Judged, attempt: AttemptId) -> _Judged:
        """Wait for the next look. An operator that was away counts heartbeats anew: so does this.

        So it is with a link that was down for as long as a heartbeat: however long it flaps, no verdict comes of it.
        """
        clock, heartbeat = self._tools.ports.clock, self._tools.timings.heartbeat
        began = clock.monotonic()
        connected = await self._was_connected()
        passed = clock.monotonic() - began
        broken = ZERO if connected else judged.broken + passed
        time = judged.time + passed if connected else ZERO if broken >= heartbeat else judged.time
        if clock.monotonic() - judged.asked < heartbeat:
            return _Judged(time, judged.asked, broken)
        answered = await self._operator_answers(attempt)
        return _Judged(time if answered else ZERO, clock.monotonic(), broken)

    async def _was_connected(self) -> bool:
        """Wait until the next look; whether there was a connection at both ends of it."""
        bus, clock = self._tools.ports.bus, self._tools.ports.clock
        before = bus.is_connected()
        await clock.sleep(self._tools.timings.watch)
        return before and bus.is_connected()

    async def _operator_answers(self, attempt: AttemptId) -> bool:
        """Whether somebody is there; without a connection that is not known, and counts as a yes: time stands still."""
        try:
            await self._request_lock(attempt)
        except (Definite, Unknown, InvalidValue):
            return not self._tools.ports.bus.is_connected()
        return True

    async def _mark(self, release: Release) -> str | None:
        """The reason why the boot guard has condemned the release; None also while the disk does not say."""
        try:
            mark = await self._tools.store.condemned(release)
        except (Definite, Unknown) as error:
            _log.warning("quarantine marks cannot be read now: %s", error)
            return None
        return None if mark is None else mark.reason

    async def _other_unit(self) -> UnitState:
        """The other unit; as running while the service manager does not say otherwise."""
        try:
            return await self._tools.ports.services.state(self._tools.me.slot.other)
        except (Definite, Unknown) as error:
            _log.warning("the service manager does not answer: %s", error)
            return Running()

    async def _read_desired(self) -> bool:
        """Look once more whether the new instance was confirmed; only an answer may condemn it."""
        try:
            await self._tools.desired.read_agent()
        except (Definite, Unknown) as error:
            _log.info("the desired release cannot be read now: %s", error)
            return False
        return True


def _patience(step: Step) -> float:
    """How many tries a step gets."""
    match step:
        case Quarantine() | RecordAttempt():
            return MARK_TRIES
        case SwapLink() | StopUnit():
            return STEP_TRIES
        case StartUnit() | MarkVerified() | LiftQuarantine():
            return math.inf
        case _:
            assert_never(step)


def _verdict(end: ProgramEnd, release: Release, limit: Duration) -> str:
    """Why a self-test was not passed; "" when it was."""
    match end:
        case Exited(0, output):
            named = selftest.named(output)
            return "" if named == release else f"names {named or 'no release'} instead of {release}"
        case Exited(code, output):
            return f"exit code {code}: {output.decode('utf-8', 'replace').strip()[-_SHOWN:]}"
        case Overran():
            return f"not over within {limit}"
        case NotStartable(reason):
            return f"cannot be started: {reason}"
        case _:
            assert_never(end)
