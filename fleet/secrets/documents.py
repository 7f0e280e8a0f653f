"""What is kept per secret, and the port between the one store and the places that keep it.

A place is asked for little: read, create what is not there, replace what was read, name what is there. The rules that
must hold everywhere (made once, read back before use, a write whose outcome is unknown is looked up) are written once
above it, in `fleet.secrets.store`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet.capabilities.secrets import Secret
from fleet.contracts.ids import ObjectName


@dataclass(frozen=True, slots=True)
class Kept:
    """Everything that is kept under one name.

    Args:
        previous: the version before, after a rotation.
    """

    current: Secret
    previous: Secret | None = None

    @property
    def name(self) -> ObjectName:
        """The name of the secret."""
        return self.current.name


@dataclass(frozen=True, slots=True)
class Held:
    """What was read, and the token that replacing exactly this takes."""

    kept: Kept
    token: str


class Documents(Protocol):
    """A place that keeps one document per secret. Errors are those of `SecretStore`."""

    async def get(self, name: ObjectName) -> Held:
        """Read it; what is returned survives a power cut. Raises: NotFound when there certainly is none."""
        ...

    async def create(self, kept: Kept) -> None:
        """Keep it. Raises: Conflict when anything stands, or stood, under the name."""
        ...

    async def replace(self, kept: Kept, token: str) -> None:
        """Keep it in place of what was read with the token. Raises: Conflict, NotFound."""
        ...

    async def names(self) -> tuple[ObjectName, ...]:
        """All names, sorted."""
        ...
