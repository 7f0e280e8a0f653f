"""The declared moves are the moves: walks through the brain take each of them, and none that is not declared."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.events import (
    Abandon,
    AskLock,
    AttemptRecord,
    BecameManaging,
    Condemned,
    DesiredSeen,
    DesiredWithdrawn,
    Drain,
    Drained,
    DrainOverran,
    Event,
    Insist,
    Instruction,
    LookAgain,
    LookedAgain,
    OverlapWatched,
    RunSelfTest,
    SelfTestFailed,
    SelfTestPassed,
    SlotGranted,
    Stage,
    Staged,
    StageOverran,
    StageRefused,
    StopAsked,
    StreamWentBack,
    SwapDone,
    SwapFailed,
    TrialWatched,
    TrySwap,
    WatchOverlap,
    WatchTrial,
)
from agent.states import Found, Idle, Leaving, Me
from agent.transitions import MOVES, STAYS
from agent.upgrade import Upgrade
from fleet.capabilities.host import Failing, Running, Stopped
from fleet.contracts.errors import IllegalTransition
from fleet.contracts.ids import Architecture, Revision, Slot
from fleet.contracts.records import RolledBack, Succeeded, UpgradePhase
from fleet.contracts.time import ZERO

Values = Any  # The conftest's class: test files cannot import it.
Triple = tuple[str, str, str]

WALKS = 2500
STEPS = 30


class Walk:
    """One brain on its way through whatever can happen, and what its hands owe it."""

    def __init__(self, values: Values, chance: random.Random) -> None:
        self.values, self.chance = values, chance
        self.me = values.instance(values.release(1), 2)
        me = Me(self.me, values.release(1), Slot.A, Architecture.AARCH64)
        self.brain = Upgrade(me, self.found(), values.deadline)
        self.owed: list[Instruction] = []
        self.revision = 0
        self.attempt = "a-1"
        self.release = 2
        self.calm = chance.choice([0.5, 0.8])
        self.take(self.brain.begin())

    def found(self) -> Found:
        """What a disk can say at a start."""
        values, chance = self.values, self.chance
        ours, other = values.release(1), values.release(2)
        as_old, as_new = values.record(other, ours), values.record(ours, other, origin=Slot.B)
        record: AttemptRecord | None = chance.choice([None, None, as_old, as_new, values.record(other, other)])
        if record is not None and chance.random() < 0.4:
            ended = chance.choice([Succeeded(), RolledBack(phase=UpgradePhase.TESTING, reason="x")])
            record = record.model_copy(update={"ended": ended, "reporter": self.me})
        if record is not None and chance.random() < 0.3:
            record = record.model_copy(update={"boot": values.later_boot})
        mark = Condemned("it crashed", chance.choice([None, None if record is None else record.attempt]))
        marks = chance.choice([{}, {}, {other.sha256: mark}])
        current = chance.choice([ours, other]).version
        return Found(chance.choice([None, ours, ours, other]), record, current, marks)

    def events(self) -> Iterator[Event]:
        """The next thing that happens: more often work that ends well, in the calmer half of the walks."""
        chance = self.chance
        if self.owed and chance.random() < self.calm:
            yield self.work(good=chance.random() < 0.7)
            return
        match chance.randrange(6):
            case 0 | 1:
                yield self.desire()
            case 2:
                self.revision += 1
                yield DesiredWithdrawn(Revision(self.revision))
            case 3:
                yield BecameManaging()
            case 4:
                me = self.me if chance.random() < 0.7 else self.values.instance(self.values.release(3), 9)
                successor = self.values.instance(self.values.release(self.release), 3)
                yield StopAsked(self.values.stop(me, successor, self.attempt))
            case _:
                yield StreamWentBack()

    def work(self, *, good: bool) -> Event:
        """A piece of work that is owed ends, or is looked at."""
        work = self.owed.pop(-1 if good else self.chance.randrange(len(self.owed)))
        if isinstance(work, WatchOverlap | WatchTrial):
            self.owed.insert(0, work)
        endings = self.endings(work)
        return endings[0] if good else self.chance.choice(endings)

    def desire(self) -> DesiredSeen:
        chance, values = self.chance, self.values
        if chance.random() < 0.5:
            self.release = chance.choice([1, 2, 2, 3])
            number = chance.choice([0, 1, 2, 2 if self.release == 2 else 1])
            self.attempt = f"a-{number}-{self.release}" if number or self.release != 2 else "a-1"
        self.revision += 1
        ours = (
            values.instance(values.release(1), 2)
            if self.release == 1
            else values.instance(values.release(self.release), 3)
        )
        desired = values.desired(
            values.release(self.release), self.attempt, confirmed=chance.choice([None, None, ours])
        )
        return DesiredSeen(
            Revision(self.revision), desired.model_copy(update={"lift_quarantine": chance.random() < 0.3})
        )

    def endings(self, work: Instruction) -> tuple[Event, ...]:
        """How a piece of work can end."""
        deadline = self.values.deadline
        match work:
            case AskLock(attempt):
                return (SlotGranted(attempt),)
            case Drain(attempt):
                return Drained(attempt), Drained(attempt), DrainOverran(attempt, "busy")
            case Stage(attempt):
                return Staged(attempt), Staged(attempt), StageRefused(attempt, "no"), StageOverran(attempt, "slow")
            case RunSelfTest(attempt):
                passed = SelfTestPassed(attempt)
                return passed, passed, SelfTestFailed(attempt, "bad"), StageOverran(attempt, "damaged")
            case TrySwap(attempt):
                return SwapDone(attempt), SwapDone(attempt), SwapFailed(attempt, "disk")
            case Insist(done=done):
                return (done,)
            case LookAgain(attempt):
                return LookedAgain(attempt), LookedAgain(attempt, whole=False)
            case WatchTrial(attempt):
                return TrialWatched(attempt, deadline), TrialWatched(attempt, ZERO)
            case WatchOverlap(attempt):
                units = Running(), Stopped(), Failing(1, gave_up=False), Failing(3, gave_up=False)
                dead = OverlapWatched(attempt, Failing(3, gave_up=True), ZERO, whole=False)
                return (
                    OverlapWatched(attempt, Running(), deadline),
                    dead,
                    *(OverlapWatched(attempt, unit, ZERO) for unit in units),
                )
            case _:
                raise AssertionError(work)

    def take(self, instructions: tuple[Instruction, ...]) -> None:
        """Owe what takes time."""
        for instruction in instructions:
            if isinstance(instruction, Abandon):
                self.owed.clear()
            elif isinstance(
                instruction,
                AskLock | Drain | Stage | RunSelfTest | TrySwap | Insist | LookAgain | WatchTrial | WatchOverlap,
            ):
                self.owed.append(instruction)

    def run(self) -> Iterator[Triple]:
        """Walk, and name each move that was taken."""
        for _ in range(STEPS):
            for event in self.events():
                before = self.brain.state
                stale = self.brain._is_stale(event)
                self.take(self.brain.handle(event))
                if not stale:
                    yield type(before).__name__, type(event).__name__, type(self.brain.state).__name__


@pytest.fixture(scope="module")
def taken(values: Values) -> frozenset[Triple]:
    """Every move of many walks."""
    chance = random.Random(7)
    return frozenset(move for _ in range(WALKS) for move in Walk(values, chance).run())


def named(state: type, event: type, to: type) -> Triple:
    """As the walks name it."""
    return state.__name__, event.__name__, to.__name__


def test_each_declared_move_is_taken(taken: frozenset[Triple]) -> None:
    declared = {named(move.state, move.event, move.to) for move in MOVES}
    assert sorted(declared - taken) == []


def test_each_event_that_a_state_stays_on_has_come_to_it(taken: frozenset[Triple]) -> None:
    declared = {named(state, event, state) for state, events in STAYS.items() for event in events}
    assert sorted(declared - taken) == []


def test_no_move_is_declared_twice() -> None:
    triples = [named(move.state, move.event, move.to) for move in MOVES]
    assert len(set(triples)) == len(triples)
    assert [move for move in MOVES if move.state is move.to and move.event is not DesiredSeen] == []


def test_a_move_that_is_not_declared_is_refused_and_not_made(
    brain: Callable[..., Upgrade], values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = brain(values.release(1))
    made.begin()
    made.handle(BecameManaging())

    def astray() -> tuple[Instruction, ...]:
        made.state = Leaving()
        return ()

    monkeypatch.setattr(made, "_consider", astray)
    with pytest.raises(IllegalTransition, match="to Leaving"):
        made.handle(DesiredSeen(Revision(5), values.desired(values.release(2))))
    assert made.state == Idle()
