"""The objects people write: `Device`, `Deployment`, `AgentRollout` (group `fleet.nationtech.io/v1alpha1`).

The same pydantic models stand behind every implementation of the Kubernetes port; structural CRD schemas
are generated from them. Wire names are camelCase, as Kubernetes users expect. `resource_version` is
opaque and compared for equality only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, ObjectName, Percent, Release
from fleet.contracts.podman import PodmanScore
from fleet.contracts.records import Artefact, Text
from fleet.contracts.time import Instant

GROUP_VERSION: Final = "fleet.nationtech.io/v1alpha1"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Metadata(_Part):
    """Name, labels and what the store adds. `generation` grows with each change of the spec."""

    name: ObjectName
    labels: dict[str, str] = {}
    resource_version: str = ""
    generation: int = 0
    uid: str = ""


class Selector(_Part):
    """Devices whose labels include every pair. An empty selector selects every device."""

    match_labels: dict[str, str] = {}

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


class DeviceStatus(_Part):
    """Changes only when one of its fields changes, never with each heartbeat."""

    phase: DevicePhase = DevicePhase.PENDING
    release: Release | None = None
    since: Instant | None = None


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


class RolloutGroup(_Part):
    """Devices that are upgraded together."""

    name: ObjectName
    selector: Selector = Selector()
    max_unavailable: MaxUnavailable = MaxUnavailable(percent=Percent(10))


class RolloutSpec(_Part):
    """A release (one artefact per architecture, all of one version) for groups of devices, in order."""

    artefacts: Annotated[tuple[Artefact, ...], Field(min_length=1)]
    groups: Annotated[tuple[RolloutGroup, ...], Field(min_length=1)]


class RolloutPhase(StrEnum):
    """Where a rollout stands. `Failed` and `Complete` are terminal for its generation."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    COMPLETE = "Complete"
    FAILED = "Failed"


class RolloutStatus(_Part):
    """Device counts over all groups; `failed` counts devices whose attempt ended otherwise than in success.

    `sequence` is the order in which the operator accepted the specs of all rollouts: a device that several rollouts
    select follows the highest, and is counted by that one alone.
    """

    observed_generation: int = 0
    sequence: int = 0
    phase: RolloutPhase = RolloutPhase.PENDING
    total: int = 0
    upgraded: int = 0
    failed: int = 0
    message: Text = ""


class AgentRollout(Object):
    """The operator's plan for moving a set of devices to a release."""

    kind_name: ClassVar[str] = "AgentRollout"
    kind: Literal["AgentRollout"] = "AgentRollout"
    spec: RolloutSpec
    status: RolloutStatus = RolloutStatus()


KINDS: dict[str, type[Object]] = {kind.kind_name: kind for kind in (Device, Deployment, AgentRollout)}
