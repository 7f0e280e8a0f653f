"""Secrets that are made once and read ever after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Instant


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret value with its version. The value never shows in `repr`."""

    name: ObjectName
    version: int
    made: Instant
    value: bytes = field(repr=False)


class SecretStore(Protocol):
    """Keeps secrets. A corrupt or unreadable store raises `InvalidValue` and is never a reason to make a new value."""

    async def ensure(self, name: ObjectName, make: Callable[[], bytes]) -> Secret:
        """The stored secret; `make` is called only when there certainly is none. Racing callers get one value."""
        ...

    async def rotate(self, name: ObjectName, make: Callable[[], bytes], last: int) -> Secret:
        """A new version after version `last`. Raises: Conflict, NotFound."""
        ...

    async def names(self) -> tuple[ObjectName, ...]:
        """All names, sorted."""
        ...
