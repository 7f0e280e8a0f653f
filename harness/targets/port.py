"""What a target offers the runner: one fleet, one clock, one journal, and the faults it can inject.

The runner's part of a run is one coroutine over a `Session`. A target runs it on its own event loop: the
simulated world on virtual time, the real ones on wall time with every timer paced by one factor.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, Protocol, TypeVar

from fleet.capabilities.clock import Clock
from fleet.capabilities.objects import Objects
from fleet.contracts.ids import DeviceId, ObjectName, Version
from fleet.contracts.records import Artefact
from fleet.contracts.time import Duration
from harness.faults import Fault
from harness.releases import ReleasePlan
from sim.journal import Journal

T = TypeVar("T")


class Logins(StrEnum):
    """How the devices of a run prove to the bus who they are."""

    PASSWORD = "password"
    TOKEN = "token"


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
    logins: Logins = Logins.PASSWORD
    """With tokens, there are an identity provider and an auth callout, and every device is enrolled at first."""
    installs: int = 1
    """How many installations make the secrets at the same time, before anything else is started."""


class IdentityDesk(Protocol):
    """What people who enrol devices do, on a fleet whose devices log in by tokens. All of it may be done again.

    Raises: Unavailable, Unknown (again), Refused.
    """

    async def revoke(self, device: DeviceId) -> None:
        """Let it in no more."""
        ...

    async def re_enroll(self, device: DeviceId) -> None:
        """Let it in again, with a new key."""
        ...

    async def rotate_key(self, device: DeviceId) -> None:
        """Give it a new key and take the old one away."""
        ...

    async def reconcile(self) -> None:
        """Bring the enrolments of all devices into line with the provider. Raises also: Conflict."""
        ...


class SecretDesk(Protocol):
    """What people who install do with the secrets of the installation, and what the harness knows of them."""

    async def install(self, at_once: int) -> None:
        """Make those that are missing and keep the others, in so many installations at once; each is journaled.

        Raises: Unavailable, Unknown (again).
        """
        ...

    async def rotate(self, secret: ObjectName) -> None:
        """Make a new version of one. Raises: Conflict, Unavailable, Unknown (again), InvalidValue."""
        ...

    async def search(self) -> None:
        """Look for their values in everything the run has written, and journal what was found (`SecretShown`)."""
        ...

    def shown_in(self, text: str) -> tuple[str, ...]:
        """The names of those whose value stands in the text."""
        ...


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

    @property
    def identities(self) -> IdentityDesk:
        """Where devices are revoked and enrolled again. Raises: InvalidValue when they log in by passwords."""
        ...

    @property
    def secrets(self) -> SecretDesk:
        """The secrets that the control plane of this run uses."""
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


TOKEN_LIFE: Final = Duration.minutes(12 * 60)
"""How long a token of the identity provider is good: what Zitadel hands out unless it is told otherwise."""


class Need(Enum):
    """What a scenario needs of a target beside its faults, and not every target has."""

    TIME_OF_DAY = "a run that begins at a known time of day"
    IDENTITIES = "devices that log in by tokens"
    TOKENS_THAT_END = "tokens that end within the run"
    OTHER_OWNERS = "files that belong to another user"


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
