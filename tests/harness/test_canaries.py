"""Bugs planted in the production programs are caught in the virtual world, by the invariant that names them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fleet.contracts.time import ZERO
from fleet.operator.ports import OperatorConfig, OperatorTimings
from fleet.operator.rollout import Plan
from harness.progress import Silent
from harness.runner import Result, run_scenario
from harness.scenario import load
from harness.targets import registry
from harness.verdict import Held, Violated

UPGRADE = Path(__file__).parents[2] / "scenarios" / "rollout" / "two-hundred-in-tenths.toml"


def run() -> Result:
    return run_scenario(load(UPGRADE).cast(20), registry.target("sim"), 1, Silent())


def test_without_a_bug_the_scenario_holds() -> None:
    assert run().verdict == Held()


def test_an_operator_that_confirms_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = OperatorConfig(replace(OperatorTimings(), verify_heartbeats=1, verify_time=ZERO))
    monkeypatch.setattr(OperatorConfig.__init__, "__defaults__", (hasty.timings, hasty.replica))
    verdict = run().verdict
    assert isinstance(verdict, Violated)
    assert verdict.rule == "stop-only-after-verified"


def test_an_operator_that_gives_a_slot_to_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "room", lambda plan, device, wall: None)
    verdict = run().verdict
    assert isinstance(verdict, Violated)
    assert verdict.rule == "rollout-limits"
