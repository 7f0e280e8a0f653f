"""The releases of a scenario as real files: the production agent, or the agent behind a misbehaving front."""

from __future__ import annotations

from pathlib import Path

from fleet.contracts.ids import Version
from fleet.releases.build import AGENT, BuiltRelease, build, running_architecture
from harness.releases import Defect, ReleasePlan

_DEFECTS = Path(__file__).parents[1] / "defects"
_ENTRIES = {
    Defect.NONE: AGENT,
    Defect.SELF_TEST_FAILS: "defects:self_test_fails",
    Defect.SELF_TEST_HANGS: "defects:self_test_hangs",
    Defect.NEVER_HEARTBEATS: "defects:never_heartbeats",
    Defect.CRASHES_AT_START: "defects:crashes_at_start",
}


def build_all(plans: tuple[ReleasePlan, ...], folder: Path) -> dict[Version, BuiltRelease]:
    """Build every planned release for this machine into `folder`.

    Raises: as `fleet.releases.build.build`.
    """
    return {plan.version: _build(plan, folder) for plan in plans}


def _build(plan: ReleasePlan, folder: Path) -> BuiltRelease:
    extra = () if plan.defect is Defect.NONE else (_DEFECTS,)
    return build(plan.version, running_architecture(), folder, entry=_ENTRIES[plan.defect], extra=extra)
