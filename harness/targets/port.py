"""What a target offers the runner: one fleet, one clock, one journal, and the faults it can inject.

The runner's part of a run is one coroutine over a `Session`. A target runs it on its own event loop: the
simulated world on virtual time, the real ones on wall time with every timer paced by one factor.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

from fleet.capabilities.clock import Clock
from fleet.capabilities.objects import Objects
from fleet.contracts.ids import DeviceId, Version
from fleet.contracts.records import Artefact
from harness.faults import Fault
from harness.releases import ReleasePlan
from sim.journal import Journal

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What a target has to bring up. Devices get the first release installed and verified, as enrolment will do.

    `labels` go on the `Device` objects, one mapping per device, in the order of `devices`. `operators` is the number of
    operator replicas; they are called `operator-0` and so on.
    """

    devices: tuple[DeviceId, ...]
    labels: tuple[dict[str, str], ...]
    releases: tuple[ReleasePlan, ...]
    installed: Version
    operators: int = 1
    faults: frozenset[type[Fault]] = frozenset()
    """The kinds of fault that will be injected, for a target that has to prepare for one."""


class Session(Protocol):
    """One run on one target. All methods raise `FleetError` when the target itself fails."""

    @property
    def clock(self) -> Clock:
        """The run's clock: `monotonic()` counts from the beginning of the run, as `Event.at` does."""
        ...

    @property
    def journal(self) -> Journal:
        """Everything observed."""
        ...

    @property
    def objects(self) -> Objects:
        """Where the user's objects are written."""
        ...

    def artefacts(self, version: Version) -> tuple[Artefact, ...]:
        """A planned release as an `AgentRollout` names it."""
        ...

    async def start(self) -> None:
        """Bring up the control plane and every device with its first release; make the `Device` objects."""
        ...

    async def inject(self, fault: Fault) -> Callable[[], Awaitable[None]] | None:
        """Make a fault happen now. The answer ends it (starts the operator again, restores power, heals the link);
        None when there is nothing to end.

        Raises:
            NotFound: what it should hit is not there (no process in that slot): the fault did not happen.
        """
        ...

    async def settle(self) -> None:
        """Return when everything that has happened so far is in the journal."""
        ...


class Need(Enum):
    """What a scenario needs of a target beside its faults, and not every target has."""

    TIME_OF_DAY = "a run that begins at a known time of day"


class Target(Protocol):
    """A topology that scenarios can run on."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    @property
    def default_devices(self) -> int | None:
        """The number of devices when the command line does not say; None leaves it to the scenario."""
        ...

    @property
    def cannot(self) -> dict[type[Fault], str]:
        """The faults this target cannot inject, each with the reason."""
        ...

    @property
    def lacks(self) -> dict[Need, str]:
        """What else this target does not have, each with the reason."""
        ...

    def run(self, plan: FleetPlan, seed: int, main: Callable[[Session], Awaitable[T]]) -> T:
        """Run `main` over a fresh session and tear everything down, whatever happens.

        Raises: whatever `main` raises; FleetError when the target could not be brought up.
        """
        ...
