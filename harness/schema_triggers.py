"""When a step or fault happens: at a time of the run's clock, or at an event, which survives other hardware."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fleet.contracts.records import UpgradePhase
from fleet.contracts.time import ZERO
from harness.schema_base import DeviceRef, Length, Part, RolloutRef, StepRef, exactly_one
from harness.schema_facts import Fact


class PhaseEntered(Part):
    """A device reports that its upgrade has entered a phase: this `device`, or the `count`-th one to do so (1: any)."""

    event: Literal["upgrade-phase"]
    phase: UpgradePhase
    device: DeviceRef | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    after: Length = ZERO
    """Wait this long after the event."""

    def model_post_init(self, context: object) -> None:
        """Exactly one of the two forms."""
        exactly_one("device and count", self.device, self.count)


class RolloutReached(Part):
    """A rollout has upgraded this share of its devices."""

    event: Literal["rollout-progress"]
    rollout: RolloutRef
    percent: Annotated[int, Field(ge=1, le=100)]
    after: Length = ZERO
    """Wait this long after the event."""


class StepFinished(Part):
    """A step was carried out."""

    event: Literal["step-done"]
    step: StepRef
    after: Length = ZERO
    """Wait this long after the event."""


class Becomes(Part):
    """A fact holds for the first time since the drive began."""

    event: Literal["holds"]
    that: Fact
    after: Length = ZERO
    """Wait this long after the event."""


When = Annotated[PhaseEntered | RolloutReached | StepFinished | Becomes, Field(discriminator="event")]


class Triggered(Part):
    """Base of what happens at a time (`at`, counted from the beginning of the drive) or at an event (`when`)."""

    at: Length | None = None
    when: When | None = None
