"""The releases of a scenario as real files: the production agent, or the agent with the defect of its plan."""

from __future__ import annotations

from pathlib import Path

from fleet.contracts.ids import Version
from fleet.releases.build import BuiltRelease, running_architecture
from fleet.releases.faulty import build_faulty
from harness.releases import ReleasePlan


def build_all(plans: tuple[ReleasePlan, ...], folder: Path) -> dict[Version, BuiltRelease]:
    """Build every planned release for this machine into `folder`; what is served in place of one, below it.

    Raises: as `fleet.releases.build.build`.
    """
    here = running_architecture()
    return {plan.version: build_faulty(plan.version, here, folder, plan.misbehaviour) for plan in plans}
