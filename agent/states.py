"""Where an upgrade can stand (ADR-022): a small frozen type per state of the brain, and what the brain begins from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.events import AttemptRecord, Condemned
from fleet.contracts.ids import Architecture, InstanceId, Release, Sha256, Slot, Version
from fleet.contracts.records import DesiredAgent


@dataclass(frozen=True, slots=True)
class Me:
    """What this process is."""

    instance: InstanceId
    release: Release
    slot: Slot
    architecture: Architecture


@dataclass(frozen=True, slots=True)
class Found:
    """What the disk said when this process began. `current` is the version that the current link leads to."""

    verified: Release | None = None
    attempt: AttemptRecord | None = None
    current: Version | None = None
    condemned: Mapping[Sha256, Condemned] | None = None
    on_disk: tuple[Release, ...] = ()


# --- states ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Idle:
    """No attempt is under way."""


@dataclass(frozen=True, slots=True)
class Locking:
    """Waits for the upgrade slot."""

    desired: DesiredAgent


@dataclass(frozen=True, slots=True)
class Draining:
    """Brings the workloads to rest."""

    desired: DesiredAgent


@dataclass(frozen=True, slots=True)
class Staging:
    """Brings the release onto the disk."""

    desired: DesiredAgent


@dataclass(frozen=True, slots=True)
class Testing:
    """Lets the release test itself."""

    desired: DesiredAgent


@dataclass(frozen=True, slots=True)
class Swapping:
    """Records the attempt, swaps the link, starts the other unit. Cannot be called off."""

    record: AttemptRecord


@dataclass(frozen=True, slots=True)
class Overlapping:
    """Both instances run. `stopped` counts looks in a row that found the new unit stopped."""

    record: AttemptRecord
    confirmed: bool = False
    stopped: int = 0


@dataclass(frozen=True, slots=True)
class RollingBack:
    """Undoes what was done; the record says how the attempt ends. `leave`: this very process runs the bad release."""

    record: AttemptRecord
    leave: bool = False


@dataclass(frozen=True, slots=True)
class OnTrial:
    """This process runs a release that nobody has confirmed. `watched`: its own deadline is running."""

    record: AttemptRecord | None
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Marking:
    """The operator has confirmed this instance; that is being written to disk."""

    record: AttemptRecord


@dataclass(frozen=True, slots=True)
class Confirmed:
    """It is written. Waits for the host lock."""

    record: AttemptRecord


@dataclass(frozen=True, slots=True)
class Closing:
    """Writes the success down and makes sure that the other slot is empty."""

    record: AttemptRecord


@dataclass(frozen=True, slots=True)
class Leaving:
    """This process is about to end."""


State = (
    Idle
    | Locking
    | Draining
    | Staging
    | Testing
    | Swapping
    | Overlapping
    | RollingBack
    | OnTrial
    | Marking
    | Confirmed
    | Closing
    | Leaving
)
