"""Attempts that end for reasons that are not the release's: withdrawn, superseded, cut off, or damaged by the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent.events import (
    BecameManaging,
    DesiredSeen,
    DesiredWithdrawn,
    Drained,
    Event,
    Hold,
    Insist,
    Instruction,
    LookedAgain,
    OverlapWatched,
    Quarantine,
    Report,
    SelfTestPassed,
    SlotGranted,
    Staged,
    StageOverran,
    StopUnit,
    StreamWentBack,
    SwapDone,
    SwapLink,
    Undrain,
)
from agent.states import Idle, Overlapping, RollingBack
from agent.upgrade import Upgrade
from fleet.capabilities.host import Failing
from fleet.contracts.ids import AttemptId, Revision, Slot
from fleet.contracts.records import DeferredUpgrade, UpgradePhase
from fleet.contracts.time import ZERO

Make = Callable[..., Upgrade]
Values = Any  # The conftest's class: test files cannot import it.
A1, A2 = AttemptId("a-1"), AttemptId("a-2")
WHOLE_WAY: tuple[Event, ...] = (SlotGranted(A1), Drained(A1), Staged(A1), SelfTestPassed(A1), SwapDone(A1))


@pytest.fixture
def old(brain: Make, values: Values) -> Upgrade:
    """The managing instance of release 1, to which release 2 is desired."""
    made = brain(values.release(1))
    made.begin()
    made.handle(BecameManaging())
    made.handle(DesiredSeen(Revision(5), values.desired(values.release(2))))
    return made


def ended(instructions: tuple[Instruction, ...]) -> list[object]:
    """What is reported."""
    return [item.status for item in instructions if isinstance(item, Report)]


def undone(made: Upgrade, instructions: tuple[Instruction, ...]) -> DeferredUpgrade:
    """How a roll-back without blame ends: the unit is stopped before the link is swapped, and nobody is condemned."""
    assert isinstance(made.state, RollingBack)
    insist = next(item for item in instructions if isinstance(item, Insist))
    kinds = [type(step) for step in insist.steps]
    assert Quarantine not in kinds
    assert kinds.index(StopUnit) < kinds.index(SwapLink)
    answer = made.handle(insist.done)
    assert Undrain(made.attempt or A1) in answer or Undrain(A2) in answer
    status = ended(answer)[0]
    assert isinstance(status, DeferredUpgrade)
    return status


@pytest.mark.parametrize("done", range(4))
def test_withdrawn_before_the_swap(old: Upgrade, done: int) -> None:
    for event in WHOLE_WAY[:done]:
        old.handle(event)
    answer = old.handle(DesiredWithdrawn(Revision(6)))
    assert [type(status) for status in ended(answer)] == [DeferredUpgrade]
    assert (Undrain(A1) in answer) == (done > 0)
    assert old.state == Idle()


def test_withdrawn_while_swapping_is_undone_as_soon_as_both_run(old: Upgrade) -> None:
    for event in WHOLE_WAY[:4]:
        old.handle(event)
    assert old.handle(DesiredWithdrawn(Revision(6))) == ()
    assert "withdrawn" in undone(old, old.handle(SwapDone(A1))).reason


@pytest.mark.parametrize("confirmed", [False, True])
def test_withdrawn_in_the_overlap(old: Upgrade, values: Values, confirmed: bool) -> None:
    for event in WHOLE_WAY:
        old.handle(event)
    if confirmed:
        new = values.instance(values.release(2), 3)
        old.handle(DesiredSeen(Revision(6), values.desired(values.release(2), confirmed=new)))
    assert "withdrawn" in undone(old, old.handle(DesiredWithdrawn(Revision(7)))).reason


def test_a_desire_that_was_not_read_yet_is_not_withdrawn(brain: Make, values: Values) -> None:
    """After a restart in the overlap."""
    record = values.record(values.release(2), values.release(1))
    made = brain(values.release(1), start=4, attempt=record, current=values.release(2).version)
    made.begin()
    made.handle(SwapDone(A1))
    assert isinstance(made.state, Overlapping)


def test_files_damaged_before_the_self_test_defer(old: Upgrade) -> None:
    for event in WHOLE_WAY[:3]:
        old.handle(event)
    answer = old.handle(StageOverran(A1, "damaged"))
    assert ended(answer) == [DeferredUpgrade(phase=UpgradePhase.TESTING, reason="damaged")]
    assert Undrain(A1) in answer


@pytest.mark.parametrize(
    "event", [OverlapWatched(A1, Failing(3, gave_up=True), ZERO, whole=False), LookedAgain(A1, whole=False)]
)
def test_files_damaged_in_the_overlap_condemn_nobody(old: Upgrade, event: Event) -> None:
    for step in WHOLE_WAY:
        old.handle(step)
    assert "damaged on this disk" in undone(old, old.handle(event)).reason


@pytest.mark.parametrize("withdrawn", [False, True])
def test_an_attempt_that_a_crash_cut_off_is_answered(brain: Make, values: Values, withdrawn: bool) -> None:
    record = values.record(values.release(2), values.release(1))
    made = brain(values.release(1), start=4, attempt=record, current=values.release(1).version)
    made.begin()
    made.handle(BecameManaging())
    other = DesiredSeen(Revision(6), values.desired(values.release(3), "a-2"))
    answer = made.handle(DesiredWithdrawn(Revision(6)) if withdrawn else other)
    first = next(item for item in answer if isinstance(item, Report))
    assert first.attempt == A1
    assert isinstance(first.status, DeferredUpgrade)
    assert made.attempt == (None if withdrawn else A2)


def test_rest_passes_to_the_attempt_that_takes_an_overlap_over(old: Upgrade, values: Values) -> None:
    for event in WHOLE_WAY:
        old.handle(event)
    answer = old.handle(DesiredSeen(Revision(6), values.desired(values.release(2), "a-2")))
    assert Hold(A2) in answer
    insist = next(
        item for item in old.handle(OverlapWatched(A2, Failing(3, gave_up=True), ZERO)) if isinstance(item, Insist)
    )
    assert Undrain(A2) in old.handle(insist.done)


def test_a_lower_revision_counts_after_the_stream_went_back(old: Upgrade, values: Values) -> None:
    newer = DesiredSeen(Revision(3), values.desired(values.release(3), "a-2"))
    assert old.handle(newer) == ()
    assert old.handle(StreamWentBack()) == ()
    old.handle(newer)
    assert old.attempt == A2


def test_the_slot_that_is_stopped_is_the_other_one(old: Upgrade, values: Values) -> None:
    for event in WHOLE_WAY:
        old.handle(event)
    answer = old.handle(DesiredSeen(Revision(6), values.desired(values.release(3), "a-2")))
    insist = next(item for item in answer if isinstance(item, Insist))
    assert insist.steps[:2] == (StopUnit(Slot.B), SwapLink(values.release(1)))
