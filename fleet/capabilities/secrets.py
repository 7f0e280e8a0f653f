"""Secrets that are made once and read ever after.

`SecretStore` is what programs use. Below it stand two narrow ports for places that keep secrets and have no folder of
their own: the Secret objects of a Kubernetes API server, and the KV v2 engine of OpenBao. A value crosses them as bytes
and appears in nothing that is ever printed: not in `repr`, not in the text of an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Instant

LARGEST_VALUE: Final = 64 * 1024
"""Bytes of one value. Two of them, encoded, fit into what every place takes."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret value with its version. The value never shows in `repr`.

    Args:
        version: counts from 1, one more with each rotation.
        made: when this version was made, by the wall clock of the machine that made it.
    """

    name: ObjectName
    version: int
    made: Instant
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretSeen:
    """A secret as it is listed: without its value."""

    name: ObjectName
    version: int
    made: Instant


@dataclass(frozen=True, slots=True)
class SecretUnreadable:
    """Something stands under this name that is not a secret of this project, or was damaged or deleted."""

    name: ObjectName
    reason: str


Make = Callable[[], bytes]
"""Makes a value of 1 to `LARGEST_VALUE` bytes."""


class SecretStore(Protocol):
    """Keeps secrets.

    What is damaged, deleted or cannot be read raises `InvalidValue`, which says where it is and what to do, and is
    never a reason to make a new value. All methods raise `Unavailable` or `NotPermitted` (it certainly did not happen),
    and `TimedOut`, `Disconnected` or `DiskFault` (it may have happened, and the next call finds out).
    """

    async def ensure(self, name: ObjectName, make: Make) -> Secret:
        """The stored secret; `make` is called only when there certainly is none. Racing callers get one value.

        Nothing is handed out that was not read back from where it is kept.

        Raises: Refused when `make` gives nothing, TooLarge, NoSpace.
        """
        ...

    async def read(self, name: ObjectName) -> Secret:
        """The newest version. Raises: NotFound."""
        ...

    async def previous(self, name: ObjectName) -> Secret:
        """The version before the newest, which rotation keeps. Raises: NotFound when there is none."""
        ...

    async def rotate(self, name: ObjectName, make: Make, last: int) -> Secret:
        """A new version after version `last`, which is kept.

        Raises: Conflict when the newest version is another one, NotFound, Refused, TooLarge, NoSpace.
        """
        ...

    async def names(self) -> tuple[ObjectName, ...]:
        """All names, sorted."""
        ...

    async def seen(self) -> tuple[SecretSeen | SecretUnreadable, ...]:
        """Every name with its version and when that was made, sorted by name."""
        ...


@dataclass(frozen=True, slots=True)
class SecretObject:
    """A Kubernetes Secret as far as this project uses it. The data never shows in `repr`.

    Args:
        resource_version: empty when it was not read from a server. Compared for equality only.
    """

    name: str
    labels: Mapping[str, str]
    data: Mapping[str, bytes] = field(repr=False)
    resource_version: str = ""


class SecretObjects(Protocol):
    """The Secret objects of one namespace of a Kubernetes API server.

    All methods raise `NotPermitted`, `Unavailable`, `TimedOut` or `Disconnected`.
    """

    async def get(self, name: str) -> SecretObject:
        """Read one. Raises: NotFound."""
        ...

    async def create(self, item: SecretObject) -> SecretObject:
        """Make it. Raises: Conflict when the name is taken (409)."""
        ...

    async def replace(self, item: SecretObject) -> SecretObject:
        """Replace all of it. Raises: Conflict on another `resource_version` (409), NotFound."""
        ...

    async def names(self, label: tuple[str, str]) -> tuple[str, ...]:
        """The names of those with that label and value, sorted."""
        ...


@dataclass(frozen=True, slots=True)
class KvEntry:
    """The newest version of a KV v2 entry. The data never shows in `repr`.

    Args:
        data: None when that version was deleted or destroyed: the metadata stand, the content does not.
        destroyed: no undelete brings it back.
    """

    version: int
    data: Mapping[str, str] | None = field(repr=False)
    destroyed: bool = False


class KvEngine(Protocol):
    """One KV v2 mount of an OpenBao server.

    All methods raise `NotPermitted` (403: also an expired token), `Unavailable` (sealed, out of reach), `Refused`,
    `InvalidValue` (an answer that is none), `TimedOut` or `Disconnected`.
    """

    async def get(self, path: str) -> KvEntry:
        """Read one. Raises: NotFound when there is not even metadata."""
        ...

    async def put(self, path: str, data: Mapping[str, str], last: int) -> int:
        """Write a version after version `last` (0: none ever was); returns its number. Raises: Conflict."""
        ...

    async def names(self, folder: str) -> tuple[str, ...]:
        """The entries directly below the folder, deleted ones included, sorted."""
        ...
