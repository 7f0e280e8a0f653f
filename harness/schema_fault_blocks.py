"""The blocks of faults, as a scenario file declares them. `harness.schema_faults` makes values of them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeploymentName
from fleet.contracts.layout import Bucket
from harness.faults import OF_A_RELEASE, AgentFile, Damage, Direction, SecretDamage
from harness.schema_base import (
    TRIGGERING,
    DeploymentRef,
    GroupRef,
    Length,
    ReleaseRef,
    SecretRef,
    SignedLength,
    TargetDeviceRef,
    escaped_bytes,
    exactly_one,
)
from harness.schema_triggers import PhaseEntered, Triggered

_Positive = Annotated[int, Field(ge=1)]
_Some = Annotated[Length, Field(gt=0)]
"""A length that is not zero."""
Replica = Literal["leader", "standby"] | Annotated[int, Field(ge=0)]
"""An operator replica by its number, the one that leads, or the lowest number of those that do not."""


class Fault(Triggered):
    """Base of all faults."""

    def model_post_init(self, context: object) -> None:
        """A fault says when it happens."""
        exactly_one("at and when", self.at, self.when)
        if TRIGGERING in self.named_devices() and not isinstance(self.when, PhaseEntered):
            raise InvalidValue(
                '"triggering" needs a trigger that comes from a device: when = { event = "upgrade-phase" … }'
            )

    def named_devices(self) -> tuple[str, ...]:
        """The devices it names."""
        return ()


class OnDevice(Fault):
    """Base of the faults that hit one device."""

    device: TargetDeviceRef

    def named_devices(self) -> tuple[str, ...]:
        """The one device."""
        return (self.device,)


class OnDevices(Fault):
    """Base of the faults that hit any number of devices: one `device`, some `devices`, or a `group`."""

    device: TargetDeviceRef | None = None
    devices: Annotated[tuple[TargetDeviceRef, ...], Field(min_length=1)] | None = None
    group: GroupRef | None = None

    def model_post_init(self, context: object) -> None:
        """Exactly one way to say which devices."""
        super().model_post_init(context)
        exactly_one("device, devices and group", self.device, self.devices, self.group)

    def named_devices(self) -> tuple[str, ...]:
        """The devices, where they are named."""
        return self.devices or (() if self.device is None else (self.device,))


class WriteRaw(Fault):
    r"""Someone writes bytes under a key. In `key`, `\xHH` is a byte (write it in a 'literal' string)."""

    fault: Literal["write-raw"]
    bucket: Bucket
    key: Annotated[str, Field(min_length=1)]
    repeat_key: Annotated[int, Field(ge=1, le=10_000)] = 1
    """The key is this many copies of `key`: for keys over the size that is accepted."""
    value: str | None = None
    """The value as text."""
    value_hex: Annotated[str, Field(pattern=r"^([0-9a-fA-F]{2})*$")] | None = None
    """The value in hexadecimal digits."""

    def model_post_init(self, context: object) -> None:
        """Exactly one of the two forms of the value."""
        super().model_post_init(context)
        exactly_one("value and value_hex", self.value, self.value_hex)
        escaped_bytes(self.key)


class WriteBadEntries(OnDevice):
    """Someone writes every bad key, value and header there is into every bucket, and bad values over a device's keys.

    After `length` the device's keys are written again as they were, unless their owner has done so.
    """

    fault: Literal["write-bad-entries"]
    length: Length


class OnOperator(Fault):
    """Base of the faults that hit one operator replica."""

    replica: Replica = "leader"


class KillOperator(OnOperator):
    """kill -9 of an operator replica, which is started again after `down`."""

    fault: Literal["kill-operator"]
    down: Length


class StopOperator(OnOperator):
    """An operator replica is told to end in order (SIGTERM), and is started again after `down`."""

    fault: Literal["stop-operator"]
    down: Length


class IsolateOperator(OnOperator):
    """An operator replica reaches neither bus nor objects for `length`, and goes on running."""

    fault: Literal["isolate-operator"]
    length: Length


class FreezeOperator(OnOperator):
    """Not one line of an operator replica runs for `length`; then it goes on where it was."""

    fault: Literal["freeze-operator"]
    length: Length


class KillAgent(OnDevice):
    """kill -9 of the agent in a slot: `a`, `b`, the one that is `managing`, or the other one (`standby`)."""

    fault: Literal["kill-agent"]
    slot: Literal["a", "b", "managing", "standby"] = "managing"


# --- power -------------------------------------------------------------------------------------------


class CutPower(OnDevices):
    """Machines lose power and boot again after `down`."""

    fault: Literal["cut-power"]
    down: Length


class CutPowerAtOperation(OnDevice):
    """A machine loses power instead of the `operation`-th change of its disk after the trigger (1: the next one)."""

    fault: Literal["cut-power-at-operation"]
    operation: _Positive
    down: Length


class RandomPowerCuts(OnDevices):
    """Each machine loses power `count` times within `over`, at moments that the seed draws, for `down` each time."""

    fault: Literal["random-power-cuts"]
    count: Annotated[int, Field(ge=1, le=1000)]
    over: _Some
    down: _Some

    def model_post_init(self, context: object) -> None:
        """The cuts have room."""
        super().model_post_init(context)
        if self.down * self.count > self.over:
            raise InvalidValue(f"{self.count} cuts of {self.down} take longer than {self.over}")


class BrownOut(OnDevices):
    """The power fails `cycles` times in a row: off for `down`, on for `up`. A Pi needs 15 to 25 seconds to boot."""

    fault: Literal["brown-out"]
    cycles: Annotated[int, Field(ge=1, le=1000)]
    up: _Some
    down: _Some


# --- the machine -------------------------------------------------------------------------------------


class FillDisk(OnDevices):
    """Something else fills the disk up to the last `leave` bytes, and is gone after `length`."""

    fault: Literal["fill-disk"]
    leave: Annotated[int, Field(ge=0)] = 0
    length: Length


class DiskReadErrors(OnDevices):
    """Reading the file or folder `below` (an absolute path), or anything under it, fails for `length`."""

    fault: Literal["disk-read-errors"]
    below: Annotated[str, Field(pattern=r"^/")]
    length: Length

    @property
    def path(self) -> PurePosixPath:
        """Where the errors are."""
        return PurePosixPath(self.below)


class SlowDisk(OnDevices):
    """Every operation of the disk takes `per_operation`, for `length`: a worn SD card."""

    fault: Literal["slow-disk"]
    per_operation: _Some
    length: Length


class SlowCpu(OnDevices):
    """Boots, starts, self-tests and containers take `factor` times as long, for `length`."""

    fault: Literal["slow-cpu"]
    factor: Annotated[int, Field(ge=2, le=1000)]
    length: Length


class SetClock(OnDevices):
    """The time of day jumps by `by` (`-2h`: back), and is synchronised again after `length`."""

    fault: Literal["set-clock"]
    by: SignedLength
    length: Length


class DriftClock(OnDevices):
    """The time of day runs `parts_per_million` too fast (negative: too slowly), and is put right after `length`."""

    fault: Literal["drift-clock"]
    parts_per_million: Annotated[int, Field(ge=-500_000, le=500_000)]
    length: Length


class DamageFile(OnDevice):
    """A file of the agent is damaged on the disk. Where there is one per release, `release` says which."""

    fault: Literal["damage-file"]
    file: AgentFile
    how: Damage
    release: ReleaseRef | None = None

    def model_post_init(self, context: object) -> None:
        """The release is named exactly where it has to be."""
        super().model_post_init(context)
        if (self.file in OF_A_RELEASE) != (self.release is not None):
            raise InvalidValue(f"file = {self.file.value!r} {'needs' if self.release is None else 'takes no'} release")


class SilenceEngine(OnDevices):
    """The container engine does not answer, for `length`. Its containers go on running."""

    fault: Literal["silence-engine"]
    length: Length


class CrashContainer(OnDevice):
    """A container ends by itself."""

    fault: Literal["crash-container"]
    deployment: DeploymentRef
    container: DeploymentName


# --- the network and the bus -------------------------------------------------------------------------


class Partition(OnDevices):
    """The links of some devices, or of a group, are cut for `length`."""

    fault: Literal["partition"]
    direction: Direction = Direction.BOTH
    length: Length


class FlapLink(OnDevices):
    """The links of some devices, or of a group, are cut for `down`, whole for `up`, and so on, for `length`."""

    fault: Literal["flap-link"]
    up: _Some
    down: _Some
    length: Length


class SlowLink(OnDevices):
    """The links of some devices, or of a group, carry `bytes_per_second` each way, for `length`."""

    fault: Literal["slow-link"]
    bytes_per_second: Annotated[int, Field(ge=100)]
    length: Length


class RestartBus(Fault):
    """kill -9 of the bus, which is started again after `down` with all that it had accepted."""

    fault: Literal["restart-bus"]
    down: Length


class LoseBusTail(Fault):
    """The machine of the bus loses power: the newest `writes` writes of each of `buckets` are lost, acknowledged as
    they were, and their revisions are used again.
    """

    fault: Literal["lose-bus-tail"]
    down: Length
    writes: Annotated[int, Field(ge=1, le=4096)]
    buckets: Annotated[tuple[Bucket, ...], Field(min_length=1)] = tuple(Bucket)


# --- identities --------------------------------------------------------------------------------------


class CloneDevice(OnDevice):
    """A second machine boots from a copy of the device's disk, keys and all, and is taken away after `length`."""

    fault: Literal["clone-device"]
    length: Length


class OnIdentities(Fault):
    """Base of the faults that need devices with identities: `fleet.logins = "token"`."""


class StopProvider(OnIdentities):
    """The identity provider is away for `length`. What it knew it knows afterwards."""

    fault: Literal["stop-provider"]
    length: Length


class StopCallout(OnIdentities):
    """No auth callout runs for `length`: whoever connects with a token is refused."""

    fault: Literal["stop-callout"]
    length: Length


class RotateSigningKeys(OnIdentities):
    """The identity provider signs with another key from now on, and publishes the old one no more."""

    fault: Literal["rotate-signing-keys"]


# --- secrets -----------------------------------------------------------------------------------------


class CorruptSecret(Fault):
    """The file of a secret of the installation is damaged, and after `length` put back as it was."""

    fault: Literal["corrupt-secret"]
    secret: SecretRef
    how: SecretDamage
    length: Length
