"""Every planted bug is caught by a check that may catch it, every invariant catches one, and sound code holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.invariants import ALL
from harness.verdict import Held
from tests.planted.plant import CHECK, CRASHED, STUCK, Bug, attempt, line, run_stage
from tests.planted.registry import BUGS

STAGES = tuple(dict.fromkeys(bug.stage for bug in BUGS))


def planted(bug: Bug) -> object:
    marks = [pytest.mark.shows_secrets] if bug.shows_secrets else []
    return pytest.param(bug, marks=marks, id=bug.name.replace(" ", "-"))


@pytest.mark.parametrize("bug", [planted(bug) for bug in BUGS])
def test_the_bug_is_caught(bug: Bug, record_property: Callable[[str, object], None]) -> None:
    outcome = attempt(bug)
    record_property("planted bug", line(outcome))
    assert outcome.caught, f"{bug.name}: {outcome.caught_by or 'nothing'} caught it: {outcome.verdict}"


@pytest.mark.parametrize("stage", STAGES, ids=range(len(STAGES)))
def test_the_same_run_holds_without_a_bug(stage: tuple[str, int, str]) -> None:
    result = run_stage(stage)
    assert result.verdict == Held(), result.reason


def test_there_are_enough_and_each_has_its_own_name() -> None:
    assert len(BUGS) >= 70
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    rules = {*(kind.name for kind in ALL), CHECK, STUCK, CRASHED}
    assert {rule for bug in BUGS for rule in bug.caught_by} <= rules


@pytest.mark.parametrize("invariant", [kind.name for kind in ALL])
def test_every_invariant_is_the_one_that_catches_some_bug(invariant: str) -> None:
    """Such a bug names no other rule, so that the test above proves it."""
    assert [bug.name for bug in BUGS if bug.caught_by == (invariant,)]
