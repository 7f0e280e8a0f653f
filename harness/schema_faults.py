"""The faults as a scenario file declares them. `bind` makes the value a target is given (`harness.faults`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, Slot
from fleet.contracts.layout import Bucket
from fleet.contracts.time import ZERO, Duration
from harness import faults
from harness.faults import Direction
from harness.schema_base import (
    TRIGGERING,
    GroupRef,
    Length,
    Part,
    TargetDeviceRef,
    escaped_bytes,
    exactly_one,
)
from harness.schema_triggers import PhaseEntered, Triggered


class _Fault(Triggered):
    def model_post_init(self, context: object) -> None:
        """A fault says when it happens."""
        exactly_one("at and when", self.at, self.when)
        if TRIGGERING in self._devices() and not isinstance(self.when, PhaseEntered):
            raise InvalidValue(
                '"triggering" needs a trigger that comes from a device: when = { event = "upgrade-phase" … }'
            )

    def _devices(self) -> tuple[str, ...]:
        return ()


class WriteRaw(_Fault):
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


class KillOperator(_Fault):
    """kill -9 of the operator, which is started again after `down`."""

    fault: Literal["kill-operator"]
    down: Length


class KillAgent(_Fault):
    """kill -9 of the agent in a slot: `a`, `b`, the one that is `managing`, or the other one (`standby`)."""

    fault: Literal["kill-agent"]
    device: TargetDeviceRef
    slot: Literal["a", "b", "managing", "standby"] = "managing"

    def _devices(self) -> tuple[str, ...]:
        return (self.device,)


class CutPower(_Fault):
    """A machine loses power and boots again after `down`."""

    fault: Literal["cut-power"]
    device: TargetDeviceRef
    down: Length

    def _devices(self) -> tuple[str, ...]:
        return (self.device,)


class Partition(_Fault):
    """The links of some devices, or of a group, are cut for `length`."""

    fault: Literal["partition"]
    devices: Annotated[tuple[TargetDeviceRef, ...], Field(min_length=1)] | None = None
    group: GroupRef | None = None
    direction: Direction = Direction.BOTH
    length: Length

    def model_post_init(self, context: object) -> None:
        """Exactly one way to say which devices."""
        super().model_post_init(context)
        exactly_one("devices and group", self.devices, self.group)

    def _devices(self) -> tuple[str, ...]:
        return self.devices or ()


AnyFault = WriteRaw | KillOperator | KillAgent | CutPower | Partition
FaultSpec = Annotated[AnyFault, Field(discriminator="fault")]

KIND: dict[type[Part], type[faults.Fault]] = {
    WriteRaw: faults.WriteRaw,
    KillOperator: faults.KillOperator,
    KillAgent: faults.KillAgent,
    CutPower: faults.CutPower,
    Partition: faults.Partition,
}
"""What each block becomes, for asking a target whether it can do it."""


def bind(
    spec: AnyFault,
    triggering: DeviceId | None,
    members: Callable[[GroupRef], tuple[DeviceId, ...]],
    managing: Callable[[DeviceId], Slot | None],
) -> faults.Fault | None:
    """The fault with its devices and slots put in; None when it has nothing to hit (no instance manages the device)."""

    def device(name: str) -> DeviceId:
        if name != TRIGGERING:
            return DeviceId(name)
        assert triggering is not None
        return triggering

    match spec:
        case WriteRaw():
            value = bytes.fromhex(spec.value_hex) if spec.value is None and spec.value_hex is not None else spec.value
            data = value if isinstance(value, bytes) else (value or "").encode()
            return faults.WriteRaw(spec.bucket, escaped_bytes(spec.key) * spec.repeat_key, data)
        case KillOperator():
            return faults.KillOperator(spec.down)
        case KillAgent():
            slot = _slot(spec.slot, managing(device(spec.device)))
            return None if slot is None else faults.KillAgent(device(spec.device), slot)
        case CutPower():
            return faults.CutPower(device(spec.device), spec.down)
        case Partition(group=None):
            named = tuple(device(name) for name in spec.devices or ())
            return faults.Partition(named, spec.direction, spec.length)
        case Partition():
            assert spec.group is not None
            return faults.Partition(members(spec.group), spec.direction, spec.length)


def _slot(name: str, managing: Slot | None) -> Slot | None:
    match name:
        case "managing":
            return managing
        case "standby":
            return None if managing is None else managing.other
        case _:
            return Slot(name)


def length_of(fault: faults.Fault) -> Duration:
    """How long a fault lasts before it ends by itself; zero for what is over at once."""
    match fault:
        case faults.KillOperator(down) | faults.CutPower(_, down):
            return down
        case faults.Partition(_, _, length):
            return length
        case faults.WriteRaw() | faults.KillAgent():
            return ZERO


def describe(fault: faults.Fault) -> tuple[str, str]:
    """What happens and what it hits, for people and for the journal."""
    match fault:
        case faults.WriteRaw(bucket, key, value):
            shown = key.decode("utf-8", "backslashreplace")
            shown = shown if len(shown) <= 80 else f"{shown[:60]}… ({len(key)} bytes)"
            return f"write-raw {len(value)} bytes", f"{bucket}/{shown}"
        case faults.KillOperator(down):
            return f"kill-operator for {down}", "operator"
        case faults.KillAgent(device, slot):
            return f"kill-agent in slot {slot}", device
        case faults.CutPower(device, down):
            return f"cut-power for {down}", device
        case faults.Partition(devices, direction, length):
            shown = ", ".join(devices[:3]) + (f" and {len(devices) - 3} more" if len(devices) > 3 else "")
            return f"partition {direction} for {length}", shown
