"""A real agent is killed with -9 in each phase of a real upgrade; what it leaves on its disk is looked at each time.

Run it with `-s` to see what was found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleet.contracts.ids import DeviceId, Slot
from fleet.contracts.layout import Bucket, Valid, read
from fleet.contracts.records import InProgress, UpgradePhase, UpgradeState
from harness.progress import Silent
from harness.runner import run_scenario
from harness.scenario import load
from harness.targets.local import LocalTarget
from harness.verdict import Held
from sim.journal import AgentEnded, AgentStarted, CurrentRelease, Journal, KvStored, PhaseEntered, ReleasesOnDisk

pytestmark = pytest.mark.real

SCENARIO = Path(__file__).parents[3] / "scenarios/upgrade/killed-in-every-phase.toml"
KILLED = -9


@dataclass
class Found:
    """What was on a device between the end of a killed agent and the next start."""

    device: DeviceId
    slot: Slot
    phase: UpgradePhase | None
    current: CurrentRelease | None = None
    releases: ReleasesOnDisk | None = None
    back: AgentStarted | None = None


@dataclass
class Inspector:
    """Follows the journal of a run."""

    found: list[Found] = field(default_factory=list)
    phases: dict[str, UpgradePhase] = field(default_factory=dict)
    over: bool = False

    def attach(self, journal: Journal) -> None:
        journal.subscribe(KvStored, self.stored)
        journal.subscribe(AgentEnded, self.ended)
        journal.subscribe(CurrentRelease, self.current)
        journal.subscribe(ReleasesOnDisk, self.releases)
        journal.subscribe(AgentStarted, self.started)
        journal.subscribe(PhaseEntered, self.entered)

    def entered(self, event: PhaseEntered) -> None:
        """The end of the run takes the power of every device, which ends its agents in the same way."""
        self.over = self.over or event.phase == "tear-down"

    def stored(self, event: KvStored) -> None:
        if event.bucket is not Bucket.STATE or not event.key.endswith(".upgrade"):
            return
        known = read(event.bucket, event.key, event.value, event.revision)
        if isinstance(known, Valid) and isinstance(known.record, UpgradeState):
            status = known.record.status
            if isinstance(status, InProgress):
                self.phases[known.record.device] = status.phase

    def ended(self, event: AgentEnded) -> None:
        if event.code == KILLED and not self.over:
            self.found.append(Found(event.device, event.slot, self.phases.get(event.device)))

    def open(self, device: DeviceId) -> Found | None:
        return next((item for item in self.found if item.device == device and item.back is None), None)

    def current(self, event: CurrentRelease) -> None:
        item = self.open(event.device)
        if item is not None and item.current is None:
            item.current = event

    def releases(self, event: ReleasesOnDisk) -> None:
        item = self.open(event.device)
        if item is not None and item.releases is None:
            item.releases = event

    def started(self, event: AgentStarted) -> None:
        item = self.open(event.device)
        if item is not None and item.slot is event.slot:
            item.back = event


def test_an_agent_killed_in_any_phase_leaves_a_whole_device_and_comes_back() -> None:
    inspector = Inspector()
    cast = load(SCENARIO).cast(3)
    result = run_scenario(cast, LocalTarget(), 1, Silent(), inspector.attach)
    for item in inspector.found:
        print(told(item))
    assert isinstance(result.verdict, Held), result.reason
    assert result.faults_injected == len(UpgradePhase)
    assert sorted(item.phase or "" for item in inspector.found) == sorted(UpgradePhase)
    for item in inspector.found:
        assert item.current is not None
        assert item.current.release is not None, item.current.broken
        assert item.releases is not None
        assert item.current.release in item.releases.releases
        assert str(item.releases.releases[0].version) == "1.0.0"
        assert item.back is not None


def told(item: Found) -> str:
    """One line."""
    current = item.current.release if item.current is not None else None
    whole = [str(release) for release in item.releases.releases] if item.releases is not None else []
    back = f"back with {item.back.release} in slot {item.back.slot}" if item.back is not None else "not back"
    return f"{item.device} killed in {item.phase}: current {current}, whole {', '.join(whole)}; {back}"
