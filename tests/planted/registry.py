"""All planted bugs."""

from __future__ import annotations

from typing import Final

from tests.planted import agent_bugs, operator_bugs, rollout_bugs, workload_bugs, world_bugs
from tests.planted.plant import Bug

_ROOMS: Final = (agent_bugs, operator_bugs, rollout_bugs, workload_bugs, world_bugs)

BUGS: Final[tuple[Bug, ...]] = tuple(bug for room in _ROOMS for bug in room.BUGS)
