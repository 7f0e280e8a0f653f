"""The faults a scenario can declare: something bad the world does. Values only; targets carry them out.

Where a fault has `devices`, it hits each of them in the same way at the same moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from fleet.contracts.ids import DeploymentName, DeviceId, ObjectName, Slot, Version
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Duration

Devices = tuple[DeviceId, ...]

# --- programs and data -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriteRaw:
    """Someone writes any bytes under any key, with wide permissions. Never heals by itself."""

    bucket: Bucket
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class WriteBadEntries:
    """Everything of `harness.bad_entries` stands in every bucket, and in place of each key of `device` something bad.

    After `length` the keys of the device are written again as they were, unless their owner has done so.
    """

    device: DeviceId
    length: Duration


@dataclass(frozen=True, slots=True)
class KillOperator:
    """kill -9 of an operator replica; it is started again after `down`."""

    down: Duration
    replica: int = 0


@dataclass(frozen=True, slots=True)
class StopOperator:
    """An operator replica is told to end (SIGTERM), as before an eviction; it is started again after `down`."""

    down: Duration
    replica: int = 0


@dataclass(frozen=True, slots=True)
class IsolateOperator:
    """An operator replica reaches neither bus nor objects for a time, and goes on running."""

    replica: int
    length: Duration


@dataclass(frozen=True, slots=True)
class FreezeOperator:
    """Not one line of an operator replica runs for a time (SIGSTOP, a paused virtual machine); then it goes on."""

    replica: int
    length: Duration


@dataclass(frozen=True, slots=True)
class KillAgent:
    """kill -9 of the agent process in a slot of a device; its service manager does what it does."""

    device: DeviceId
    slot: Slot


# --- power -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CutPower:
    """Machines lose power, and boot again after `down`."""

    devices: Devices
    down: Duration


@dataclass(frozen=True, slots=True)
class CutPowerAtOperation:
    """A machine loses power instead of carrying out the `operation`-th change of its disk from now on (1: the next).

    It happens when that change comes: injecting it returns then, and waits for as long as it does not.
    """

    device: DeviceId
    operation: int
    down: Duration


@dataclass(frozen=True, slots=True)
class RandomPowerCuts:
    """Each machine loses power `count` times within `over`, at moments that the seed draws, for `down` each time."""

    devices: Devices
    count: int
    over: Duration
    down: Duration


@dataclass(frozen=True, slots=True)
class BrownOut:
    """The power fails `cycles` times in a row: off for `down`, on for `up`, which may be too short to boot."""

    devices: Devices
    cycles: int
    up: Duration
    down: Duration


# --- the machine -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FillDisk:
    """Something else fills the disk for a time: `leave` bytes stay free at the moment it begins."""

    devices: Devices
    leave: int
    length: Duration


@dataclass(frozen=True, slots=True)
class DiskReadErrors:
    """Reading the file or folder `below`, or anything under it, fails for a time."""

    devices: Devices
    below: PurePosixPath
    length: Duration


@dataclass(frozen=True, slots=True)
class SlowDisk:
    """Every operation of the disk takes `per_operation` for a time, during which its program can be killed."""

    devices: Devices
    per_operation: Duration
    length: Duration


@dataclass(frozen=True, slots=True)
class SlowCpu:
    """Whatever takes processor time (starts, boots, self-tests, containers) takes `factor` times as long for a time."""

    devices: Devices
    factor: int
    length: Duration


@dataclass(frozen=True, slots=True)
class SetClock:
    """The time of day jumps by `by` (negative: back), until it is synchronised again after `length`."""

    devices: Devices
    by: Duration
    length: Duration


@dataclass(frozen=True, slots=True)
class DriftClock:
    """The time of day runs `parts_per_million` too fast (negative: too slowly), and is put right after `length`."""

    devices: Devices
    parts_per_million: int
    length: Duration


class AgentFile(StrEnum):
    """A kind of file that the agent keeps on a device."""

    VERIFIED = "verified"
    ATTEMPT = "attempt"
    TRIALS = "trials"
    WORKLOADS = "workloads"
    START_COUNTERS = "start-counters"
    QUARANTINE_MARK = "quarantine-mark"
    """Of a named release."""
    MANIFEST = "manifest"
    """Of a named release that is not the current one."""
    RELEASE = "release"
    """The file of a named release that is not the current one."""
    STAGED_PART = "staged-part"
    """What has been downloaded so far of a named release."""


OF_A_RELEASE = frozenset({AgentFile.QUARANTINE_MARK, AgentFile.MANIFEST, AgentFile.RELEASE, AgentFile.STAGED_PART})
"""The kinds of file that there is one of per release."""


class Damage(StrEnum):
    """What becomes of a file."""

    EMPTY = "empty"
    GARBAGE = "garbage"
    """Other bytes, as many as before (at least one), that are not text."""
    TRUNCATED = "truncated"
    """The first half is left."""
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class DamageFile:
    """A file of the agent is damaged on the disk, durably. Never heals by itself.

    It does not happen (`NotFound`) when the file is not there, nor when it belongs to the current release.
    `version` names the release for the kinds of `OF_A_RELEASE` and is None for the others.
    """

    device: DeviceId
    file: AgentFile
    how: Damage
    version: Version | None = None


@dataclass(frozen=True, slots=True)
class SilenceEngine:
    """The container engine does not answer for a time. Its containers go on running."""

    devices: Devices
    length: Duration


@dataclass(frozen=True, slots=True)
class CrashContainer:
    """A container ends by itself. It does not happen (`NotFound`) when it does not run."""

    device: DeviceId
    deployment: DeploymentName
    container: DeploymentName


# --- the network and the bus -------------------------------------------------------------------------


class Direction(StrEnum):
    """Which way a partition cuts."""

    BOTH = "both"
    TO_DEVICE = "to-device"
    FROM_DEVICE = "from-device"


@dataclass(frozen=True, slots=True)
class Partition:
    """The links of some devices are cut for a time."""

    devices: Devices
    direction: Direction
    length: Duration


@dataclass(frozen=True, slots=True)
class FlapLink:
    """The links of some devices are cut for `down`, whole for `up`, cut again and so on, for `length`."""

    devices: Devices
    up: Duration
    down: Duration
    length: Duration


@dataclass(frozen=True, slots=True)
class SlowLink:
    """The links of some devices carry `bytes_per_second` each way for a time."""

    devices: Devices
    bytes_per_second: int
    length: Duration


@dataclass(frozen=True, slots=True)
class RestartBus:
    """The bus dies by kill -9, losing nothing, and is started again after `down`. Every connection breaks."""

    down: Duration


@dataclass(frozen=True, slots=True)
class LoseBusTail:
    """The machine of the bus loses power: the newest `writes` writes of each of `buckets` are gone, acknowledged as
    they were, and their revisions are used again. Where fewer are remembered, all of those go.
    """

    down: Duration
    writes: int
    buckets: tuple[Bucket, ...]


# --- identities --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StopProvider:
    """The identity provider is away for a time. What it knew it knows afterwards."""

    length: Duration


@dataclass(frozen=True, slots=True)
class StopCallout:
    """No auth callout runs for a time: whoever connects with a token is refused."""

    length: Duration


@dataclass(frozen=True, slots=True)
class CloneDevice:
    """A second machine, which is not of the fleet, boots from a copy of a device's disk, keys and all, for a time.

    It has a link and a boot of its own, and runs what lies on the disk. What happens on it is journalled under a name
    of its own (see `CopyMade`). Then it loses its power for good.
    """

    device: DeviceId
    length: Duration


@dataclass(frozen=True, slots=True)
class RotateSigningKeys:
    """The identity provider signs with another key from now on, and publishes the old one no more."""


# --- secrets -----------------------------------------------------------------------------------------


class SecretDamage(StrEnum):
    """What becomes of the file of a secret."""

    TRUNCATED = "truncated"
    """The first half is left."""
    BIT_FLIPPED = "bit-flipped"
    """One bit of the value is another one."""
    EMPTY = "empty"
    WRONG_MODE = "wrong-mode"
    """Everybody may read it."""
    WRONG_OWNER = "wrong-owner"
    """It belongs to another user."""


@dataclass(frozen=True, slots=True)
class CorruptSecret:
    """The file of a secret of the installation is damaged, and after `length` put back as it was."""

    secret: ObjectName
    how: SecretDamage
    length: Duration


OnDevices = (
    CutPower
    | RandomPowerCuts
    | BrownOut
    | FillDisk
    | DiskReadErrors
    | SlowDisk
    | SlowCpu
    | SetClock
    | DriftClock
    | SilenceEngine
    | Partition
    | FlapLink
    | SlowLink
)
"""The faults that hit any number of devices."""
Fault = (
    WriteRaw
    | StopProvider
    | StopCallout
    | RotateSigningKeys
    | CloneDevice
    | CorruptSecret
    | WriteBadEntries
    | KillOperator
    | StopOperator
    | IsolateOperator
    | FreezeOperator
    | KillAgent
    | CutPowerAtOperation
    | DamageFile
    | CrashContainer
    | RestartBus
    | LoseBusTail
    | OnDevices
)
"""Everything that can be injected. A target names the types it cannot do."""
