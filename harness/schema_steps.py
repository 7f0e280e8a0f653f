"""What the people who run the fleet do in a scenario: they write objects, and they wait, one step after the other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeploymentName, ObjectName
from fleet.contracts.time import ZERO
from fleet.contracts.windows import MaintenanceWindows, Weekday, Window
from harness.schema_base import (
    EVERY_DEVICE,
    DeploymentRef,
    DeviceRef,
    GroupRef,
    Length,
    Part,
    ReleaseRef,
    RolloutRef,
    SecretRef,
    exactly_one,
)
from harness.schema_facts import Fact
from harness.schema_triggers import Triggered


class ContainerSpec(Part):
    """One container of a workload."""

    name: DeploymentName
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s]+$")]
    command: tuple[str, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)


class _Step(Triggered):
    def model_post_init(self, context: object) -> None:
        """A step without a trigger follows the one before it at once."""
        if self.at is not None and self.when is not None:
            exactly_one("at and when", self.at, self.when)


class Deploy(_Step):
    """Deploy a workload to a group, or change it when it is there."""

    do: Literal["deploy"]
    name: DeploymentName
    group: GroupRef = GroupRef(EVERY_DEVICE)
    containers: Annotated[tuple[ContainerSpec, ...], Field(min_length=1)]


class Undeploy(_Step):
    """Remove a workload from every device."""

    do: Literal["undeploy"]
    name: DeploymentRef


class Share(Part):
    """A number of devices of a group: a `count`, or a `percent` that is rounded down but at least one device."""

    count: Annotated[int, Field(ge=1)] | None = None
    percent: Annotated[int, Field(ge=1, le=100)] | None = None

    def model_post_init(self, context: object) -> None:
        """Exactly one of the two forms."""
        exactly_one("count and percent", self.count, self.percent)


class Tolerance(Part):
    """A number of devices of a group that may fail: a `count`, or a `percent` that is rounded down."""

    count: Annotated[int, Field(ge=0)] | None = None
    percent: Annotated[int, Field(ge=0, le=100)] | None = None

    def model_post_init(self, context: object) -> None:
        """Exactly one of the two forms."""
        exactly_one("count and percent", self.count, self.percent)


class WindowSpec(Part):
    """Slots may be given for `length` from `start` (`HH:MM` in the step's `time_zone`) on each of the `days`."""

    days: Annotated[tuple[Weekday, ...], Field(min_length=1)] = tuple(Weekday)
    start: str
    length: Length


class Upgrade(_Step):
    """Roll a release out to groups in order, under the name of a rollout; the same name again changes its plan."""

    do: Literal["upgrade"]
    name: ObjectName
    to: ReleaseRef
    groups: Annotated[tuple[GroupRef, ...], Field(min_length=1)] = (GroupRef(EVERY_DEVICE),)
    max_unavailable: Share = Share(percent=10)
    soak: Length = ZERO
    """Each group stays healthy for this long before the next one begins."""
    max_failed: Tolerance | None = None
    """More failures in one group halt the rollout; without it none do."""
    rollback_to: ReleaseRef | None = None
    """On a halt the group's devices that run the new release are brought to this one."""
    windows: tuple[WindowSpec, ...] = ()
    """Without any, slots are given at all times. Needs a target whose runs begin at a known time of day."""
    time_zone: str = "UTC"
    """The IANA name of the zone of the windows."""

    @property
    def maintenance(self) -> MaintenanceWindows | None:
        """The windows as a rollout has them; None when there are none."""
        if not self.windows:
            return None
        weekly = tuple(Window(days=spec.days, start=spec.start, length=spec.length) for spec in self.windows)
        return MaintenanceWindows(time_zone=self.time_zone, weekly=weekly)

    def model_post_init(self, context: object) -> None:
        """A group is upgraded once, and the windows are ones that a rollout can have."""
        super().model_post_init(context)
        try:
            _ = self.maintenance
        except ValidationError as error:
            raise InvalidValue(f"windows: {error.errors()[0]['msg']}") from None
        if len(set(self.groups)) != len(self.groups):
            raise InvalidValue("a group is named twice")


class Pause(_Step):
    """Let a rollout stand still: devices that hold an upgrade slot finish, no other one gets a slot."""

    do: Literal["pause"]
    rollout: RolloutRef


class Resume(_Step):
    """Let a paused rollout go on."""

    do: Literal["resume"]
    rollout: RolloutRef


class Abort(_Step):
    """End a rollout where it stands: devices that hold an upgrade slot finish, all others stay as they are."""

    do: Literal["abort"]
    rollout: RolloutRef


class Retry(_Step):
    """Ask for another try of the devices that failed, quarantined or not; lifts a halt, and an abort."""

    do: Literal["retry"]
    rollout: RolloutRef


class OnIdentity(_Step):
    """Base of the steps about identities: they need `fleet.logins = "token"`."""


class _OnOneIdentity(OnIdentity):
    device: DeviceRef


class Revoke(_OnOneIdentity):
    """Let a device in no more, and cut its connection off."""

    do: Literal["revoke"]


class ReEnroll(_OnOneIdentity):
    """Give a device that was revoked a new identity, and let it in again."""

    do: Literal["re-enroll"]


class RotateKey(_OnOneIdentity):
    """Give a device a new key, and take the old one away from it."""

    do: Literal["rotate-key"]


class Install(_Step):
    """Run the part of the installation again that makes the secrets that are missing and keeps the others.

    The first one is part of setting a run up. It is refused exactly while a secret is damaged, which ends no run.
    """

    do: Literal["install"]
    at_once: Annotated[int, Field(ge=1, le=9)] = 1
    """So many at the same time."""


class RotateSecret(_Step):
    """Make a new version of a secret. Nobody who uses it is told."""

    do: Literal["rotate-secret"]
    secret: SecretRef


class Reconcile(OnIdentity):
    """Bring the enrolments on the bus back into line with the identity provider."""

    do: Literal["reconcile"]


class Wait(_Step):
    """Wait for a `length` of time, or `until` a fact holds, which has to be `within` a time."""

    do: Literal["wait"]
    length: Length | None = None
    until: Fact | None = None
    within: Length | None = None

    def model_post_init(self, context: object) -> None:
        """Exactly one of the two forms, and a bound for the second."""
        super().model_post_init(context)
        exactly_one("length and until", self.length, self.until)
        if (self.until is None) != (self.within is None):
            raise InvalidValue("until and within go together")


AnyStep = (
    Deploy
    | Undeploy
    | Upgrade
    | Pause
    | Resume
    | Abort
    | Retry
    | Revoke
    | ReEnroll
    | RotateKey
    | Reconcile
    | Install
    | RotateSecret
    | Wait
)
Step = Annotated[AnyStep, Field(discriminator="do")]


def describe(step: AnyStep) -> str:
    """One line for people and for the journal."""
    match step:
        case Deploy():
            return f"deploy {step.name} to {step.group}"
        case Undeploy():
            return f"undeploy {step.name}"
        case Upgrade():
            return f"upgrade {', '.join(step.groups)} to {step.to} ({step.name})"
        case Pause() | Resume() | Abort() | Retry():
            return f"{step.do} {step.rollout}"
        case Revoke() | ReEnroll() | RotateKey():
            return f"{step.do} {step.device}"
        case Reconcile():
            return "reconcile the enrolments with the provider"
        case Install(at_once=1):
            return "install"
        case Install():
            return f"install, {step.at_once} at once"
        case RotateSecret():
            return f"rotate-secret {step.secret}"
        case Wait(length=None):
            assert step.until is not None
            return f"wait until {step.until.fact} holds, within {step.within}"
        case Wait():
            return f"wait {step.length}"
