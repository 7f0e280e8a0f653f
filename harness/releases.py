"""What a scenario says about releases: a version, and how that artefact misbehaves, if it does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fleet.contracts.ids import Version


class Defect(StrEnum):
    """How a release misbehaves. `NONE`: it is the production agent and nothing else."""

    NONE = "none"
    SELF_TEST_FAILS = "self-test-fails"
    """`--self-test` exits with code 1."""
    SELF_TEST_HANGS = "self-test-hangs"
    """`--self-test` never ends."""
    NEVER_HEARTBEATS = "never-heartbeats"
    """Passes its self-test, starts, and then does nothing for ever."""
    CRASHES_AT_START = "crashes-at-start"
    """Passes its self-test, and exits with code 1 as soon as it is started as a service."""


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """A release that a scenario wants to exist."""

    version: Version
    defect: Defect = Defect.NONE
