"""A group that passes too early is seen by the invariant on the health gate, and one that may pass is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleet.contracts.ids import AttemptId, DeviceId, InstanceId, ObjectName, Slot
from fleet.contracts.objects import (
    AgentRollout,
    GroupPhase,
    GroupStatus,
    MaxFailed,
    Metadata,
    RolloutGroup,
    RolloutPhase,
    RolloutSpec,
    RolloutStatus,
    Selector,
)
from fleet.contracts.records import DeferredUpgrade, Health, Heartbeat, RefusedUpgrade, Role, Succeeded, UpgradePhase
from fleet.contracts.time import ZERO, Duration
from harness.invariants.health_gate import HealthGate
from harness.targets.scripted import BEAT, artefact_of, release_of
from sim.journal import FaultInjected, OperatorStarted
from tests.harness.test_invariants import Bench, make

ONE, TWO = PAIR = DeviceId("device-001"), DeviceId("device-002")
ATTEMPT = AttemptId(f"move-1-{release_of('1.1.0').sha256.short}")
SOAK = Duration.minutes(10)
HARD_TIMES = '[[faults]]\nfault = "cut-power"\ndevice = "device-001"\ndown = "5m"\nat = "1s"\n'


def rollout(bench: Bench, pair: GroupPhase, soak: Duration = SOAK, max_failed: MaxFailed | None = None) -> None:
    first = RolloutGroup(name=ObjectName("pair"), selector=Selector(match_labels={"group": "pair"}), soak=soak)
    spec = RolloutSpec(
        artefacts=(artefact_of("1.1.0"),),
        groups=(first, RolloutGroup(name=ObjectName("all"))),
        max_failed=max_failed,
    )
    groups = (GroupStatus(name=ObjectName("pair"), phase=pair), GroupStatus(name=ObjectName("all")))
    status = RolloutStatus(observed_generation=1, sequence=1, phase=RolloutPhase.PROGRESSING, groups=groups)
    bench.story.store(AgentRollout(metadata=Metadata(name=ObjectName("move"), generation=1), spec=spec, status=status))


def beat(bench: Bench, device: DeviceId, version: str = "1.1.0", healthy: int = 1) -> None:
    """The managing instance gives a sign."""
    instance: InstanceId = bench.story.instances[device, bench.story.slots[device]][0]
    health = Health(workloads=1, healthy=healthy, invalid_entries=0)
    bench.story.write(
        Heartbeat(
            instance=instance,
            slot=Slot.A,
            release=release_of(version),
            sent=bench.now,
            uptime=ZERO,
            role=Role.MANAGING,
            health=health,
        )
    )


def soak(bench: Bench, length: Duration, silent: DeviceId | None = None, ill: DeviceId | None = None) -> None:
    """Both devices beat for a while, but for what is said."""
    for _ in range(length // BEAT):
        bench.wait(BEAT)
        for device in PAIR:
            if device != silent:
                beat(bench, device, healthy=int(device != ill))


def begun(more: str = "") -> Bench:
    """Both devices were upgraded just now."""
    bench = make(HealthGate, more)
    rollout(bench, GroupPhase.OPEN)
    for device in PAIR:
        bench.story.report(device, ATTEMPT, "1.1.0", Succeeded())
        beat(bench, device)
    return bench


def passed(bench: Bench, max_failed: MaxFailed | None = None) -> str:
    """The group passes; answers what is said about that."""
    rollout(bench, GroupPhase.PASSED, max_failed=max_failed)
    return "; ".join(bench.found)


def test_a_whole_soak_in_good_health() -> None:
    bench = begun()
    soak(bench, SOAK)
    assert passed(bench) == ""


def test_a_soak_that_was_too_short() -> None:
    bench = begun()
    soak(bench, Duration.minutes(3))
    assert "pair passed 3m after device-001 was upgraded, its soak is 10m" in passed(bench)


@pytest.mark.parametrize("silent", [True, False])
def test_a_device_that_was_not_well_in_its_soak(silent: bool) -> None:
    bench = begun()
    soak(bench, Duration.minutes(4))
    soak(bench, Duration.minutes(4), silent=TWO if silent else None, ill=None if silent else TWO)
    soak(bench, Duration.minutes(3))
    words = "gave no sign for" if silent else "had a workload that does not run"
    assert f"in its soak of 10m device-002 {words}" in passed(bench)


def test_a_soak_that_began_again_when_all_were_well() -> None:
    bench = begun()
    soak(bench, Duration.minutes(8), silent=TWO)
    soak(bench, Duration.minutes(4), ill=ONE)
    soak(bench, SOAK)
    assert passed(bench) == ""


def test_one_bad_sign_alone_may_not_have_been_seen() -> None:
    bench = begun()
    soak(bench, Duration.minutes(5))
    soak(bench, BEAT, ill=TWO)
    soak(bench, Duration.minutes(5))
    assert passed(bench) == ""


@pytest.mark.parametrize(("more", "found"), [(0, True), (30, False)])
def test_as_many_ailing_devices_as_may_fail_pass_when_patience_is_over(more: int, found: bool) -> None:
    bench = begun()
    soak(bench, Duration.minutes(10 + more), ill=ONE)
    assert bool(passed(bench, MaxFailed(count=1))) is found


def test_what_happened_while_no_operator_looked_is_not_held_against_it() -> None:
    bench = begun()
    soak(bench, Duration.minutes(8), ill=TWO)
    bench.journal.record(OperatorStarted(bench.now, 0))
    soak(bench, Duration.minutes(5))
    assert passed(bench) == ""


def test_a_fault_of_a_device_is_no_excuse() -> None:
    bench = begun(HARD_TIMES)
    soak(bench, Duration.minutes(8), silent=ONE)
    bench.journal.record(FaultInjected(bench.now, 1, "cut-power", "device-001"))
    soak(bench, Duration.minutes(5))
    assert "device-001 gave no sign" in passed(bench)


def nothing(bench: Bench) -> None:
    """It only gives signs of life."""


def running(bench: Bench) -> None:
    """It runs the release already."""
    beat(bench, TWO)


def deferred(number: str) -> Callable[[Bench], None]:
    status = DeferredUpgrade(phase=UpgradePhase.DRAINING, reason="busy")
    return lambda bench: bench.story.report(TWO, ATTEMPT + number, "1.1.0", status)


def refused(bench: Bench) -> None:
    bench.story.report(TWO, ATTEMPT, "1.1.0", RefusedUpgrade(phase=UpgradePhase.STAGING, reason="full"))


def of_another(bench: Bench) -> None:
    bench.story.report(TWO, ATTEMPT.replace("move-1", "move-0"), "1.1.0", Succeeded())


@pytest.mark.parametrize(
    ("what", "found"),
    [
        (nothing, True),
        (running, False),
        (deferred(""), True),
        (deferred("-r3"), False),
        (refused, False),
        (of_another, True),
    ],
    ids=["nothing", "runs-it", "deferred", "deferred-for-good", "refused", "of-another-rollout"],
)
def test_who_is_done(what: Callable[[Bench], None], found: bool) -> None:
    bench = make(HealthGate)
    rollout(bench, GroupPhase.OPEN)
    bench.story.report(ONE, ATTEMPT, "1.1.0", Succeeded())
    beat(bench, TWO, "1.0.0")
    what(bench)
    for _ in range(20):
        bench.wait(BEAT)
        beat(bench, ONE)
    beat(bench, TWO, "1.1.0" if what is running else "1.0.0")
    bench.wait(BEAT * 3)
    assert ("pair of move passed before device-002 was done" in passed(bench)) is found


def test_a_device_that_is_away_is_done() -> None:
    bench = make(HealthGate)
    rollout(bench, GroupPhase.OPEN)
    bench.story.report(ONE, ATTEMPT, "1.1.0", Succeeded())
    beat(bench, TWO, "1.0.0")
    for _ in range(20):
        bench.wait(BEAT)
        beat(bench, ONE)
    assert passed(bench) == ""
    beat(bench, TWO, "1.0.0")
    rollout(bench, GroupPhase.OPEN)
    bench.wait(Duration.minutes(2))
    rollout(bench, GroupPhase.PASSED)
    assert "before device-002 was done" in bench.found[0]
