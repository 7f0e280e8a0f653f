"""The objects people write: `Device`, `Deployment`, `AgentRollout` (group `fleet.nationtech.io/v1alpha1`).

The same pydantic models stand behind every implementation of the Kubernetes port; structural CRD schemas
are generated from them. Wire names are camelCase, as Kubernetes users expect. `resource_version` is
opaque and compared for equality only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import BootId, DeviceId, ObjectName, Percent, Release, Sha256
from fleet.contracts.parts import Part as _Part
from fleet.contracts.podman import PodmanScore
from fleet.contracts.records import Artefact, Text
from fleet.contracts.time import ZERO, Duration, Instant
from fleet.contracts.windows import MaintenanceWindows

GROUP_VERSION: Final = "fleet.nationtech.io/v1alpha1"


class Metadata(_Part):
    """Name, labels and what the store adds. `generation` grows with each change of the spec."""

    name: ObjectName
    labels: dict[str, str] = Field(default_factory=dict)
    resource_version: str = ""
    generation: int = 0
    uid: str = ""


class Selector(_Part):
    """Devices whose labels include every pair. An empty selector selects every device."""

    match_labels: dict[str, str] = Field(default_factory=dict)

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether a device with these labels is selected."""
        return all(labels.get(name) == value for name, value in self.match_labels.items())


class Object(_Part):
    """Base of the objects. Subclasses pin `kind` and add `spec` and `status`."""

    kind_name: ClassVar[str]
    api_version: Literal["fleet.nationtech.io/v1alpha1"] = GROUP_VERSION
    metadata: Metadata

    @property
    def name(self) -> ObjectName:
        """The object's name."""
        return self.metadata.name

    def changed(self, **parts: object) -> Self:
        """A copy with some top-level parts replaced (`spec=…`, `status=…`, `metadata=…`), already valid ones."""
        return self.model_copy(update=parts)


class DevicePhase(StrEnum):
    """What the operator makes of a device's heartbeats."""

    PENDING = "Pending"
    READY = "Ready"
    STALE = "Stale"


class DeviceSpec(_Part):
    """Nothing but being there: a device that has no object is unknown to the fleet."""


class Cloned(_Part):
    """Since when (the operator's clock) two machines are heard under the identity of one device, and their boots then.

    `/proc/sys/kernel/random/boot_id` says on a machine which of them it is, for as long as it is not restarted.
    """

    since: Instant
    boots: tuple[BootId, ...]


class DeviceStatus(_Part):
    """Changes only when one of its fields changes, never with each heartbeat.

    While the device is `cloned`, `release` stays as it was: the two machines may run different ones.
    """

    phase: DevicePhase = DevicePhase.PENDING
    release: Release | None = None
    since: Instant | None = None
    cloned: Cloned | None = None


class Device(Object):
    """A device of the fleet. Its object name is its `DeviceId`."""

    kind_name: ClassVar[str] = "Device"
    kind: Literal["Device"] = "Device"
    spec: DeviceSpec = DeviceSpec()
    status: DeviceStatus = DeviceStatus()

    @property
    def device(self) -> DeviceId:
        """The device's id."""
        return DeviceId(self.metadata.name)


class DeploymentSpec(_Part):
    """A workload for every selected device."""

    selector: Selector = Selector()
    score: PodmanScore


class DeploymentStatus(_Part):
    """`desired` devices shall run it, `ready` run it healthily at its current revision."""

    observed_generation: int = 0
    desired: int = 0
    ready: int = 0


class Deployment(Object):
    """A workload on a set of devices."""

    kind_name: ClassVar[str] = "Deployment"
    kind: Literal["Deployment"] = "Deployment"
    spec: DeploymentSpec
    status: DeploymentStatus = DeploymentStatus()


class MaxUnavailable(_Part):
    """How many devices of a group may be in an upgrade at once: a count or a share, never both.

    A share is rounded down, but is at least one: a rollout that may touch nothing would never end.
    """

    count: Annotated[int, Field(ge=1)] | None = None
    percent: Percent | None = None

    def model_post_init(self, context: object) -> None:
        """Exactly one of the two forms."""
        if (self.count is None) == (self.percent is None):
            raise InvalidValue("give either count or percent")

    def limit(self, total: int) -> int:
        """The number of devices, for a group of `total`."""
        if self.count is not None:
            return self.count
        assert self.percent is not None
        return max(1, self.percent.of(total))


class MaxFailed(_Part):
    """How many devices of a group may fail: a count or a share of the group, rounded down. One more is a halt."""

    count: Annotated[int, Field(ge=0)] | None = None
    percent: Percent | None = None

    def model_post_init(self, context: object) -> None:
        """Exactly one of the two forms."""
        if (self.count is None) == (self.percent is None):
            raise InvalidValue("give either count or percent")

    def limit(self, total: int) -> int:
        """The number of devices, for a group of `total`."""
        if self.count is not None:
            return self.count
        assert self.percent is not None
        return self.percent.of(total)


