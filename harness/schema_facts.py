"""The facts a scenario can speak about: typed predicates over what is observable, with explicit quantifiers.

Values only; `harness.checks` says whether one holds. There is no expression
language: a new question is a new type here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fleet.contracts.errors import InvalidValue
from fleet.contracts.objects import DevicePhase, GroupPhase, RolloutPhase
from fleet.contracts.records import UpgradePhase
from harness.schema_base import (
    EVERY_DEVICE,
    DeploymentRef,
    DeviceRef,
    GroupRef,
    Part,
    ReleaseRef,
    RolloutRef,
    SecretRef,
    exactly_one,
)

_Number = Annotated[int, Field(ge=0)]


class Count(Part):
    """A number of devices, or of whatever else a fact counts: `count` means exactly that many."""

    count: _Number | None = None
    at_least: _Number | None = None
    at_most: _Number | None = None

    def model_post_init(self, context: object) -> None:
        """Exactly one of the three forms."""
        exactly_one("count, at_least and at_most", self.count, self.at_least, self.at_most)


Quantifier = Literal["all", "any"] | Count


class DeviceFact(Part):
    """Something that is true or not of each device, and how many have to make it true."""

    over: Quantifier
    """`all`, `any`, `{ count = n }`, `{ at_least = n }` or `{ at_most = n }`."""
    group: GroupRef | None = None
    """Only these devices; without `group` and `devices`, every device."""
    devices: Annotated[tuple[DeviceRef, ...], Field(min_length=1)] | None = None

    def model_post_init(self, context: object) -> None:
        """A group and a list of devices would be two answers to one question."""
        if self.group is not None and self.devices is not None:
            exactly_one("group and devices", self.group, self.devices)

    @property
    def where(self) -> str:
        """For people: which devices are meant."""
        if self.devices is not None:
            return ", ".join(self.devices)
        return f"group {self.group}" if self.group not in (None, EVERY_DEVICE) else "every device"


class DevicePhaseIs(DeviceFact):
    """The operator's verdict on the device's heartbeats, from its `Device` object."""

    fact: Literal["device-phase"]
    phase: DevicePhase


class ReleaseIs(DeviceFact):
    """The version of the instance that manages the device (holds its host lock)."""

    fact: Literal["release"]
    release: ReleaseRef


class WorkloadIs(DeviceFact):
    """`ready`: all containers run and the device reports the newest desired revision. `absent`: nothing is left."""

    fact: Literal["workload"]
    deployment: DeploymentRef
    condition: Literal["ready", "absent"]


class UpgradeIs(DeviceFact):
    """The status of the device's latest reported upgrade attempt; with `release`, only if it was for that version.

    With `phase`, only if it is in that phase or ended in it.
    """

    fact: Literal["upgrade"]
    status: Literal["in-progress", "succeeded", "rolled-back", "refused", "deferred"]
    release: ReleaseRef | None = None
    phase: UpgradePhase | None = None

    def model_post_init(self, context: object) -> None:
        """A success has no phase."""
        super().model_post_init(context)
        if self.status == "succeeded" and self.phase is not None:
            raise InvalidValue("an upgrade that succeeded is in no phase: leave `phase` out")


class Quarantined(DeviceFact):
    """The device has reported that it rolled this release back, which condemns it there."""

    fact: Literal["quarantined"]
    release: ReleaseRef


class IsCloned(DeviceFact):
    """The operator says that two machines have the device's identity, in its `Device` object."""

    fact: Literal["cloned"]


class InvalidEntries(DeviceFact):
    """The managing instance's newest heartbeat counts at least this many bad entries. Only in `final` checks."""

    fact: Literal["invalid-entries"]
    at_least: Annotated[int, Field(ge=1)]


class RolloutIs(Part):
    """The phase of a rollout at its newest generation."""

    fact: Literal["rollout"]
    rollout: RolloutRef
    phase: RolloutPhase


class RolloutCounts(Part):
    """Of how many devices a rollout says that they were upgraded, or that they failed, at its newest generation.

    `over` is about all devices that the rollout selects. One that fell back after its success counts as failed.
    """

    fact: Literal["rollout-devices"]
    rollout: RolloutRef
    standing: Literal["upgraded", "failed"]
    over: Quantifier


class RolloutGroupIs(Part):
    """Where a group of a rollout stands, at the rollout's newest generation."""

    fact: Literal["rollout-group"]
    rollout: RolloutRef
    group: GroupRef
    phase: GroupPhase


class OperatorIs(Part):
    """Whether an operator process runs."""

    fact: Literal["operator"]
    state: Literal["running", "down"]


class OperatorStarts(Part):
    """How often operator processes have been started, the first time included: all of them, or one replica."""

    fact: Literal["operator-starts"]
    count: Annotated[int, Field(ge=1)]
    replica: _Number | None = None


class LeaderIs(Part):
    """The operator replica that the lease names, as long as it runs."""

    fact: Literal["leader"]
    replica: _Number | Literal["any", "none"]


class SecretsMade(Part):
    """How many secrets the installations of this run have made in all, the one of the set-up included."""

    fact: Literal["secrets-made"]
    over: Count


class InstallsKept(Part):
    """How many installations made nothing, because every secret stood."""

    fact: Literal["installs-kept"]
    over: Count


class InstallsRefused(Part):
    """How many installations were refused; with `secret`, with an error that names this one."""

    fact: Literal["installs-refused"]
    over: Count
    secret: SecretRef | None = None


FleetFact = (
    RolloutIs
    | RolloutCounts
    | RolloutGroupIs
    | OperatorIs
    | OperatorStarts
    | LeaderIs
    | SecretsMade
    | InstallsKept
    | InstallsRefused
)
PerDeviceFact = DevicePhaseIs | ReleaseIs | WorkloadIs | UpgradeIs | Quarantined | IsCloned | InvalidEntries
Fact = Annotated[
    DevicePhaseIs
    | ReleaseIs
    | WorkloadIs
    | UpgradeIs
    | Quarantined
    | IsCloned
    | InvalidEntries
    | RolloutIs
    | RolloutCounts
    | RolloutGroupIs
    | OperatorIs
    | OperatorStarts
    | LeaderIs
    | SecretsMade
    | InstallsKept
    | InstallsRefused,
    Field(discriminator="fact"),
]
