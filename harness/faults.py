"""The faults a scenario can declare: something bad the world does. Values only; targets carry them out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fleet.contracts.ids import DeviceId, Slot
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Duration


@dataclass(frozen=True, slots=True)
class WriteRaw:
    """Someone writes any bytes under any key, with wide permissions. Never heals by itself."""

    bucket: Bucket
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class KillOperator:
    """kill -9 of the operator process; it is started again after `down`."""

    down: Duration


@dataclass(frozen=True, slots=True)
class KillAgent:
    """kill -9 of the agent process in a slot of a device; its service manager does what it does."""

    device: DeviceId
    slot: Slot


@dataclass(frozen=True, slots=True)
class CutPower:
    """A machine loses power, and boots again after `down`."""

    device: DeviceId
    down: Duration


class Direction(StrEnum):
    """Which way a partition cuts."""

    BOTH = "both"
    TO_DEVICE = "to-device"
    FROM_DEVICE = "from-device"


@dataclass(frozen=True, slots=True)
class Partition:
    """The links of some devices are cut for a time."""

    devices: tuple[DeviceId, ...]
    direction: Direction
    length: Duration


Fault = WriteRaw | KillOperator | KillAgent | CutPower | Partition
"""Everything that can be injected. A target names the types it cannot do."""
