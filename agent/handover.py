"""The hands of the hand-over protocol: carry out what the upgrade brain decides, feed the results back as events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, assert_never

from agent import paths, selftest, staging
from agent.desired import Desired
from agent.events import (
    Abandon,
    AskLock,
    Attempt,
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
    MarkVerified,
    NotStaged,
    OverlapFailed,
    Quarantine,
    Report,
    SelfTest,
    Stage,
    Staged,
    TestFailed,
    TestPassed,
    Undrain,
    Verified,
    WatchOverlap,
    WentBack,
)
from agent.ports import AgentBoot, AgentPorts, AgentTimings
from agent.reconcile import Reconciler
from agent.reports import Reports
from agent.store import Store, point_link
from agent.upgrade import Upgrade
from fleet.capabilities.host import Exited, Failing, NotStartable, Overran, Running, Stopped, UnitState
from fleet.contracts import layout
from fleet.contracts.errors import (
    Definite,
    DiskFault,
    InvalidValue,
    NoSpace,
    NotFound,
    Refused,
    TimedOut,
    Unavailable,
    Unknown,
)
from fleet.contracts.ids import InstanceId
from fleet.contracts.records import LockReply, LockRequest, UpgradeState
from fleet.contracts.time import ZERO

_log = logging.getLogger(__name__)
ENOUGH_EXITS: Final = 3
"""The new unit is given up when it has ended badly this often: its boot guard starts an unverified release no more."""
_SHOWN: Final = 300
"""Characters of a failed self-test's output that go into the reason."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the hands work with."""

    ports: AgentPorts
    timings: AgentTimings
    boot: AgentBoot
    me: InstanceId
    store: Store
    reports: Reports
    desired: Desired
    reconciler: Reconciler
    leave: Callable[[], None]


