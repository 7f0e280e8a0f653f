"""From the block of a fault to the value that a target is given (`bind`), how long it lasts, and what it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from fleet.contracts.ids import DeviceId, ObjectName, Slot, Version
from fleet.contracts.time import ZERO, Duration
from harness import faults
from harness.schema_base import TRIGGERING, GroupRef, Part, escaped_bytes
from harness.schema_fault_blocks import (
    BrownOut,
    CloneDevice,
    CorruptSecret,
    CrashContainer,
    CutPower,
    CutPowerAtOperation,
    DamageFile,
    DiskReadErrors,
    DriftClock,
    FillDisk,
    FlapLink,
    FreezeOperator,
    IsolateOperator,
    KillAgent,
    KillOperator,
    LoseBusTail,
    OnDevices,
    OnOperator,
    Partition,
    RandomPowerCuts,
    Replica,
    RestartBus,
    RotateSigningKeys,
    SetClock,
    SilenceEngine,
    SlowCpu,
    SlowDisk,
    SlowLink,
    StopCallout,
    StopOperator,
    StopProvider,
    WriteBadEntries,
    WriteRaw,
)

AnyFault = (
    WriteRaw
    | WriteBadEntries
    | KillOperator
    | StopOperator
    | IsolateOperator
    | FreezeOperator
    | KillAgent
    | CutPower
    | CutPowerAtOperation
    | RandomPowerCuts
    | BrownOut
    | FillDisk
    | DiskReadErrors
    | SlowDisk
    | SlowCpu
    | SetClock
    | DriftClock
    | DamageFile
    | SilenceEngine
    | CrashContainer
    | Partition
    | FlapLink
    | SlowLink
    | RestartBus
    | LoseBusTail
    | StopProvider
    | StopCallout
    | RotateSigningKeys
    | CloneDevice
    | CorruptSecret
)
FaultSpec = Annotated[AnyFault, Field(discriminator="fault")]

KIND: dict[type[Part], type[faults.Fault]] = {
    WriteRaw: faults.WriteRaw,
    WriteBadEntries: faults.WriteBadEntries,
    KillOperator: faults.KillOperator,
    StopOperator: faults.StopOperator,
    IsolateOperator: faults.IsolateOperator,
    FreezeOperator: faults.FreezeOperator,
    KillAgent: faults.KillAgent,
    CutPower: faults.CutPower,
    CutPowerAtOperation: faults.CutPowerAtOperation,
    RandomPowerCuts: faults.RandomPowerCuts,
    BrownOut: faults.BrownOut,
    FillDisk: faults.FillDisk,
    DiskReadErrors: faults.DiskReadErrors,
    SlowDisk: faults.SlowDisk,
    SlowCpu: faults.SlowCpu,
    SetClock: faults.SetClock,
    DriftClock: faults.DriftClock,
    DamageFile: faults.DamageFile,
    SilenceEngine: faults.SilenceEngine,
    CrashContainer: faults.CrashContainer,
    Partition: faults.Partition,
    FlapLink: faults.FlapLink,
    SlowLink: faults.SlowLink,
    RestartBus: faults.RestartBus,
    LoseBusTail: faults.LoseBusTail,
    StopProvider: faults.StopProvider,
    StopCallout: faults.StopCallout,
    RotateSigningKeys: faults.RotateSigningKeys,
    CloneDevice: faults.CloneDevice,
    CorruptSecret: faults.CorruptSecret,
}
"""What each block becomes, for asking a target whether it can do it."""


def bind(
    spec: AnyFault,
    triggering: DeviceId | None,
    members: Callable[[GroupRef], tuple[DeviceId, ...]],
    managing: Callable[[DeviceId], Slot | None],
    replica: Callable[[Replica], int | None],
) -> faults.Fault | None:
    """The fault with its devices, slots and replicas put in.

    None when it has nothing to hit: no instance manages the device, no replica leads.
    """
    named = tuple(_device(name, triggering) for name in spec.named_devices())
    if isinstance(spec, OnOperator):
        number = replica(spec.replica)
        return None if number is None else _on_operator(spec, number)
    if isinstance(spec, OnDevices):
        return _on_devices(spec, named if spec.group is None else members(spec.group))
    match spec:
        case WriteRaw():
            value = bytes.fromhex(spec.value_hex) if spec.value is None and spec.value_hex is not None else spec.value
            data = value if isinstance(value, bytes) else (value or "").encode()
            return faults.WriteRaw(spec.bucket, escaped_bytes(spec.key) * spec.repeat_key, data)
        case WriteBadEntries():
            return faults.WriteBadEntries(named[0], spec.length)
        case KillAgent():
            slot = _slot(spec.slot, managing(named[0]))
            return None if slot is None else faults.KillAgent(named[0], slot)
        case CutPowerAtOperation():
            return faults.CutPowerAtOperation(named[0], spec.operation, spec.down)
        case DamageFile():
            version = None if spec.release is None else Version(spec.release)
            return faults.DamageFile(named[0], spec.file, spec.how, version)
        case CrashContainer():
            return faults.CrashContainer(named[0], spec.deployment, spec.container)
        case RestartBus():
            return faults.RestartBus(spec.down)
        case LoseBusTail():
            return faults.LoseBusTail(spec.down, spec.writes, spec.buckets)
        case StopProvider():
            return faults.StopProvider(spec.length)
        case StopCallout():
            return faults.StopCallout(spec.length)
        case RotateSigningKeys():
            return faults.RotateSigningKeys()
        case CloneDevice():
            return faults.CloneDevice(named[0], spec.length)
        case CorruptSecret():
            return faults.CorruptSecret(ObjectName(spec.secret), spec.how, spec.length)


_OnDevices = (
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


def _on_devices(spec: _OnDevices, devices: faults.Devices) -> faults.Fault:
    match spec:
        case CutPower():
            return faults.CutPower(devices, spec.down)
        case RandomPowerCuts():
            return faults.RandomPowerCuts(devices, spec.count, spec.over, spec.down)
        case BrownOut():
            return faults.BrownOut(devices, spec.cycles, spec.up, spec.down)
        case FillDisk():
            return faults.FillDisk(devices, spec.leave, spec.length)
        case DiskReadErrors():
            return faults.DiskReadErrors(devices, spec.path, spec.length)
        case SlowDisk():
            return faults.SlowDisk(devices, spec.per_operation, spec.length)
        case SlowCpu():
            return faults.SlowCpu(devices, spec.factor, spec.length)
        case SetClock():
            return faults.SetClock(devices, spec.by, spec.length)
        case DriftClock():
            return faults.DriftClock(devices, spec.parts_per_million, spec.length)
        case SilenceEngine():
            return faults.SilenceEngine(devices, spec.length)
        case Partition():
            return faults.Partition(devices, spec.direction, spec.length)
        case FlapLink():
            return faults.FlapLink(devices, spec.up, spec.down, spec.length)
        case SlowLink():
            return faults.SlowLink(devices, spec.bytes_per_second, spec.length)


def _device(name: str, triggering: DeviceId | None) -> DeviceId:
    if name != TRIGGERING:
        return DeviceId(name)
    assert triggering is not None
    return triggering


def _on_operator(spec: KillOperator | StopOperator | IsolateOperator | FreezeOperator, replica: int) -> faults.Fault:
    match spec:
        case KillOperator():
            return faults.KillOperator(spec.down, replica)
        case StopOperator():
            return faults.StopOperator(spec.down, replica)
        case IsolateOperator():
            return faults.IsolateOperator(replica, spec.length)
        case FreezeOperator():
            return faults.FreezeOperator(replica, spec.length)


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
        case faults.WriteRaw() | faults.KillAgent() | faults.DamageFile() | faults.CrashContainer():
            return ZERO
        case faults.RotateSigningKeys():
            return ZERO
        case faults.RandomPowerCuts():
            return fault.over + fault.down
        case faults.BrownOut():
            return (fault.down + fault.up) * fault.cycles
        case faults.KillOperator() | faults.StopOperator() | faults.CutPower() | faults.CutPowerAtOperation():
            return fault.down
        case faults.RestartBus() | faults.LoseBusTail():
            return fault.down
        case _:
            return fault.length


def describe(fault: faults.Fault) -> tuple[str, str]:
    """What happens and what it hits, for people and for the journal."""
    match fault:
        case faults.WriteRaw(bucket, key, value):
            shown = key.decode("utf-8", "backslashreplace")
            shown = shown if len(shown) <= 80 else f"{shown[:60]}… ({len(key)} bytes)"
            return f"write-raw {len(value)} bytes", f"{bucket}/{shown}"
        case faults.WriteBadEntries(device, length):
            return f"write-bad-entries for {length}", f"every bucket, and the keys of {device}"
        case faults.KillOperator(down, replica):
            return f"kill-operator for {down}", f"operator-{replica}"
        case faults.StopOperator(down, replica):
            return f"stop-operator for {down}", f"operator-{replica}"
        case faults.IsolateOperator(replica, length):
            return f"isolate-operator for {length}", f"operator-{replica}"
        case faults.FreezeOperator(replica, length):
            return f"freeze-operator for {length}", f"operator-{replica}"
        case faults.KillAgent(device, slot):
            return f"kill-agent in slot {slot}", device
        case faults.CutPowerAtOperation(device, operation, down):
            return f"cut-power-at-operation {operation} for {down}", device
        case faults.DamageFile(device, file, how, version):
            return f"damage-file {file}{'' if version is None else f' of {version}'}: {how}", device
        case faults.CrashContainer(device, deployment, container):
            return f"crash-container {deployment}/{container}", device
        case faults.RestartBus(down):
            return f"restart-bus for {down}", "bus"
        case faults.StopProvider(length):
            return f"stop-provider for {length}", "identity provider"
        case faults.StopCallout(length):
            return f"stop-callout for {length}", "auth callout"
        case faults.RotateSigningKeys():
            return "rotate-signing-keys", "identity provider"
        case faults.CloneDevice(device, length):
            return f"clone-device for {length}", device
        case faults.CorruptSecret(secret, how, length):
            return f"corrupt-secret: {how} for {length}", secret
        case faults.LoseBusTail(down, writes, buckets):
            return f"lose-bus-tail of {writes} writes for {down}", f"bus ({', '.join(buckets)})"
        case _:
            shown = ", ".join(fault.devices[:3])
            more = len(fault.devices) - 3
            return _describe_on_devices(fault), shown + (f" and {more} more" if more > 0 else "")


def _describe_on_devices(fault: faults.OnDevices) -> str:
    match fault:
        case faults.CutPower(_, down):
            return f"cut-power for {down}"
        case faults.RandomPowerCuts(_, count, over, down):
            return f"random-power-cuts: {count} within {over} for {down} each"
        case faults.BrownOut(_, cycles, up, down):
            return f"brown-out: {cycles} times off for {down} and on for {up}"
        case faults.FillDisk(_, leave, length):
            return f"fill-disk up to {leave} bytes for {length}"
        case faults.DiskReadErrors(_, below, length):
            return f"disk-read-errors below {below} for {length}"
        case faults.SlowDisk(_, per_operation, length):
            return f"slow-disk: {per_operation} per operation for {length}"
        case faults.SlowCpu(_, factor, length):
            return f"slow-cpu: {factor} times slower for {length}"
        case faults.SetClock(_, by, length):
            return f"set-clock by {by} for {length}"
        case faults.DriftClock(_, parts, length):
            return f"drift-clock by {parts} ppm for {length}"
        case faults.SilenceEngine(_, length):
            return f"silence-engine for {length}"
        case faults.Partition(_, direction, length):
            return f"partition {direction} for {length}"
        case faults.FlapLink(_, up, down, length):
            return f"flap-link: {down} cut, {up} whole, for {length}"
        case faults.SlowLink(_, bandwidth, length):
            return f"slow-link: {bandwidth} bytes per second for {length}"
