"""The host below an agent: its service manager, its programs, its one lock, and what it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from fleet.contracts.ids import Architecture, BootId, Slot
from fleet.contracts.time import Duration


@dataclass(frozen=True, slots=True)
class Running:
    """The unit's main process is alive."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The unit is not running and was not meant to be: never started, stopped, or exited with code 0."""


@dataclass(frozen=True, slots=True)
class Failing:
    """The unit ended badly and the service manager starts it again, or has given up after its limit."""

    exits: int
    gave_up: bool


UnitState = Running | Stopped | Failing


class Services(Protocol):
    """The service manager's view of the two agent slots.

    Restarts a unit that ended badly, within a limit; leaves one alone that exited with 0. Starts slot A at boot.
    A unit's process survives the end of the one that asked for its start.
    """

    async def start(self, slot: Slot) -> None:
        """Start the unit of a slot (its boot guard runs the current release). Nothing happens when it runs.

        Raises: Refused, TimedOut.
        """
        ...

    async def stop(self, slot: Slot) -> None:
        """Terminate, then kill after the grace period; returns when the process is gone. Resets the failure count."""
        ...

    async def state(self, slot: Slot) -> UnitState:
        """How the unit is now."""
        ...


@dataclass(frozen=True, slots=True)
class Exited:
    """The program ended by itself."""

    code: int
    output: bytes


@dataclass(frozen=True, slots=True)
class Overran:
    """The program was still running at its deadline and was killed."""


@dataclass(frozen=True, slots=True)
class NotStartable:
    """The program could not be started at all (wrong architecture, missing, not executable)."""

    reason: str


ProgramEnd = Exited | Overran | NotStartable


class Programs(Protocol):
    """Runs a program on the device to its end."""

    async def run(self, program: PurePosixPath, arguments: tuple[str, ...], deadline: Duration) -> ProgramEnd:
        """Start, wait, collect standard output (at most 64 KiB). Leaves nothing running."""
        ...


class HostLock(Protocol):
    """The lock that says which instance manages workloads. The kernel drops it with its holder's death."""

    async def acquire(self) -> None:
        """Wait until this instance holds it. Holds until the process ends or `release`."""
        ...

    def release(self) -> None:
        """Give it up. Nothing happens when it is not held."""
        ...


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the machine is. `boot` changes with every start of the machine."""

    machine_id: str
    boot: BootId
    hardware: str
    operating_system: str
    architecture: Architecture
