"""What a scenario says about releases: a version, and how that artefact misbehaves, if it does."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.contracts.ids import Version
from fleet.releases.defects.catalogue import HEALTHY, Defect, Misbehaviour

__all__ = ["Defect", "Misbehaviour", "ReleasePlan"]


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """A release that a scenario wants to exist."""

    version: Version
    misbehaviour: Misbehaviour = HEALTHY

    @property
    def defect(self) -> Defect:
        """How it misbehaves."""
        return self.misbehaviour.defect
