"""The Kubernetes port: typed objects with resource versions, optimistic concurrency and watches.

Implementations: the API server, the standalone store on a NATS KV bucket, the simulated model.
`resource_version` is compared for equality only and never carried across stores.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from fleet.contracts.ids import ObjectName
from fleet.contracts.objects import Object

O = TypeVar("O", bound=Object)  # noqa: E741 - the one-letter name of the type variable, as in the other ports
O_co = TypeVar("O_co", bound=Object, covariant=True)


@dataclass(frozen=True, slots=True)
class InvalidObject:
    """Something stands under this name that is not an object of that kind."""

    kind: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing(Generic[O_co]):
    """All objects of a kind by name, what could not be read, and the version to watch from."""

    items: tuple[O_co, ...]
    invalid: tuple[InvalidObject, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Applied(Generic[O_co]):
    """An object was created or changed; this is it now."""

    object: O_co


@dataclass(frozen=True, slots=True)
class Removed:
    """An object was deleted."""

    kind: str
    name: ObjectName


WatchEvent = Applied[O_co] | Removed | InvalidObject


class Objects(Protocol):
    """A store of objects.

    All methods raise `Unavailable`, `TimedOut` or `Disconnected` when the store does not answer.
    """

    async def list(self, kind: type[O]) -> Listing[O]:
        """All objects of the kind."""
        ...

    async def get(self, kind: type[O], name: ObjectName) -> O:
        """One object. Raises: NotFound, InvalidValue."""
        ...

    async def create(self, item: O) -> O:
        """Make it. Raises: Conflict when the name is taken."""
        ...

    async def replace(self, item: O) -> O:
        """Replace labels and spec; the status stays. Raises: Conflict on another `resource_version`, NotFound."""
        ...

    async def replace_status(self, item: O) -> O:
        """Replace the status alone. Raises: Conflict on another `resource_version`, NotFound."""
        ...

    async def delete(self, kind: type[O], name: ObjectName) -> None:
        """Delete it. Raises: NotFound."""
        ...

    def watch(self, kind: type[O], since: str) -> AsyncIterator[WatchEvent[O]]:
        """Every change after `since`, for ever.

        Ends with `Refused` when `since` is too old, and with `Disconnected` when the store went away: list again then.
        """
        ...
