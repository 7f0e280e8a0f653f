"""All planted bugs."""

from __future__ import annotations

from typing import Final

from tests.planted import (
    agent_bugs,
    disk_bugs,
    identity_bugs,
    operator_bugs,
    order_bugs,
    rollout_bugs,
    secret_bugs,
    workload_bugs,
    world_bugs,
)
from tests.planted.plant import Bug

_ROOMS: Final = (
    agent_bugs,
    disk_bugs,
    workload_bugs,
    order_bugs,
    operator_bugs,
    rollout_bugs,
    world_bugs,
    identity_bugs,
    secret_bugs,
)

ROOMS: Final[dict[str, tuple[Bug, ...]]] = {room.__name__: room.BUGS for room in _ROOMS}
"""By the module that holds them."""
BUGS: Final[tuple[Bug, ...]] = tuple(bug for room in ROOMS.values() for bug in room)
