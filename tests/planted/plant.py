"""What a planted bug is, and how it is tried: the production code runs with one small patch, in the virtual world.

The judges know nothing of the patches. A bug counts as caught when the run ends as violated, stuck or crashed, and by
a check that the bug names. What nothing catches fails the build: then a promise is judged by nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, assert_never

import pytest

from fleet.contracts.time import Duration
from harness.crashpoints import OPERATOR, Aim, Point, prepared, run_with
from harness.progress import Silent
from harness.runner import Result, run_scenario
from harness.scenario import Cast, load, parse
from harness.schema_steps import Wait
from harness.targets.sim import SimTarget
from harness.verdict import Crashed, HarnessBroken, Held, NotApplicable, Stuck, Verdict, Violated
from sim.loop import quiet_collector

SCENARIOS: Final = Path(__file__).parents[2] / "scenarios"
SEED: Final = 1
DRAWS: Final = 2
"""Draws of what the disk keeps that are tried where a bug shows only after a crash."""
ENOUGH: Final = Duration.minutes(40)
"""Nothing that is waited for in a run without a bug takes longer: a run that will never get there is ended early."""

Patch = pytest.MonkeyPatch
STUCK: Final = "stuck"
CRASHED: Final = "crashed"
CHECK: Final = "check"
"""Any check of the scenario's own."""


@dataclass(frozen=True)
class Bug:
    """A bug as data.

    `scenario`: a file below `scenarios/`, or the text of one. `caught_by`: rules that may catch it: invariants,
    `CHECK`, `STUCK`, `CRASHED`. `cut`: crash at the first operation of this name (`power …`, `kill …`; `kill! …` for
    the operator), or with `#2` behind it at the second one, because without a crash the bug does not show.
    `shows_secrets`: the bug is that it does, so that the tests see it, too.
    """

    name: str
    stands_for: str
    scenario: str
    caught_by: tuple[str, ...]
    plant: Callable[[Patch], None]
    devices: int = 3
    cut: str = ""
    shows_secrets: bool = False

    @property
    def stage(self) -> tuple[str, int, str]:
        """What is run, without the bug."""
        return self.scenario, self.devices, self.cut


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one bug."""

    bug: Bug
    verdict: Verdict
    simulated_s: float
    cpu_s: float

    @property
    def caught_by(self) -> str:
        """The rule that caught it, in one word; empty when nothing did."""
        match self.verdict:
            case Violated(rule):
                return CHECK if rule.startswith("check ") else rule
            case Stuck():
                return STUCK
            case Crashed():
                return CRASHED
            case Held() | NotApplicable() | HarnessBroken():
                return ""
            case _:
                assert_never(self.verdict)

    @property
    def caught(self) -> bool:
        """Whether a check caught it that may."""
        return self.caught_by in self.bug.caught_by


@lru_cache
def cast_of(scenario: str, devices: int) -> Cast:
    """The scenario with its devices, and with the patience of somebody who knows how long it takes."""
    if scenario.endswith(".toml"):
        return _hurried(load(SCENARIOS / scenario).cast(devices))
    return _hurried(parse(scenario, Path("planted.toml")).cast(devices))


def _hurried(cast: Cast) -> Cast:
    scenario, about = cast.scenario, cast.scenario.scenario
    waits = tuple(
        step.model_copy(update={"within": min(step.within, ENOUGH)})
        if isinstance(step, Wait) and step.within is not None
        else step
        for step in scenario.steps
    )
    hurried = about.model_copy(update={"converge_within": min(about.converge_within, ENOUGH // 2)})
    return replace(cast, scenario=scenario.model_copy(update={"scenario": hurried, "steps": waits}))


def run_stage(stage: tuple[str, int, str]) -> Result:
    """Run what a bug is planted into, as the code stands now. With a cut: the first draw that does not hold."""
    scenario, devices, cut = stage
    cast = cast_of(scenario, devices)
    with quiet_collector():
        if not cut:
            return run_scenario(cast, SimTarget(), SEED, Silent())
        return _cut_off(prepared(cast), cut)


def _cut_off(cast: Cast, cut: str) -> Result:
    kind, _, what = cut.partition(" ")
    name, _, number = what.partition("#")
    who = OPERATOR if kind.endswith("!") else cast.devices[0]
    undisturbed, operations = run_with(cast, who, SEED, ())
    found = [item for item in operations if (item.kind, item.name) == (kind.rstrip("!"), name)]
    place = int(number or 1) - 1
    result = undisturbed.result
    if place >= len(found) or not isinstance(result.verdict, Held):
        return result
    for draw in range(DRAWS if found[place].kind == "power" else 1):
        aim = Aim(Point(found[place].kind, found[place].ordinal, draw), name)
        result = run_with(cast, who, SEED, (aim,))[0].result
        if not isinstance(result.verdict, Held):
            break
    return result


def attempt(bug: Bug) -> Outcome:
    """Plant a bug, run, and dig it out again."""
    began = time.process_time()
    with Patch.context() as patch:
        bug.plant(patch)
        result = run_stage(bug.stage)
    return Outcome(bug, result.verdict, result.simulated_s, time.process_time() - began)


def line(outcome: Outcome) -> str:
    """The bug, what caught it, and how long that took."""
    by = outcome.caught_by or "NOTHING"
    by = by if outcome.caught else f"{by} (not among {', '.join(outcome.bug.caught_by)})"
    return f"{outcome.bug.name:48}  {by:40}  {outcome.simulated_s:7.0f} s  {outcome.cpu_s:5.2f} s"
