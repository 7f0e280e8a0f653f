"""The `Containers` port over the `podman` command. What the agent made is told by labels from everything else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agent.linux.command import Ended, run_within
from fleet.capabilities.containers import ContainerFact
from fleet.contracts.errors import Conflict, FleetError, NoSpace, NotFound, Refused, Unavailable
from fleet.contracts.ids import DeploymentName
from fleet.contracts.podman import Container
from fleet.contracts.time import Duration

LABEL: Final = "io.nationtech.fleet"
LOOK: Final = Duration.seconds(60)
CHANGE: Final = Duration.minutes(3)
PULL: Final = Duration.minutes(60)
GRACE: Final = 10
"""Seconds that a container has to end by itself before it is killed."""

_NO_IMAGE = (b"manifest unknown", b"name unknown", b"not found", b"does not exist", b"repository name not known")
_NO_CONTAINER = (b"no such container", b"no container with name or ID")
_FULL = b"no space left on device"


class _Listed(BaseModel):
    """A container as `podman ps --format json` shows it. Much more stands there."""

    model_config = ConfigDict(extra="ignore")

    image: Annotated[str, Field(alias="Image")]
    state: Annotated[str, Field(alias="State")]
    labels: Annotated[dict[str, str], Field(alias="Labels")]


_LISTING: Final = TypeAdapter(list[_Listed])


class Podman:
    """The engine, reached by the `podman` that `environment` finds on its PATH (the process's own if None).

    The engine restarts nothing by itself: the agent is the only one that starts containers.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, storage: Path = Path("/var/lib/containers")
    ) -> None:
        self._environment = environment
        self._storage = storage

    async def present(self) -> tuple[ContainerFact, ...]:
        """See `Containers.present`."""
        listed = await self._run(LOOK, "ps", "--all", "--filter", f"label={LABEL}.deployment", "--format", "json")
        if listed.code != 0:
            raise Unavailable(f"podman ps: {listed.complaint}")
        return parse_listing(listed.output)

    async def pull(self, image: str) -> None:
        """See `Containers.pull`. Nothing is transferred when the image is there."""
        if (await self._run(LOOK, "image", "exists", "--", image)).code == 0:
            return
        pulled = await self._run(PULL, "pull", "--quiet", "--", image)
        if pulled.code == 0:
            return
        if _FULL in pulled.errors:
            free = _free(self._storage)
            raise NoSpace(free + 1, free)  # How much more than there is, the engine does not say.
        if any(text in pulled.errors for text in _NO_IMAGE):
            raise NotFound(f"{image}: {pulled.complaint}")
        raise Unavailable(f"{image}: {pulled.complaint}")

    async def run(self, deployment: DeploymentName, container: Container, fingerprint: str) -> None:
        """See `Containers.run`. The image has to be there: `pull` is what waits for the network."""
        name = container_name(deployment, container.name)
        ran = await self._run(CHANGE, *_run_arguments(deployment, container, fingerprint))
        if ran.code == 0:
            return
        if b"already in use" in ran.errors:
            raise Conflict(f"{name}: {ran.complaint}")
        await self.remove(deployment, container.name)
        raise Refused(f"{name}: {ran.complaint}")

    async def start(self, deployment: DeploymentName, name: DeploymentName) -> None:
        """See `Containers.start`."""
        started = await self._run(CHANGE, "start", container_name(deployment, name))
        if started.code != 0:
            raise _not_started(started)

    async def remove(self, deployment: DeploymentName, name: DeploymentName) -> None:
        """See `Containers.remove`."""
        removed = await self._run(
            CHANGE, "rm", "--force", "--ignore", "--time", str(GRACE), container_name(deployment, name)
        )
        if removed.code != 0:
            raise Unavailable(f"podman rm: {removed.complaint}")

    async def _run(self, length: Duration, *arguments: str) -> Ended:
        return await run_within(("podman", *arguments), length, self._environment)


def container_name(deployment: DeploymentName, name: DeploymentName) -> str:
    """The engine's name of a container. The dots keep `a-b`/`c` and `a`/`b-c` apart."""
    return f"fleet.{deployment}.{name}"


def parse_listing(output: bytes) -> tuple[ContainerFact, ...]:
    """Read what `podman ps --format json` prints.

    Raises:
        Unavailable: it is not that.
    """
    try:
        facts = [_fact(item) for item in _LISTING.validate_json(output)]
    except (ValidationError, KeyError, FleetError) as error:
        raise Unavailable(f"podman ps answered something else: {type(error).__name__}") from error
    return tuple(sorted(facts, key=lambda fact: (fact.deployment, fact.name)))


def _fact(item: _Listed) -> ContainerFact:
    return ContainerFact(
        deployment=DeploymentName(item.labels[f"{LABEL}.deployment"]),
        name=DeploymentName(item.labels[f"{LABEL}.name"]),
        image=item.image,
        fingerprint=item.labels[f"{LABEL}.fingerprint"],
        running=item.state == "running",
    )


def _run_arguments(deployment: DeploymentName, container: Container, fingerprint: str) -> tuple[str, ...]:
    labels = {"deployment": deployment, "name": container.name, "fingerprint": fingerprint}
    return (
        "run",
        "--detach",
        "--pull=never",
        "--name",
        container_name(deployment, container.name),
        *(part for key, value in labels.items() for part in ("--label", f"{LABEL}.{key}={value}")),
        *(part for key, value in container.environment for part in ("--env", f"{key}={value}")),
        "--",
        container.image,
        *container.command,
    )


def _not_started(started: Ended) -> FleetError:
    if any(text in started.errors for text in _NO_CONTAINER):
        return NotFound(started.complaint)
    return Refused(started.complaint)


def _free(storage: Path) -> int:
    """Bytes free where images are kept."""
    at = storage
    while not at.exists():
        at = at.parent
    found = os.statvfs(at)
    return found.f_bavail * found.f_frsize
