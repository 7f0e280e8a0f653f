"""The agent on virtual machines: killed, cut off and switched off at every point of an upgrade, it comes out right.

Each case is a scenario of its own with the production operator on the other side; all invariants are judged.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.contracts.ids import DeviceId
from harness.progress import Silent
from harness.runner import Result, run_scenario
from harness.scenario import parse
from harness.targets import registry
from harness.verdict import Held
from sim.journal import ContainerStarted, Event, FaultHealed, Journal, PowerRestored

BASE = """
schema = 1
installed = "1.0.0"

[scenario]
name = "case"
proves = "A device comes out of it right."

[fleet]
devices = 3

[[releases]]
version = "1.0.0"

[[releases]]
version = "1.1.0"
{defect}

[[steps]]
do = "deploy"
name = "web"
containers = [{{ name = "front", image = "registry.example/front:1" }}]

[[steps]]
do = "wait"
until = {{ fact = "workload", deployment = "web", condition = "ready", over = "all" }}
within = "10m"

[[steps]]
do = "upgrade"
name = "move"
to = "1.1.0"

[[steps]]
do = "wait"
until = {{ fact = "rollout", rollout = "move", phase = "{end}" }}
within = "6h"

[[checks]]
check = "final"
that = {{ fact = "release", release = "{release}", over = "all" }}

[[checks]]
check = "final"
that = {{ fact = "workload", deployment = "web", condition = "ready", over = "all" }}
"""
GOOD = BASE.format(defect="", end="Complete", release="1.1.0")

KILL_MANAGING = 'fault = "kill-agent"\ndevice = "device-001"\nslot = "managing"'
KILL_STANDBY = 'fault = "kill-agent"\ndevice = "device-001"\nslot = "standby"'
POWER = 'fault = "cut-power"\ndevice = "device-001"\ndown = "30s"'
CUT_OFF = 'fault = "partition"\ndevices = ["device-001"]\nlength = "9m"'
OPERATOR = 'fault = "kill-operator"\ndown = "{down}"'


def at(fault: str, phase: str, after: str) -> str:
    """A fault at a point of the first device's upgrade."""
    when = f'{{ event = "upgrade-phase", phase = "{phase}", device = "device-001", after = "{after}" }}'
    return f"\n[[faults]]\n{fault}\nwhen = {when}\n"


def run(text: str, seed: int = 1, journal: list[Event] | None = None) -> Result:
    """Run it on virtual machines."""

    def listen(seen: Journal) -> None:
        if journal is not None:
            seen.subscribe_all(journal.append)

    cast = parse(text, Path("case.toml")).cast()
    return run_scenario(cast, registry.target("sim"), seed, Silent(), listen)


@pytest.mark.parametrize("phase", ["locking", "draining", "staging", "testing", "swapping", "overlapping"])
@pytest.mark.parametrize("fault", [KILL_MANAGING, POWER, CUT_OFF], ids=["kill", "power", "cut-off"])
def test_a_fault_in_every_phase(phase: str, fault: str) -> None:
    result = run(GOOD + at(fault, phase, "200ms"))
    assert isinstance(result.verdict, Held), result.verdict


@pytest.mark.parametrize("after", ["2s", "25s", "50s"])
@pytest.mark.parametrize("fault", [KILL_MANAGING, KILL_STANDBY, POWER, CUT_OFF], ids=["old", "new", "power", "cut-off"])
def test_a_fault_late_in_the_overlap(fault: str, after: str) -> None:
    result = run(GOOD + at(fault, "overlapping", after), seed=3)
    assert isinstance(result.verdict, Held), result.verdict


def test_both_instances_die_at_once() -> None:
    both = [KILL_MANAGING.replace("managing", slot) for slot in "ab"]
    result = run(GOOD + "".join(at(fault, "overlapping", "40s") for fault in both))
    assert isinstance(result.verdict, Held), result.verdict


@pytest.mark.parametrize("down", ["4m", "20m"])
def test_no_release_is_condemned_while_the_operator_is_away(down: str) -> None:
    result = run(GOOD + at(OPERATOR.format(down=down), "overlapping", "30s"))
    assert isinstance(result.verdict, Held), result.verdict


@pytest.mark.parametrize("fault", ["", at(KILL_MANAGING, "overlapping", "8s"), at(POWER, "overlapping", "8s")])
def test_a_release_that_crashes_never_stays(fault: str) -> None:
    text = BASE.format(defect='defect = "crashes-at-start"', end="Failed", release="1.0.0")
    result = run(text + fault)
    assert isinstance(result.verdict, Held), result.verdict


def test_a_device_that_boots_without_a_network_runs_what_it_ran() -> None:
    started = '{ event = "step-done", step = 2, after = "%s" }'
    partition = f"\n[[faults]]\n{CUT_OFF}\nwhen = {started % '1s'}\n"
    power = f"\n[[faults]]\n{POWER}\nwhen = {started % '10s'}\n"
    journal: list[Event] = []
    result = run(GOOD + partition + power, journal=journal)
    assert isinstance(result.verdict, Held), result.verdict
    booted = next(
        index for index, event in enumerate(journal) if isinstance(event, PowerRestored) and event.at > 0 and index > 50
    )
    healed = max(index for index, event in enumerate(journal) if isinstance(event, FaultHealed))
    between = [event for event in journal[booted:healed] if isinstance(event, ContainerStarted)]
    assert DeviceId("device-001") in [event.device for event in between]
