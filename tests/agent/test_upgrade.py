"""The hand-over protocol, path by path: events in, instructions out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from agent.events import (
    Abandon,
    AskLock,
    AttemptRecord,
    BecameManaging,
    Closed,
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
    MarkedVerified,
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
from agent.states import Idle, Leaving, Locking, OnTrial, Overlapping, RollingBack
from agent.upgrade import Upgrade
from fleet.capabilities.host import Failing, Running, Stopped
from fleet.contracts.errors import IllegalTransition
from fleet.contracts.ids import Architecture, AttemptId, BootId, Revision, Slot
from fleet.contracts.records import (
    DeferredUpgrade,
    InProgress,
    RefusedUpgrade,
    RolledBack,
    Succeeded,
    UpgradePhase,
)
from fleet.contracts.time import ZERO, Duration

Make = Callable[..., Upgrade]
Values = Any  # The conftest's class: test files cannot import it.
A1 = AttemptId("a-1")
WHOLE_WAY: tuple[Event, ...] = (SlotGranted(A1), Drained(A1), Staged(A1), SelfTestPassed(A1), SwapDone(A1))


def statuses(instructions: tuple[Instruction, ...]) -> list[object]:
    """What is reported."""
    return [item.status for item in instructions if isinstance(item, Report)]


T = TypeVar("T")


def only(instructions: tuple[Instruction, ...], kind: type[T]) -> T:
    """The one instruction of a kind."""
    found = [item for item in instructions if isinstance(item, kind)]
    assert len(found) == 1, instructions
    return found[0]


@pytest.fixture
def old(brain: Make, values: Values) -> Upgrade:
    """The managing instance of release 1, to which release 2 is desired."""
    made = brain(values.release(1))
    assert made.begin() == ()
    assert made.handle(BecameManaging()) == ()
    made.handle(DesiredSeen(Revision(5), values.desired(values.release(2))))
    assert isinstance(made.state, Locking)
    return made


@pytest.fixture
def overlapping(old: Upgrade) -> Upgrade:
    """The same, in the overlap."""
    for event in WHOLE_WAY:
        old.handle(event)
    assert isinstance(old.state, Overlapping)
    return old


def test_the_whole_way_to_the_overlap(brain: Make, values: Values) -> None:
    made = brain(values.release(1))
    made.begin()
    made.handle(BecameManaging())
    wanted = values.desired(values.release(2))
    record = values.record(values.release(2), values.release(1))

    def progress(phase: UpgradePhase) -> Report:
        return Report(A1, values.release(2), InProgress(phase=phase), values.instance(values.release(1), 2))

    assert made.handle(DesiredSeen(Revision(5), wanted)) == (progress(UpgradePhase.LOCKING), AskLock(A1))
    assert made.handle(SlotGranted(A1)) == (progress(UpgradePhase.DRAINING), Drain(A1))
    assert made.handle(Drained(A1)) == (progress(UpgradePhase.STAGING), Stage(A1, wanted.artefact))
    assert made.handle(Staged(A1)) == (progress(UpgradePhase.TESTING), RunSelfTest(A1, values.release(2)))
    steps = (StopUnit(Slot.B), RecordAttempt(record), SwapLink(values.release(2)), StartUnit(Slot.B))
    assert made.handle(SelfTestPassed(A1)) == (progress(UpgradePhase.SWAPPING), TrySwap(A1, steps))
    assert made.handle(SwapDone(A1)) == (progress(UpgradePhase.OVERLAPPING), WatchOverlap(A1, values.release(2)))


def test_the_new_instance_succeeds_once_it_is_confirmed_and_manages(brain: Make, values: Values) -> None:
    release, record = values.release(2), values.record(values.release(2), values.release(1))
    new = brain(release, slot=Slot.B, start=3, verified=values.release(1), attempt=record)
    assert new.begin() == ()
    me = values.instance(release, 3)
    assert new.handle(DesiredSeen(Revision(5), values.desired(release))) == ()
    confirmed = new.handle(DesiredSeen(Revision(6), values.desired(release, confirmed=me)))
    assert confirmed == (Abandon(), Insist((MarkVerified(release),), MarkedVerified(A1)))
    assert new.handle(MarkedVerified(A1)) == ()
    closing = only(new.handle(BecameManaging()), Insist)
    ended = record.model_copy(update={"ended": Succeeded(), "reporter": me})
    assert closing == Insist((RecordAttempt(ended), StopUnit(Slot.A), MarkVerified(release)), Closed(A1))
    assert new.handle(Closed(A1)) == (Report(A1, release, Succeeded(), me),)
    assert new.state == Idle()


def test_the_new_instance_may_manage_before_it_is_confirmed(brain: Make, values: Values) -> None:
    release = values.release(2)
    new = brain(release, slot=Slot.B, start=3, verified=None, attempt=values.record(release, values.release(1)))
    new.begin()
    assert WatchTrial(A1) in new.handle(BecameManaging())
    new.handle(DesiredSeen(Revision(6), values.desired(release, confirmed=values.instance(release, 3))))
    assert StopUnit(Slot.A) in only(new.handle(MarkedVerified(A1)), Insist).steps


def test_without_the_record_of_its_attempt_it_stops_the_other_slot(brain: Make, values: Values) -> None:
    release = values.release(2)
    new = brain(release, slot=Slot.B, start=3, verified=values.release(1), attempt=None)
    new.begin()
    new.handle(DesiredSeen(Revision(5), values.desired(release)))
    new.handle(BecameManaging())
    new.handle(DesiredSeen(Revision(6), values.desired(release, confirmed=values.instance(release, 3))))
    assert StopUnit(Slot.A) in only(new.handle(MarkedVerified(A1)), Insist).steps


def test_a_confirmation_of_another_instance_is_not_mine(brain: Make, values: Values) -> None:
    release = values.release(2)
    new = brain(release, slot=Slot.B, start=5, verified=None, attempt=values.record(release, values.release(1)))
    new.begin()
    assert new.handle(DesiredSeen(Revision(6), values.desired(release, confirmed=values.instance(release, 3)))) == ()
    assert isinstance(new.state, OnTrial)


# --- redelivery and order --------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", [1, 4, 5])
def test_a_lower_or_equal_revision_changes_nothing(old: Upgrade, values: Values, revision: int) -> None:
    before = old.state
    assert old.handle(DesiredSeen(Revision(revision), values.desired(values.release(3), "a-2"))) == ()
    assert old.state == before


def test_the_same_attempt_at_a_higher_revision_changes_nothing(old: Upgrade, values: Values) -> None:
    assert old.handle(DesiredSeen(Revision(6), values.desired(values.release(2)))) == ()


def test_an_ended_attempt_is_reported_again_and_not_done_again(old: Upgrade, values: Values) -> None:
    old.handle(SlotGranted(A1))
    first = only(old.handle(DrainOverran(A1, "busy")), Report)
    assert old.handle(DesiredSeen(Revision(9), values.desired(values.release(2)))) == (first,)
    assert old.state == Idle()


def test_a_standby_begins_nothing(brain: Make, values: Values) -> None:
    made = brain(values.release(1))
    made.begin()
    assert made.handle(DesiredSeen(Revision(5), values.desired(values.release(2)))) == ()
    assert AskLock(A1) in made.handle(BecameManaging())


def test_the_release_that_runs_and_is_verified_is_a_success_without_a_slot(brain: Make, values: Values) -> None:
    made = brain(values.release(1))
    made.begin()
    made.handle(BecameManaging())
    assert statuses(made.handle(DesiredSeen(Revision(5), values.desired(values.release(1))))) == [Succeeded()]


# --- what is refused at once -----------------------------------------------------------------------------


def refused(made: Upgrade, desired: object) -> str:
    """The reason of the refusal that is the answer."""
    made.begin()
    made.handle(BecameManaging())
    status = only(made.handle(DesiredSeen(Revision(5), desired)), Report).status  # type: ignore[arg-type]
    assert isinstance(status, RefusedUpgrade)
    assert status.phase is UpgradePhase.LOCKING
    return status.reason


def test_a_quarantined_release_is_refused(brain: Make, values: Values) -> None:
    bad = values.release(2)
    made = brain(values.release(1), condemned={bad.sha256: "it crashed"})
    assert "it crashed" in refused(made, values.desired(bad, "a-9"))


def test_another_architecture_is_refused(brain: Make, values: Values) -> None:
    desired = values.desired(values.release(2), architecture=Architecture.X86_64)
    assert "x86_64" in refused(brain(values.release(1)), desired)


def test_a_version_with_two_files_is_refused(brain: Make, values: Values) -> None:
    made = brain(values.release(1), on_disk=(values.release(2),))
    assert "another sha256" in refused(made, values.desired(values.release(2, "f")))


def test_a_file_with_two_versions_is_refused(brain: Make, values: Values) -> None:
    assert "1.1.0" in refused(brain(values.release(1)), values.desired(values.release(2, "1")))


# --- the ends before the swap ----------------------------------------------------------------------------


def test_an_overrun_drain_defers_and_undrains(old: Upgrade) -> None:
    old.handle(SlotGranted(A1))
    ended = old.handle(DrainOverran(A1, "web is not healthy"))
    assert statuses(ended) == [DeferredUpgrade(phase=UpgradePhase.DRAINING, reason="web is not healthy")]
    assert Undrain(A1) in ended


@pytest.mark.parametrize(
    ("event", "kind"), [(StageRefused(A1, "no room"), RefusedUpgrade), (StageOverran(A1, "slow"), DeferredUpgrade)]
)
def test_a_release_that_cannot_be_staged(old: Upgrade, event: Event, kind: type) -> None:
    old.handle(SlotGranted(A1))
    old.handle(Drained(A1))
    ended = old.handle(event)
    assert [type(status) for status in statuses(ended)] == [kind]
    assert Undrain(A1) in ended
    assert old.state == Idle()


def test_a_failed_self_test_condemns_without_touching_the_link(old: Upgrade, values: Values) -> None:
    for event in WHOLE_WAY[:3]:
        old.handle(event)
    insist = only(old.handle(SelfTestFailed(A1, "exit code 1")), Insist)
    assert [type(step) for step in insist.steps] == [Quarantine, RecordAttempt]
    ended = old.handle(insist.done)
    assert statuses(ended) == [RolledBack(phase=UpgradePhase.TESTING, reason="exit code 1")]
    assert Undrain(A1) in ended
    again = old.handle(DesiredSeen(Revision(9), values.desired(values.release(2), "a-2")))
    assert isinstance(statuses(again)[0], RefusedUpgrade)


@pytest.mark.parametrize("done", range(4))
def test_a_newer_desire_before_the_swap_supersedes(old: Upgrade, values: Values, done: int) -> None:
    for event in WHOLE_WAY[:done]:
        old.handle(event)
    taken = old.handle(DesiredSeen(Revision(6), values.desired(values.release(3), "a-2")))
    first, second = statuses(taken)
    assert isinstance(first, DeferredUpgrade)
    assert second == InProgress(phase=UpgradePhase.LOCKING)
    assert taken[0] == Abandon()
    assert (Undrain(A1) in taken) == (done > 0)
    assert taken[-1] == AskLock(AttemptId("a-2"))
    assert old.handle(SlotGranted(A1)) == ()


def test_a_withdrawn_desire_before_the_swap_defers(old: Upgrade) -> None:
    ended = old.handle(DesiredWithdrawn(Revision(6)))
    assert isinstance(statuses(ended)[0], DeferredUpgrade)
    assert old.state == Idle()


# --- the overlap -----------------------------------------------------------------------------------------


def test_the_named_stop_ends_the_old_instance(overlapping: Upgrade, values: Values) -> None:
    me, new = values.instance(values.release(1), 2), values.instance(values.release(2), 3)
    assert overlapping.handle(StopAsked(values.stop(new, me))) == ()
    assert overlapping.handle(StopAsked(values.stop(me, new))) == (Abandon(), Exit(0))
    assert overlapping.state == Leaving()


@pytest.mark.parametrize("done", range(5))
def test_a_stop_outside_of_an_overlap_is_ignored(old: Upgrade, values: Values, done: int) -> None:
    """A device that answers a late stop is left without an agent."""
    for event in WHOLE_WAY[:done]:
        old.handle(event)
    request = values.stop(values.instance(values.release(1), 2), values.instance(values.release(2), 3))
    assert old.handle(StopAsked(request)) == ()


def rolled_back(made: Upgrade, event: Event) -> Insist:
    """The roll-back that the event leads to."""
    answer = made.handle(event)
    assert isinstance(made.state, RollingBack)
    return only(answer, Insist)


@pytest.mark.parametrize("unit", [Failing(3, gave_up=False), Failing(1, gave_up=True)])
def test_a_dead_successor_is_rolled_back(overlapping: Upgrade, values: Values, unit: Failing) -> None:
    insist = rolled_back(overlapping, OverlapWatched(A1, unit, ZERO))
    kinds = [type(step) for step in insist.steps]
    assert kinds == [Quarantine, StopUnit, SwapLink, MarkVerified, RecordAttempt]
    assert insist.steps[2] == SwapLink(values.release(1))
    ended = overlapping.handle(insist.done)
    assert isinstance(statuses(ended)[0], RolledBack)
    assert Undrain(A1) in ended
    assert overlapping.state == Idle()


def test_single_crashes_and_one_look_at_a_stopped_unit_condemn_nobody(overlapping: Upgrade) -> None:
    for unit in (Failing(1, gave_up=False), Failing(2, gave_up=False), Stopped(), Running(), Stopped()):
        assert overlapping.handle(OverlapWatched(A1, unit, ZERO)) == ()


def test_a_successor_that_stays_stopped_is_rolled_back(overlapping: Upgrade) -> None:
    overlapping.handle(OverlapWatched(A1, Stopped(), ZERO))
    rolled_back(overlapping, OverlapWatched(A1, Stopped(), ZERO))


def test_a_mark_of_the_boot_guard_rolls_back(overlapping: Upgrade, values: Values) -> None:
    insist = rolled_back(overlapping, OverlapWatched(A1, Running(), ZERO, "started 3 times"))
    assert insist.steps[0] == Quarantine(values.release(2), "started 3 times", A1)


def test_the_deadline_is_looked_at_twice(overlapping: Upgrade, values: Values) -> None:
    short = Duration(values.deadline - 1)
    assert overlapping.handle(OverlapWatched(A1, Running(), short)) == ()
    assert overlapping.handle(OverlapWatched(A1, Running(), values.deadline)) == (LookAgain(A1, values.release(2)),)
    rolled_back(overlapping, LookedAgain(A1))


def test_a_confirmation_found_by_the_second_look_saves_the_release(overlapping: Upgrade, values: Values) -> None:
    overlapping.handle(OverlapWatched(A1, Running(), values.deadline))
    new = values.instance(values.release(2), 3)
    overlapping.handle(DesiredSeen(Revision(7), values.desired(values.release(2), confirmed=new)))
    assert overlapping.handle(LookedAgain(A1)) == ()
    assert overlapping.handle(OverlapWatched(A1, Running(), Duration.minutes(60))) == ()
    rolled_back(overlapping, OverlapWatched(A1, Failing(5, gave_up=True), ZERO))


def test_an_overlap_for_a_release_no_longer_desired_is_undone_without_blame(
    overlapping: Upgrade, values: Values
) -> None:
    newer = DesiredSeen(Revision(7), values.desired(values.release(3), "a-2"))
    insist = rolled_back(overlapping, newer)
    assert Quarantine not in [type(step) for step in insist.steps]
    ended = overlapping.handle(insist.done)
    assert [type(status) for status in statuses(ended)] == [DeferredUpgrade, InProgress]
    assert ended[-1] == AskLock(AttemptId("a-2"))


def test_an_overlap_passes_to_another_attempt_for_the_same_release(overlapping: Upgrade, values: Values) -> None:
    answer = overlapping.handle(DesiredSeen(Revision(7), values.desired(values.release(2), "a-2")))
    assert [type(status) for status in statuses(answer)] == [DeferredUpgrade, InProgress]
    assert overlapping.attempt == AttemptId("a-2")
    assert overlapping.handle(OverlapWatched(A1, Failing(9, gave_up=True), ZERO)) == ()


def test_going_back_to_the_previous_release_in_mid_overlap(overlapping: Upgrade, values: Values) -> None:
    insist = rolled_back(overlapping, DesiredSeen(Revision(7), values.desired(values.release(1), "a-2")))
    ended = statuses(overlapping.handle(insist.done))
    assert [type(status) for status in ended] == [DeferredUpgrade, Succeeded]


def test_a_swap_that_cannot_be_done_is_undone_without_blame(old: Upgrade) -> None:
    for event in WHOLE_WAY[:4]:
        old.handle(event)
    insist = rolled_back(old, SwapFailed(A1, "disk"))
    assert Quarantine not in [type(step) for step in insist.steps]
    assert isinstance(statuses(old.handle(insist.done))[0], DeferredUpgrade)


# --- after a restart -------------------------------------------------------------------------------------


@pytest.fixture
def record(values: Values) -> AttemptRecord:
    """From release 1 in slot a to release 2, not ended."""
    made = values.record(values.release(2), values.release(1))
    assert isinstance(made, AttemptRecord)
    return made


def test_the_old_instance_resumes_its_overlap(brain: Make, values: Values, record: AttemptRecord) -> None:
    made = brain(values.release(1), start=4, attempt=record, current=values.release(2).version)
    steps = (RecordAttempt(record), SwapLink(values.release(2)), StartUnit(Slot.B))
    assert made.begin() == (Hold(A1), TrySwap(A1, steps))
    assert WatchOverlap(A1, values.release(2)) in made.handle(SwapDone(A1))


def test_the_old_instance_resumes_its_overlap_after_a_reboot_from_the_slot_that_starts(
    brain: Make, values: Values, record: AttemptRecord
) -> None:
    before = record.model_copy(update={"origin": Slot.B, "boot": BootId("an-earlier-boot")})
    made = brain(values.release(1), start=4, attempt=before, current=values.release(2).version)
    steps = (RecordAttempt(record), SwapLink(values.release(2)), StartUnit(Slot.B))
    assert made.begin() == (Hold(A1), TrySwap(A1, steps))


def test_a_crash_before_the_link_was_swapped_begins_anew(brain: Make, values: Values, record: AttemptRecord) -> None:
    made = brain(values.release(1), start=4, attempt=record, current=values.release(1).version)
    assert made.begin() == ()
    made.handle(BecameManaging())
    assert AskLock(A1) in made.handle(DesiredSeen(Revision(5), values.desired(values.release(2))))


def test_a_roll_back_is_resumed(brain: Make, values: Values, record: AttemptRecord) -> None:
    made = brain(
        values.release(1),
        start=4,
        attempt=record,
        current=values.release(2).version,
        condemned={values.release(2).sha256: "it crashed"},
    )
    insist = only(made.begin(), Insist)
    ended = made.handle(insist.done)
    assert statuses(ended) == [RolledBack(phase=UpgradePhase.OVERLAPPING, reason="it crashed")]


def test_a_fall_back_of_the_boot_guard_after_a_reboot_is_reported(
    brain: Make, values: Values, record: AttemptRecord
) -> None:
    made = brain(
        values.release(1),
        boot=values.later_boot,
        attempt=record,
        current=values.release(1).version,
        condemned={values.release(2).sha256: "started 3 times"},
    )
    insist = only(made.begin(), Insist)
    made.handle(BecameManaging())
    made.handle(DesiredSeen(Revision(5), values.desired(values.release(2))))
    assert statuses(made.handle(insist.done)) == [RolledBack(phase=UpgradePhase.OVERLAPPING, reason="started 3 times")]


def test_after_a_reboot_the_new_release_is_on_trial_and_succeeds(
    brain: Make, values: Values, record: AttemptRecord
) -> None:
    release = values.release(2)
    made = brain(release, boot=values.later_boot, start=4, verified=values.release(1), attempt=record)
    assert made.begin() == ()
    made.handle(BecameManaging())
    me = values.instance(release, 4, values.later_boot)
    made.handle(DesiredSeen(Revision(8), values.desired(release, confirmed=me)))
    closing = only(made.handle(MarkedVerified(A1)), Insist)
    assert StopUnit(Slot.A) not in closing.steps
    assert statuses(made.handle(closing.done)) == [Succeeded()]


def test_a_trial_that_nobody_confirms_gives_itself_up(brain: Make, values: Values, record: AttemptRecord) -> None:
    made = brain(values.release(2), boot=values.later_boot, start=4, verified=values.release(1), attempt=record)
    made.begin()
    assert WatchTrial(A1) in made.handle(BecameManaging())
    assert made.handle(TrialWatched(A1, ZERO)) == ()
    assert made.handle(TrialWatched(A1, values.deadline)) == (LookAgain(A1, values.release(2)),)
    assert made.handle(LookedAgain(A1)) == ()  # nothing is desired: nobody could have confirmed it
    made.handle(DesiredSeen(Revision(9), values.desired(values.release(2))))
    insist = only(made.handle(LookedAgain(A1)), Insist)
    assert [type(step) for step in insist.steps] == [Quarantine, SwapLink, RecordAttempt]
    assert made.handle(insist.done) == (Exit(1),)


def test_a_trial_without_a_way_back_stays(brain: Make, values: Values) -> None:
    made = brain(values.release(1), verified=None)
    made.begin()
    made.handle(BecameManaging())
    assert WatchTrial(A1) in made.handle(DesiredSeen(Revision(5), values.desired(values.release(1))))
    assert made.handle(LookedAgain(A1)) == ()


def test_a_trial_that_is_no_longer_desired_gives_way(brain: Make, values: Values, record: AttemptRecord) -> None:
    made = brain(values.release(2), boot=values.later_boot, start=4, verified=values.release(1), attempt=record)
    made.begin()
    made.handle(BecameManaging())
    taken = made.handle(DesiredSeen(Revision(9), values.desired(values.release(3), "a-2")))
    assert [type(status) for status in statuses(taken)] == [DeferredUpgrade, InProgress]


@pytest.mark.parametrize(
    "status",
    [
        Succeeded(),
        RolledBack(phase=UpgradePhase.TESTING, reason="x"),
        DeferredUpgrade(phase=UpgradePhase.DRAINING, reason="x"),
    ],
)
def test_an_attempt_that_ended_before_the_restart_is_answered_alike(
    brain: Make, values: Values, status: Succeeded | RolledBack | DeferredUpgrade
) -> None:
    reporter = values.instance(values.release(1), 2)
    record = values.record(values.release(2), values.release(1)).model_copy(
        update={"ended": status, "reporter": reporter}
    )
    mine = values.release(2 if isinstance(status, Succeeded) else 1)
    made = brain(mine, start=6, boot=values.later_boot, attempt=record)
    instructions = [*made.begin()]
    instructions += made.handle(BecameManaging())
    instructions += made.handle(DesiredSeen(Revision(5), values.desired(values.release(2))))
    if isinstance(status, Succeeded):
        instructions += made.handle(Closed(A1))
    assert Report(A1, values.release(2), status, reporter) in instructions
    assert AskLock(A1) not in instructions


def test_a_success_that_the_boot_guard_undid_is_told(brain: Make, values: Values, record: AttemptRecord) -> None:
    ended = record.model_copy(update={"ended": Succeeded(), "reporter": values.instance(values.release(2), 3)})
    made = brain(values.release(1), start=8, attempt=ended, condemned={values.release(2).sha256: "started 4 times"})
    assert isinstance(only(made.begin(), Note).record.ended, RolledBack)
    made.handle(BecameManaging())
    answer = made.handle(DesiredSeen(Revision(5), values.desired(values.release(2))))
    assert isinstance(statuses(answer)[0], RolledBack)


def test_an_event_without_an_answer_is_a_defect_that_tells_its_story(old: Upgrade) -> None:
    with pytest.raises(IllegalTransition) as caught:
        old.handle(Staged(A1))
    assert "Locking" in caught.value.state
    assert any("DesiredSeen" in line for line in caught.value.story)
