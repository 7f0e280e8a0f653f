"""Each slot that a rollout may not give is seen by the invariant on rollout limits, and each that it may is not."""

from __future__ import annotations

import pytest

from fleet.contracts.ids import AttemptId, DeviceId, ObjectName
from fleet.contracts.objects import (
    AgentRollout,
    GroupPhase,
    GroupStatus,
    Metadata,
    RollBackGroup,
    RolloutGroup,
    RolloutPhase,
    RolloutSpec,
    RolloutStatus,
    Selector,
)
from fleet.contracts.records import DesiredAgent
from fleet.contracts.time import Duration, Instant
from fleet.contracts.windows import MaintenanceWindows, Window
from harness.invariants.rollout_limits import RolloutLimits
from harness.targets.scripted import artefact_of, release_of
from tests.harness.test_invariants import Bench, make

PAIR, OTHER = DeviceId("device-001"), DeviceId("device-003")
NOON = Instant(1_790_000_000 * 10**9 - 8000 * 10**9)  # 12:00 UTC
HOUR = Duration.minutes(60)
MORNINGS = MaintenanceWindows(time_zone="UTC", weekly=(Window(start="06:00", length=HOUR),))
BACK = RollBackGroup(artefacts=(artefact_of("1.0.0"),))


def rollout(
    bench: Bench,
    phase: RolloutPhase,
    first: GroupPhase,
    second: GroupPhase,
    windows: MaintenanceWindows | None = None,
    generation: int = 1,
) -> None:
    pair = RolloutGroup(
        name=ObjectName("pair"), selector=Selector(match_labels={"group": "pair"}), soak=Duration.minutes(10)
    )
    spec = RolloutSpec(
        artefacts=(artefact_of("1.1.0"),),
        groups=(pair, RolloutGroup(name=ObjectName("all"))),
        windows=windows,
        on_halt=BACK,
    )
    groups = (GroupStatus(name=ObjectName("pair"), phase=first), GroupStatus(name=ObjectName("all"), phase=second))
    status = RolloutStatus(observed_generation=generation, sequence=1, phase=phase, groups=groups)
    metadata = Metadata(name=ObjectName("move"), generation=generation)
    bench.story.store(AgentRollout(metadata=metadata, spec=spec, status=status))


def grant(bench: Bench, device: DeviceId, version: str = "1.1.0") -> None:
    artefact = artefact_of(version)
    attempt = AttemptId(f"move-1-{release_of(version).sha256.short}")
    bench.story.write(DesiredAgent(device=device, attempt=attempt, artefact=artefact, granted=NOON))


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (RolloutPhase.PAUSED, "while its rollout is Paused"),
        (RolloutPhase.HALTED, "while its rollout is Halted"),
        (RolloutPhase.ABORTED, "while its rollout is Aborted"),
        (RolloutPhase.REFUSED, "while its rollout is Refused"),
        (RolloutPhase.ROLLED_BACK, "while its rollout is RolledBack"),
        (RolloutPhase.PROGRESSING, ""),
        (RolloutPhase.COMPLETE, ""),
    ],
)
def test_a_slot_in_a_phase(phase: RolloutPhase, words: str) -> None:
    bench = make(RolloutLimits)
    rollout(bench, phase, GroupPhase.OPEN, GroupPhase.WAITING)
    bench.wait(HOUR)
    grant(bench, PAIR)
    assert words in "".join(bench.found)
    assert bool(bench.found) is bool(words)


def test_a_slot_that_was_on_its_way_when_the_rollout_was_paused() -> None:
    bench = make(RolloutLimits)
    rollout(bench, RolloutPhase.PROGRESSING, GroupPhase.OPEN, GroupPhase.WAITING)
    bench.wait(HOUR)
    rollout(bench, RolloutPhase.PAUSED, GroupPhase.OPEN, GroupPhase.WAITING)
    bench.wait(Duration.seconds(5))
    grant(bench, PAIR)
    assert bench.found == []


def test_the_slot_of_a_way_back_is_for_the_halted_group_alone() -> None:
    bench = make(RolloutLimits)
    rollout(bench, RolloutPhase.ROLLING_BACK, GroupPhase.HALTED, GroupPhase.WAITING)
    bench.wait(HOUR)
    grant(bench, PAIR, "1.0.0")
    assert bench.found == []
    grant(bench, OTHER, "1.0.0")
    assert len(bench.found) == 1


def test_a_slot_before_the_turn_of_its_group() -> None:
    bench = make(RolloutLimits)
    rollout(bench, RolloutPhase.PROGRESSING, GroupPhase.SOAKING, GroupPhase.WAITING)
    bench.wait(HOUR)
    grant(bench, PAIR)
    assert bench.found == []
    grant(bench, OTHER)
    assert "although group pair has not passed" in bench.found[0]


def test_a_slot_outside_the_windows() -> None:
    bench = make(RolloutLimits)
    rollout(bench, RolloutPhase.PROGRESSING, GroupPhase.OPEN, GroupPhase.WAITING, MORNINGS)
    bench.wait(HOUR)
    grant(bench, PAIR)
    assert "outside the maintenance windows" in bench.found[0]


def test_windows_count_from_the_first_moment_and_new_ones_after_what_was_on_its_way() -> None:
    bench = make(RolloutLimits)
    rollout(bench, RolloutPhase.PROGRESSING, GroupPhase.OPEN, GroupPhase.WAITING, MORNINGS)
    grant(bench, PAIR)
    assert "outside the maintenance windows" in bench.found[0]
    changed = make(RolloutLimits)
    rollout(changed, RolloutPhase.PROGRESSING, GroupPhase.OPEN, GroupPhase.WAITING)
    changed.wait(HOUR)
    rollout(changed, RolloutPhase.PROGRESSING, GroupPhase.OPEN, GroupPhase.WAITING, MORNINGS, generation=2)
    grant(changed, PAIR)
    assert changed.found == []
    changed.wait(HOUR)
    grant(changed, DeviceId("device-002"))
    assert "outside the maintenance windows" in changed.found[0]
