"""What people see: lines when piped, a live view on a terminal, and the way to reproduce a failure."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from fleet.contracts.ids import ObjectName
from fleet.contracts.objects import AgentRollout, Metadata, RolloutGroup, RolloutPhase, RolloutSpec, RolloutStatus
from fleet.contracts.time import Instant
from harness import report
from harness.progress import Silent
from harness.runner import Result, run_scenario
from harness.scenario import Cast, parse
from harness.targets.scripted import ScriptedTarget, Story, artefact_of
from harness.timeline import LONGEST, Timeline
from harness.verdict import Crashed, HarnessBroken, Held, NotApplicable, Stuck, Verdict, Violated, exit_code, reason
from harness.view import FleetView
from sim.journal import Journal, StepDone

TEXT = """\
schema = 1
installed = "1.0.0"
scenario = { name = "seen", proves = "that it is shown" }
fleet = { devices = 3 }
releases = [{ version = "1.0.0" }, { version = "1.1.0" }]
steps = [{ do = "upgrade", name = "move", to = "1.1.0" }]
checks = [{ check = "final", that = { fact = "release", release = "1.1.0", over = "all" } }]
"""
VERDICTS: tuple[tuple[Verdict, int], ...] = (
    (Held(), 0),
    (NotApplicable("no power switch"), 0),
    (Violated("one-manager", "two of them"), 1),
    (Stuck("converge took longer than 30m", ("device-001", "device-002")), 3),
    (Crashed("KeyError: 'x'", "Traceback …"), 4),
    (HarnessBroken("fault 1 never happened"), 5),
)


def cast() -> Cast:
    return parse(TEXT, Path("seen.toml")).cast()


def out(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=140, highlight=False), text


def result_of(verdict: Verdict) -> Result:
    trail = ("     1.000s {[bold]not markup[/bold]}",)
    return Result("seen", "sim", 7, verdict, 3, 12.0, 0.5, 99, "a" * 64, 1, trail)


def test_lines_tell_phases_and_steps_with_the_time_of_the_run() -> None:
    console, text = out()
    with report.Lines(console) as progress:
        run_scenario(cast(), ScriptedTarget(), 1, progress)
    lines = text.getvalue().splitlines()
    assert lines[0] == "seen       0.0s 3 devices"
    assert "seen       0.0s step 1: upgrade all to 1.1.0 (move)" in lines
    assert lines[-1].endswith("tear-down")


def test_the_live_view_shows_how_the_fleet_stands() -> None:
    console, text = out(terminal=True)
    with report.Screen(console) as progress:
        run_scenario(cast(), ScriptedTarget(), 1, progress)
        console.print(progress._now())
    assert "tear-down" in text.getvalue()
    assert "3/3 ready" in text.getvalue()
    assert "rollout move: Complete, 3/3 upgraded, 0 failed" in text.getvalue()


@pytest.mark.parametrize(("verdict", "code"), VERDICTS, ids=lambda item: type(item).__name__)
def test_every_verdict_is_shown_with_what_to_do(verdict: Verdict, code: int) -> None:
    console, text = out()
    report.show_summary(console, [(Path("scenarios/seen.toml"), result_of(verdict))])
    lines = text.getvalue().splitlines()
    assert exit_code(verdict) == code
    assert any(type(verdict).__name__ in line for line in lines)
    if code:
        assert lines[-1] == "twin run scenarios/seen.toml --target sim --seed 7 --devices 3"
        assert f"seen: {type(verdict).__name__}: {reason(verdict)}" in lines
        assert "     1.000s {[bold]not markup[/bold]}" in lines
    if isinstance(verdict, NotApplicable):
        assert lines[-2:] == ["0 of 1 held, 1 not applicable", "seen: not applicable: no power switch"]


def test_the_timeline_tells_the_run_on_one_page() -> None:
    console, text = out()
    result = run_scenario(cast(), ScriptedTarget(), 1, Silent())
    report.show_timeline(console, result)
    lines = [line.partition(" s  ")[2] for line in text.getvalue().splitlines()[2:]]
    assert lines[0] == "set-up"
    assert lines[-1] == "Held"
    assert "step 1: upgrade all to 1.1.0 (move)" in lines
    assert any(line.startswith("rollout move Complete") for line in lines)
    assert lines.index("converge") < lines.index("check") < lines.index("tear-down")
    assert len(lines) < 30


def test_the_timeline_of_a_large_rollout_is_no_longer_than_that_of_a_small_one() -> None:
    journal = Journal()
    page = Timeline(FleetView((), journal), journal)
    story = Story(journal, lambda: Instant(0))
    spec = RolloutSpec(artefacts=(artefact_of("1.1.0"),), groups=(RolloutGroup(name=ObjectName("all")),))
    for upgraded in range(301):
        status = RolloutStatus(observed_generation=1, phase=RolloutPhase.PROGRESSING, total=300, upgraded=upgraded)
        story.store(AgentRollout(metadata=Metadata(name=ObjectName("move"), generation=1), spec=spec, status=status))
    assert len(page.finished()) == 21
    assert page.finished()[-1].endswith("rollout move Progressing: 300/300")


def test_a_timeline_without_end_is_cut_and_says_so() -> None:
    journal = Journal()
    page = Timeline(FleetView((), journal), journal)
    for index in range(LONGEST + 7):
        journal.record(StepDone(Instant(index), index, "again"))
    assert len(page.finished()) == LONGEST + 1
    assert page.finished()[-1] == "… and 7 lines more"