class RolloutGroup(_Part):
    """Devices that are upgraded together.

    Once all of them are done the group has to stay healthy for `soak` before the next one opens: no device that this
    rollout upgraded in it is stale, has fallen back or has an unhealthy workload.
    """

    name: ObjectName
    selector: Selector = Selector()
    max_unavailable: MaxUnavailable = MaxUnavailable(percent=Percent(10))
    soak: Annotated[Duration, Field(ge=0, le=int(Duration.minutes(90 * 24 * 60)))] = ZERO


class HaltOnly(_Part):
    """On a halt, give no more slots: every device stays with what it runs."""

    action: Literal["halt"] = "halt"


class RollBackGroup(_Part):
    """On a halt, give no more slots, and bring the halted group's devices that run the new release to this one."""

    action: Literal["roll-back-group"] = "roll-back-group"
    artefacts: Annotated[tuple[Artefact, ...], Field(min_length=1)]


OnHalt = Annotated[HaltOnly | RollBackGroup, Field(discriminator="action")]


class RunState(StrEnum):
    """What a person wants of a rollout: to go on, to stand still, or never to go on."""

    RUNNING = "running"
    PAUSED = "paused"
    ABORTED = "aborted"


class RolloutSpec(_Part):
    """A release (one artefact per architecture, all of one version) for groups of devices, in order.

    Without `max_failed` no number of failures halts it. Without `windows` it goes on at any time. Raising `retry` asks
    for another try of the devices that failed, also of those that quarantined the release, and lifts a halt.
    """

    artefacts: Annotated[tuple[Artefact, ...], Field(min_length=1)]
    groups: Annotated[tuple[RolloutGroup, ...], Field(min_length=1)]
    max_failed: MaxFailed | None = None
    on_halt: OnHalt = HaltOnly()
    windows: MaintenanceWindows | None = None
    run: RunState = RunState.RUNNING
    retry: Annotated[int, Field(ge=0)] = 0


class RolloutPhase(StrEnum):
    """Where a rollout stands. See `ENDED` for the phases in which it is over until a person asks for more."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    REFUSED = "Refused"
    """It names devices that another rollout, which has not ended, names too. Goes on when that one has ended."""
    PAUSED = "Paused"
    HALTED = "Halted"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    COMPLETE = "Complete"
    FAILED = "Failed"


ENDED: Final = (
    RolloutPhase.HALTED,
    RolloutPhase.ROLLED_BACK,
    RolloutPhase.ABORTED,
    RolloutPhase.COMPLETE,
    RolloutPhase.FAILED,
)
"""Terminal: nothing more happens by itself, but that devices that were away follow what was decided. Another rollout
may have the devices."""


class GroupPhase(StrEnum):
    """Where a group of a rollout stands."""

    WAITING = "Waiting"
    OPEN = "Open"
    SOAKING = "Soaking"
    PASSED = "Passed"
    HALTED = "Halted"


class GroupStatus(_Part):
    """A group of a rollout. `done`: when its last device was done; `healthy`: since when it has been healthy as well.

    `offline` counts the devices that are passed over: those away, and those that two machines are (see `Cloned`).

    This is the operator's memory too: a group opens, and a halt holds, because it stands here.
    """

    name: ObjectName
    phase: GroupPhase = GroupPhase.WAITING
    total: int = 0
    upgraded: int = 0
    failed: int = 0
    offline: int = 0
    done: Instant | None = None
    healthy: Instant | None = None


class RolloutStatus(_Part):
    """Device counts over all groups; `failed` counts devices whose attempt ended otherwise than in success.

    `sequence` numbers the beginnings of all rollouts; the attempts of a beginning carry it in their names. Pausing or
    another plan keeps it; another release, a raised `retry`, or a change after the end is a new beginning. `retry` and
    `releases` say what it was begun for, `lifts` that devices shall try a release again that they quarantined.
    """

    observed_generation: int = 0
    sequence: int = 0
    retry: int = 0
    releases: tuple[Sha256, ...] = ()
    lifts: bool = False
    phase: RolloutPhase = RolloutPhase.PENDING
    total: int = 0
    upgraded: int = 0
    failed: int = 0
    groups: tuple[GroupStatus, ...] = ()
    message: Text = ""


class AgentRollout(Object):
    """The operator's plan for moving a set of devices to a release."""

    kind_name: ClassVar[str] = "AgentRollout"
    kind: Literal["AgentRollout"] = "AgentRollout"
    spec: RolloutSpec
    status: RolloutStatus = RolloutStatus()


KINDS: dict[str, type[Object]] = {kind.kind_name: kind for kind in (Device, Deployment, AgentRollout)}
