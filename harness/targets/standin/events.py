"""What a device of plain processes reports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fleet.contracts.errors import Unavailable
from fleet.contracts.ids import BootId, Slot


@dataclass(frozen=True, slots=True)
class MachineUp:
    """The device has booted."""

    boot: BootId


@dataclass(frozen=True, slots=True)
class UnitStarted:
    """A unit's main process runs."""

    slot: Slot
    pid: int


@dataclass(frozen=True, slots=True)
class UnitEnded:
    """A unit's main process is gone. `code` is its exit code; negative is the signal that ended it."""

    slot: Slot
    pid: int
    code: int


@dataclass(frozen=True, slots=True)
class BoxStarted:
    """A container runs."""

    deployment: str
    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class BoxEnded:
    """A container no longer runs."""

    deployment: str
    name: str


MachineEvent = MachineUp | UnitStarted | UnitEnded | BoxStarted | BoxEnded


def parse(line: bytes) -> MachineEvent:
    """Read one line of the supervisor's output.

    Raises:
        Unavailable: it is none: the supervisor is broken.
    """
    try:
        fields: dict[str, Any] = json.loads(line)
        match fields["event"]:
            case "up":
                return MachineUp(BootId(fields["boot"]))
            case "unit-started":
                return UnitStarted(Slot(fields["slot"]), int(fields["pid"]))
            case "unit-ended":
                return UnitEnded(Slot(fields["slot"]), int(fields["pid"]), int(fields["code"]))
            case "container-started":
                return BoxStarted(fields["deployment"], fields["name"], fields["fingerprint"])
            case "container-ended":
                return BoxEnded(fields["deployment"], fields["name"])
            case other:
                raise Unavailable(f"the supervisor reported an unknown event {other!r}")
    except (ValueError, KeyError) as error:
        raise Unavailable(f"the supervisor reported nonsense: {line[:200]!r}") from error
