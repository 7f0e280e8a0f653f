"""The wire records: what stands under the keys and in the messages between operator and agents.

Each record names its own address (`fleet.contracts.layout` maps addresses back to types), carries the
schema version, and is closed: an unknown field is an error unless the writer declared a newer minor
version (see `layout.decode`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet.contracts.ids import (
    Architecture,
    AttemptId,
    DeploymentName,
    DeviceId,
    Frozen,
    InstanceId,
    Release,
    Revision,
    Slot,
    Version,
    Word,
)
from fleet.contracts.podman import PodmanScore
from fleet.contracts.time import Duration, Instant

SCHEMA_MAJOR = 1
SCHEMA_MINOR = 1
_SchemaVersion = Annotated[str, Field(pattern=r"^1\.[0-9]{1,4}$")]

Text = Annotated[str, Field(max_length=1024)]
"""Text for people: a reason, a name. Bounded, so that a record has a bounded size."""


class Record(Frozen):
    """Base of the wire records. `v` is `major.minor`; readers refuse another major."""

    schema_version: ClassVar[str] = f"{SCHEMA_MAJOR}.{SCHEMA_MINOR}"
    v: _SchemaVersion = schema_version


class Artefact(Frozen):
    """A release as something that can be fetched: where from, how large, for which machines.

    `url` is absolute http(s). `size` is in bytes.
    """

    release: Release
    architecture: Architecture
    size: Annotated[int, Field(gt=0, le=2**31)]
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=2048)]


# --- desired: written by the operator only -----------------------------------------------------------


class DesiredAgent(Record):
    """The release a device shall run. `confirmed` names the instance the operator has verified, once it has.

    `granted` is the operator's own memory: when (its wall clock) it gave this attempt its upgrade slot. It is stored
    before the slot is given, so that no crash of the operator forgets a slot that is taken. Devices ignore it.

    `lift_quarantine`: a person asks for this release to be tried again, by this attempt, although the device may have
    condemned it. The device lifts its mark once for the attempt; a release that fails again stays condemned. (1.1)
    """

    device: DeviceId
    attempt: AttemptId
    artefact: Artefact
    granted: Instant | None = None
    confirmed: InstanceId | None = None
    lift_quarantine: bool = False


class DesiredWorkload(Record):
    """A workload a device shall run."""

    device: DeviceId
    deployment: DeploymentName
    score: PodmanScore


class DesiredWorkloads(Record):
    """The names of all workloads a device shall run, sorted.

    A device may read its own keys one by one but cannot list them (a listing direct get carries its filter in the
    body, where no permission reaches), so this is how it finds what was deployed while it was away.
    """

    device: DeviceId
    deployments: tuple[DeploymentName, ...]


# --- identity: written by enrolment only --------------------------------------------------------------


class Admitted(Frozen):
    """The device may log in, with a token issued at `tokens_from` or later (the provider's clock, whole seconds).

    A device that is enrolled again after a revocation gets a later `tokens_from`, so that no token from before the
    revocation is ever good again.
    """

    standing: Literal["admitted"] = "admitted"
    tokens_from: Instant


class Revoked(Frozen):
    """The device may not log in, whatever token it shows. `at` is the clock of whoever revoked it."""

    standing: Literal["revoked"] = "revoked"
    at: Instant
    reason: Text = ""


class Enrolment(Record):
    """Which user of the identity provider is this device, and whether it may log in. Read by the auth callout.

    `user` is the `sub` of the device's tokens: providers number their users, so this is the one place that says which
    number is which device.
    """

    device: DeviceId
    user: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\s]+$")]
    standing: Annotated[Admitted | Revoked, Field(discriminator="standing")]


# --- info: written by that device --------------------------------------------------------------------


class DeviceInfo(Record):
    """What a device is. Written at each start of the managing instance."""

    device: DeviceId
    machine_id: Text
    hardware: Text
    operating_system: Text
    architecture: Architecture
    releases_on_disk: tuple[Release, ...]


# --- state: written by that device -------------------------------------------------------------------


class ContainerCondition(StrEnum):
    """What is known of one container."""

    RUNNING = "running"
    STARTING = "starting"
    FAILED = "failed"


class ContainerReport(Frozen):
    """One container as the device sees it."""

    name: DeploymentName
    image: str
    condition: ContainerCondition
    detail: Text = ""


class WorkloadState(Record):
    """What a device makes of one desired workload; `desired` is the revision it was derived from."""

    device: DeviceId
    deployment: DeploymentName
    desired: Revision
    containers: tuple[ContainerReport, ...]

    @property
    def healthy(self) -> bool:
        """Every container runs."""
        return all(report.condition is ContainerCondition.RUNNING for report in self.containers)


class UpgradePhase(StrEnum):
    """The steps of the hand-over protocol (ADR-022) in their order."""

    LOCKING = "locking"
    DRAINING = "draining"
    STAGING = "staging"
    TESTING = "testing"
    SWAPPING = "swapping"
    OVERLAPPING = "overlapping"


class InProgress(Frozen):
    """The attempt is under way."""

    status: Literal["in-progress"] = "in-progress"
    phase: UpgradePhase


class Succeeded(Frozen):
    """The new release runs, was confirmed by the operator and is marked verified on disk."""

    status: Literal["succeeded"] = "succeeded"


class RolledBack(Frozen):
    """The release was bad on this device: it is quarantined and the previous one runs."""

    status: Literal["rolled-back"] = "rolled-back"
    phase: UpgradePhase
    reason: Text


class RefusedUpgrade(Frozen):
    """The device will not do it (quarantined release, no space, wrong architecture …). Nothing was changed."""

    status: Literal["refused"] = "refused"
    phase: UpgradePhase
    reason: Text


class DeferredUpgrade(Frozen):
    """Not now: what was drained is undrained, the slot is given back, a later attempt may succeed."""

    status: Literal["deferred"] = "deferred"
    phase: UpgradePhase
    reason: Text


UpgradeStatus = Annotated[
    InProgress | Succeeded | RolledBack | RefusedUpgrade | DeferredUpgrade, Field(discriminator="status")
]
TERMINAL = (Succeeded, RolledBack, RefusedUpgrade, DeferredUpgrade)


class UpgradeState(Record):
    """Where the device's current upgrade attempt stands, reported by `reporter`."""

    device: DeviceId
    attempt: AttemptId
    release: Release
    reporter: InstanceId
    status: UpgradeStatus


# --- heartbeat: written by that device, one key per slot ---------------------------------------------


class Role(Word):
    """Whether the instance holds the host lock. Only a managing instance touches workloads."""

    MANAGING = "managing"
    STANDBY = "standby"


class Health(Frozen):
    """Counts that tell at a glance how a device is."""

    workloads: int
    healthy: int
    invalid_entries: int


class Heartbeat(Record):
    """One agent instance is alive. `sent` is the device's own wall clock, which may be wrong."""

    instance: InstanceId
    slot: Slot
    release: Release
    sent: Instant
    uptime: Duration
    role: Role
    health: Health


# --- requests ----------------------------------------------------------------------------------------


class StopRequest(Record):
    """Operator to device: this one instance shall exit, its successor was verified."""

    device: DeviceId
    instance: InstanceId
    successor: InstanceId
    attempt: AttemptId


class StopReply(Record):
    """The named instance heard it. Not a proof that it is gone: the operator repeats until it is."""

    instance: InstanceId


class LockRequest(Record):
    """Device to operator: may I start this attempt now?"""

    device: DeviceId
    attempt: AttemptId
    instance: InstanceId


class LockGranted(Frozen):
    """Yes, and the attempt has to be terminal within `lease`."""

    verdict: Literal["granted"] = "granted"
    lease: Duration


class LockDenied(Frozen):
    """Not now. Ask again after `retry_after`."""

    verdict: Literal["denied"] = "denied"
    reason: Text
    retry_after: Duration


class LockReply(Record):
    """The answer to a `LockRequest`."""

    answer: Annotated[LockGranted | LockDenied, Field(discriminator="verdict")]


class ReleaseManifest(Frozen):
    """The completion manifest beside a release on a device's disk, written last: the file is whole.

    `unpacked` is the folder (below the unpack root) that holds what cannot be imported from inside the zip.
    """

    version: Version
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: int
    unpacked: str
