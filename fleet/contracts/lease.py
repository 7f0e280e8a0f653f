"""The `Lease` by which the replicas of the operator agree who acts. The fields are those of `coordination.k8s.io/v1`.

Nobody compares its times with a clock of his own: they are for people. Whether a lease has run out is judged by how
long its `resource_version` has not changed (`fleet.operator.lease`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, Field

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import ObjectName
from fleet.contracts.objects import Object
from fleet.contracts.time import Instant

LEASE_VERSION: Final = "coordination.k8s.io/v1"
OPERATOR_LEASE: Final = ObjectName("fleet-operator")
"""The one lease of the fleet's operator."""

MicroTime = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$")]
"""A time of day as Kubernetes writes it: RFC 3339 in UTC with microseconds."""


class _Part(BaseModel):
    model_config = Object.model_config


class LeaseSpec(_Part):
    """Who holds it. An empty `holder_identity`: nobody, it was given back.

    Args:
        holder_identity: `<replica>_<token>`; the token is that of one start of the replica.
        lease_duration_seconds: a candidate that has not seen a change for this long may take it.
        lease_transitions: how often it has gone to another holder.
    """

    holder_identity: str = ""
    lease_duration_seconds: Annotated[int, Field(ge=1)]
    acquire_time: MicroTime
    renew_time: MicroTime
    lease_transitions: Annotated[int, Field(ge=0)] = 0


class LeaseStatus(_Part):
    """A lease has none."""


class Lease(Object):
    """A claim on being the one that acts."""

    kind_name: ClassVar[str] = "Lease"
    api_version: Literal["coordination.k8s.io/v1"] = LEASE_VERSION  # type: ignore[assignment]  # not of the fleet's group
    kind: Literal["Lease"] = "Lease"
    spec: LeaseSpec
    status: LeaseStatus = LeaseStatus()


def micro_time(wall: Instant) -> str:
    """A time of day as a lease states it."""
    return f"{wall.utc()[:-1]}{int(wall) // 1_000 % 1_000:03d}Z"


def identity(replica: ObjectName, token: str) -> str:
    """The holder's name for one start of a replica."""
    return f"{replica}_{token}"


@lru_cache(maxsize=64)
def replica_of(holder_identity: str) -> ObjectName | None:
    """The replica of a holder; None for nobody, and for a name that no replica has."""
    try:
        return ObjectName(holder_identity.partition("_")[0])
    except InvalidValue:
        return None