class Hands:
    """One brain, one event at a time; at most one piece of work under way beside it."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._work: asyncio.Task[None] | None = None

    def tell(self, event: Event) -> None:
        """Something happened."""
        self._events.put_nowait(event)

    async def run(self, brain: Upgrade) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            for instruction in brain.begin():
                await self._perform(instruction, group)
            self._tools.reconciler.draining = brain.draining
            while True:
                event = await self._events.get()
                for instruction in brain.handle(event):
                    await self._perform(instruction, group)

    async def _perform(self, instruction: Instruction, group: asyncio.TaskGroup) -> None:
        tools = self._tools
        match instruction:
            case Report(attempt, release, status):
                _log.info("attempt %s to %s: %s", attempt, release, status)
                device = tools.me.device
                tools.reports.want(
                    UpgradeState(device=device, attempt=attempt, release=release, reporter=tools.me, status=status)
                )
            case Undrain():
                tools.reconciler.undrain()
            case Quarantine(release, reason):
                await tools.store.quarantine(release, reason)
            case Abandon():
                if self._work is not None:
                    self._work.cancel()
            case Leave():
                tools.leave()
            case _:
                self._work = group.create_task(self._carry_out(instruction))

    async def _carry_out(
        self, work: AskLock | Drain | Stage | SelfTest | HandOver | WatchOverlap | GoBack | MarkVerified
    ) -> None:
        match work:
            case AskLock():
                self.tell(await self._ask_lock(work))
            case Drain(attempt):
                reason = await self._tools.reconciler.drain(self._tools.timings.drain)
                self.tell(DrainOverran(attempt, reason) if reason else Drained(attempt))
            case Stage():
                self.tell(await self._stage(work))
            case SelfTest():
                self.tell(await self._self_test(work))
            case HandOver():
                self.tell(await self._hand_over(work))
            case WatchOverlap():
                self.tell(await self._watch(work))
            case GoBack():
                await self._go_back(work)
                self.tell(WentBack(work.attempt))
            case MarkVerified():
                await self._mark_verified(work)
                self.tell(Verified(work.attempt))
            case _:
                assert_never(work)

    async def _ask_lock(self, work: AskLock) -> LockAnswered:
        tools, me = self._tools, self._tools.me
        pause = work.after
        request = layout.encode(LockRequest(device=me.device, attempt=work.attempt, instance=me))
        while True:
            await tools.ports.clock.sleep(pause)
            try:
                answer = await tools.ports.bus.request(layout.lock(me.device).name, request, tools.timings.lock_request)
                return LockAnswered(work.attempt, layout.decode(LockReply, answer))
            except (Unavailable, Unknown):
                pause = tools.timings.retry
            except InvalidValue as error:
                _log.warning("the operator's answer cannot be read: %s", error)
                pause = tools.timings.retry

    async def _stage(self, work: Stage) -> Staged | NotStaged:
        tools, ports = self._tools, self._tools.ports
        fetching = staging.Fetching(ports.artefacts, ports.clock, tools.timings.retry)
        try:
            async with ports.clock.timeout(tools.timings.stage):
                await staging.stage(ports.disk, work.artefact, fetching)
        except NoSpace as error:
            return NotStaged(work.attempt, f"disk full: {error}", later=False)
        except (Refused, NotFound) as error:
            return NotStaged(work.attempt, str(error), later=False)
        except DiskFault as error:
            return NotStaged(work.attempt, f"disk: {error}", later=True)
        except TimeoutError:
            return NotStaged(work.attempt, f"not fetched within {tools.timings.stage}", later=True)
        return Staged(work.attempt)

    async def _self_test(self, work: SelfTest) -> TestPassed | TestFailed:
        program = paths.release(work.release.version)
        end = await self._tools.ports.programs.run(program, ("--self-test",), self._tools.timings.self_test)
        match end:
            case Exited(0, output):
                named = selftest.named(output)
                if named == work.release:
                    return TestPassed(work.attempt)
                return TestFailed(work.attempt, f"self-test: names {named} instead of {work.release}")
            case Exited(code, output):
                shown = output.decode("utf-8", "replace").strip()[-_SHOWN:]
                return TestFailed(work.attempt, f"self-test: exit code {code}: {shown}")
            case Overran():
                return TestFailed(work.attempt, f"self-test: not over within {self._tools.timings.self_test}")
            case NotStartable(reason):
                return TestFailed(work.attempt, f"self-test: cannot be started: {reason}")
            case _:
                assert_never(end)

    async def _hand_over(self, work: HandOver) -> HandedOver | OverlapFailed:
        tools, ports = self._tools, self._tools.ports
        other = tools.boot.slot.other
        try:
            await ports.services.stop(other)
            await tools.store.record_attempt(
                Attempt(work.attempt, work.release, tools.boot.release, tools.boot.slot, tools.me.boot, confirmed=False)
            )
            await point_link(ports.disk, paths.CURRENT, paths.release(work.release.version))
            await ports.services.start(other)
        except (Definite, Unknown) as error:
            return OverlapFailed(work.attempt, f"the new instance could not be started: {error}")
        return HandedOver(work.attempt)

    async def _watch(self, work: WatchOverlap) -> OverlapFailed:
        """Returns when the overlap has failed as far as this side can know; the brain may know better."""
        tools, ports = self._tools, self._tools.ports
        other, connected = tools.boot.slot.other, ZERO
        while True:
            await ports.clock.sleep(tools.timings.watch)
            reason = _ended(await self._state(), other.value)
            if reason:
                return OverlapFailed(work.attempt, reason)
            if ports.bus.is_connected():
                connected += tools.timings.watch
            if connected >= tools.timings.overlap and await self._read_desired():
                return OverlapFailed(work.attempt, f"not confirmed within {tools.timings.overlap} of being connected")

    async def _state(self) -> UnitState:
        """The other unit; as running while the service manager does not say otherwise."""
        try:
            return await self._tools.ports.services.state(self._tools.boot.slot.other)
        except (Unavailable, TimedOut) as error:
            _log.warning("the service manager does not answer: %s", error)
            return Running()

    async def _read_desired(self) -> bool:
        """Look once more whether the new instance was confirmed; only an answer may condemn it."""
        try:
            await self._tools.desired.read_agent()
        except (Unavailable, Unknown):
            return False
        return True

    async def _go_back(self, work: GoBack) -> None:
        """Quarantine first: whatever interrupts this, the release is never tried again unasked."""
        tools, ports = self._tools, self._tools.ports
        await tools.store.quarantine(work.release, work.reason)
        await point_link(ports.disk, paths.CURRENT, paths.release(tools.boot.release.version))
        while True:
            try:
                await ports.services.stop(tools.boot.slot.other)
                break
            except (Unavailable, Unknown) as error:
                _log.warning("the new instance cannot be stopped yet: %s", error)
                await ports.clock.sleep(tools.timings.retry)
        await tools.store.forget_attempt()

    async def _mark_verified(self, work: MarkVerified) -> None:
        tools = self._tools
        await tools.store.mark_verified(tools.boot.release)
        attempt = await tools.store.attempt()
        if attempt is not None and attempt.attempt == work.attempt:
            await tools.store.record_attempt(replace(attempt, confirmed=True))


def _ended(state: UnitState, slot: str) -> str:
    """Why the new unit will not come to anything; "" while it may."""
    match state:
        case Running():
            return ""
        case Stopped():
            return f"the new instance in slot {slot} has ended"
        case Failing(exits, gave_up):
            return f"the new instance in slot {slot} ended badly {exits} times" if _enough(exits, gave_up) else ""
        case _:
            assert_never(state)


def _enough(exits: int, gave_up: bool) -> bool:
    return gave_up or exits >= ENOUGH_EXITS
