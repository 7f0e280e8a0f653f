"""Whatever happens in whatever order, each attempt is answered exactly once, and nothing stays drained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.events import (
    Abandon,
    AskLock,
    BecameManaging,
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
    LookAgain,
    LookedAgain,
    Note,
    OverlapWatched,
    Report,
    RunSelfTest,
    SelfTestFailed,
    SelfTestPassed,
    SlotGranted,
    Stage,
    Staged,
    StageOverran,
    StageRefused,
    StopAsked,
    SwapDone,
    SwapFailed,
    TrialWatched,
    TrySwap,
    Undrain,
    WatchOverlap,
    WatchTrial,
)
from agent.states import Found, Idle, Leaving, Me, OnTrial, Overlapping
from agent.upgrade import Upgrade
from fleet.capabilities.host import Failing, Running, Stopped
from fleet.contracts.ids import Architecture, AttemptId, Revision, Slot
from fleet.contracts.records import TERMINAL, StopRequest, UpgradeStatus
from fleet.contracts.time import ZERO

Values = Any  # The conftest's class: test files cannot import it.


class Device:
    """A brain, and what its hands owe it."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.me = values.instance(values.release(1), 2)
        me = Me(self.me, values.release(1), Slot.A, Architecture.AARCH64)
        self.brain = Upgrade(me, Found(verified=values.release(1)), values.deadline)
        self.owed: list[Instruction] = []
        self.reports: list[Report] = []
        self.drained = False
        self.revision = 0
        self.attempts = 0
        self.release = 0
        self.take(self.brain.begin())

    def tell(self, event: Event) -> None:
        """Something happens."""
        self.take(self.brain.handle(event))
        if isinstance(self.brain.state, Idle):
            assert not self.drained

    def take(self, instructions: tuple[Instruction, ...]) -> None:
        """Do at once what takes no time; owe the rest."""
        for instruction in instructions:
            match instruction:
                case Report():
                    self.reports.append(instruction)
                case Abandon():
                    self.owed.clear()
                case Undrain():
                    assert self.drained
                    self.drained = False
                case Hold():
                    self.drained = True
                case Note() | Exit():
                    pass
                case _:
                    self.drained = self.drained or isinstance(instruction, Drain)
                    self.owed.append(instruction)

    def desire(self, release: int, *, fresh: bool, confirmed: bool) -> None:
        """The operator writes."""
        self.revision += 1
        self.attempts += fresh or release != self.release  # An attempt names one release, and is never used again.
        self.release = release
        instance = self.values.instance(self.values.release(release), 3) if confirmed else None
        desired = self.values.desired(self.values.release(release), f"a-{self.attempts}-{release}", confirmed=instance)
        self.tell(DesiredSeen(Revision(self.revision), desired))

    def withdraw(self) -> None:
        """The operator deletes."""
        self.revision += 1
        self.tell(DesiredWithdrawn(Revision(self.revision)))

    def stop(self, release: int) -> None:
        """The operator stops this instance in favour of a release."""
        successor = self.values.instance(self.values.release(release), 3)
        attempt = AttemptId(f"a-{self.attempts}-{release}")
        request = StopRequest(device=self.me.device, instance=self.me, successor=successor, attempt=attempt)
        self.tell(StopAsked(request))

    def answer(self, choice: int) -> None:
        """One piece of work that is owed comes to an end, or is looked at."""
        if not self.owed:
            return
        work = self.owed[0]
        if not isinstance(work, WatchOverlap | WatchTrial):
            self.owed.pop(0)
        elif len(self.owed) > 1:
            work = self.owed.pop(1)
        endings = self.endings(work)
        self.tell(endings[choice % len(endings)])

    def endings(self, work: Instruction) -> tuple[Event, ...]:
        """How a piece of work can end, the good end first."""
        deadline = self.values.deadline
        match work:
            case AskLock(attempt):
                return (SlotGranted(attempt),)
            case Drain(attempt):
                return Drained(attempt), DrainOverran(attempt, "busy")
            case Stage(attempt):
                return Staged(attempt), StageRefused(attempt, "no"), StageOverran(attempt, "slow")
            case RunSelfTest(attempt):
                return SelfTestPassed(attempt), SelfTestFailed(attempt, "bad")
            case TrySwap(attempt):
                return SwapDone(attempt), SwapFailed(attempt, "disk")
            case Insist(done=done):
                return (done,)
            case LookAgain(attempt):
                return (LookedAgain(attempt),)
            case WatchTrial(attempt):
                return (TrialWatched(attempt, deadline),)
            case WatchOverlap(attempt):
                units = Running(), Stopped(), Failing(1, gave_up=False), Failing(3, gave_up=False)
                late = OverlapWatched(attempt, Running(), deadline)
                return (late, *(OverlapWatched(attempt, unit, ZERO) for unit in units))
            case _:
                raise AssertionError(work)


def terminal(device: Device) -> dict[AttemptId, set[str]]:
    """The terminal statuses told of each attempt."""
    told: dict[AttemptId, set[str]] = {}
    for report in device.reports:
        kinds = told.setdefault(report.attempt, set())
        if isinstance(report.status, TERMINAL):
            kinds.add(repr(report.status))
    return told


def newest(device: Device) -> UpgradeStatus | None:
    """What stands on the server."""
    return device.reports[-1].status if device.reports else None


Step = Callable[[Device], None]
steps = st.one_of(
    st.builds(
        lambda release, fresh, confirmed: lambda device: device.desire(release, fresh=fresh, confirmed=confirmed),
        st.integers(1, 3),
        st.booleans(),
        st.booleans(),
    ),
    st.just(Device.withdraw),
    st.builds(lambda release: lambda device: device.stop(release), st.integers(2, 3)),
    st.builds(lambda choice: lambda device: device.answer(choice), st.integers(0, 5)),
    st.builds(lambda choice: lambda device: device.answer(choice), st.just(0)),
    st.just(lambda device: device.tell(BecameManaging())),
)


@settings(max_examples=400, deadline=None)
@given(script=st.lists(steps, max_size=40))
def test_each_attempt_is_answered_exactly_once(values: Values, script: list[Step]) -> None:
    device = Device(values)
    device.tell(BecameManaging())
    for step in script:
        if isinstance(device.brain.state, Leaving):
            break
        step(device)
    for _ in range(40):
        match device.brain.state:
            case Leaving():
                break
            case Overlapping(record, confirmed=True):
                device.stop(int(record.release.version.split(".")[1]))
            case _:
                device.answer(0)
    told = terminal(device)
    assert all(len(kinds) <= 1 for kinds in told.values()), told
    state = device.brain.state
    assert isinstance(state, Idle | Leaving | OnTrial), state
    if isinstance(state, Idle):
        assert all(told.values()), told
        assert newest(device) is None or isinstance(newest(device), TERMINAL)
