"""The control plane as a Score: operator, message bus, release storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fleet.contracts.auth import Url
from fleet.contracts.ids import Frozen, ObjectName, Version

Bytes = Annotated[int, Field(gt=0)]


class FleetServerScore(Frozen):
    """The control plane of one fleet.

    Args:
        namespace: where in the cluster it lives.
        version: of the operator.
        hostname: under which devices reach the bus and the releases.
        issuer: the identity provider that devices and people log in at.
        operator_replicas: one of them leads.
        bus_storage: bytes of disk for the message bus.
        release_storage: bytes of disk for releases.
    """

    namespace: ObjectName
    version: Version
    hostname: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
    issuer: Url
    operator_replicas: Annotated[int, Field(ge=1, le=5)] = 2
    bus_storage: Bytes = 2 * 2**30
    release_storage: Bytes = 10 * 2**30


@dataclass(frozen=True, slots=True)
class ServerInstalled:
    """There was no control plane; there is one now."""


@dataclass(frozen=True, slots=True)
class ServerChanged:
    """Parts of it were changed; they are named."""

    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerUnchanged:
    """It stands exactly as described; nothing was written and no secret was made."""


ServerOutcome = ServerInstalled | ServerChanged | ServerUnchanged
