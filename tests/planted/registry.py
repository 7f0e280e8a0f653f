"""All planted bugs."""

from __future__ import annotations

from typing import Final

from tests.planted import agent_bugs, operator_bugs, world_bugs
from tests.planted.plant import Bug

BUGS: Final[tuple[Bug, ...]] = (*agent_bugs.BUGS, *operator_bugs.BUGS, *world_bugs.BUGS)
