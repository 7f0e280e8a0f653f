"""What a workload is: containers that Podman runs on a device."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeploymentName, Frozen


class Container(Frozen):
    """One container: image, command, environment.

    `environment` holds no secrets: it is stored on the bus in the clear.
    """

    name: DeploymentName
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s]+$")]
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


class PodmanScore(Frozen):
    """Desired containers of one workload on one device. Names are unique inside it.

    Raises:
        InvalidValue: no container, or two of one name.
    """

    containers: tuple[Container, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> PodmanScore:
        names = [container.name for container in self.containers]
        if not names:
            raise InvalidValue("a workload needs at least one container")
        if len(set(names)) != len(names):
            raise InvalidValue(f"container names repeat: {', '.join(sorted(names))}")
        return self
