"""The container engine of a device (Podman, or what stands in for it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet.contracts.ids import DeploymentName
from fleet.contracts.podman import Container


@dataclass(frozen=True, slots=True)
class ContainerFact:
    """A container the engine knows and the agent made. `fingerprint` is what `run` was given."""

    deployment: DeploymentName
    name: DeploymentName
    image: str
    fingerprint: str
    running: bool


class Containers(Protocol):
    """Containers the agent made, told by label from whatever else runs on the machine.

    All methods raise `Unavailable` when the engine does not answer, `TimedOut` when it did not in time.
    """

    async def present(self) -> tuple[ContainerFact, ...]:
        """All of them, running or not, sorted by deployment and name."""
        ...

    async def pull(self, image: str) -> None:
        """Have the image on the device. Raises: NotFound, NoSpace."""
        ...

    async def run(self, deployment: DeploymentName, container: Container, fingerprint: str) -> None:
        """Create and start. Raises: Conflict when one of that name exists, Refused when it does not start."""
        ...

    async def start(self, deployment: DeploymentName, name: DeploymentName) -> None:
        """Start one that is not running. Raises: NotFound, Refused."""
        ...

    async def remove(self, deployment: DeploymentName, name: DeploymentName) -> None:
        """Stop and remove. Nothing happens when it is missing."""
        ...
