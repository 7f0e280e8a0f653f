"""The door exports exactly this, and going through it loads nothing that does not belong there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fleet

ROOT = Path(__file__).parents[2]
EXPORTS = {
    "AdminAuth",
    "AgentUpgradeScore",
    "Changed",
    "Created",
    "DeviceAlreadyEnrolled",
    "DeviceEnrolled",
    "DeviceEnrollmentIntent",
    "DeviceSetUp",
    "DeviceUnchanged",
    "EnrollOutcome",
    "FleetDeviceAuth",
    "FleetDeviceEnrollScore",
    "FleetDeviceSetupScore",
    "FleetServerScore",
    "KeyInFile",
    "KeyInSecret",
    "PodmanOutcome",
    "PodmanScore",
    "ServerChanged",
    "ServerInstalled",
    "ServerOutcome",
    "ServerUnchanged",
    "SetupOutcome",
    "Unchanged",
    "UpgradeOutcome",
}


def loaded_by(program: str) -> set[str]:
    program = f"{program}; import sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_the_door_exports_exactly_this() -> None:
    assert set(fleet.__all__) == EXPORTS
    assert list(fleet.__all__) == sorted(fleet.__all__)


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_each_export_is_there_and_documented(name: str) -> None:
    value = getattr(fleet, name)
    assert not isinstance(value, type) or (value.__doc__ or "").strip()


def test_other_names_are_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Operator'"):
        fleet.Operator  # noqa: B018 - that is what is tested


def test_everything_behind_the_door_is_pure() -> None:
    loaded = loaded_by("from fleet import *")
    assert "fleet.scores.upgrade" in loaded
    outside = {name for name in loaded if name.startswith(("fleet.operator", "fleet.console", "fleet.adapters"))}
    assert outside == set()
    assert loaded.isdisjoint({"nats", "httpx2", "kubernetes", "starlette", "uvicorn", "typer", "asyncio", "simpy"})


def test_passing_by_the_door_loads_nothing() -> None:
    loaded = loaded_by("import fleet.contracts.ids")
    assert not {name for name in loaded if name.startswith(("fleet.scores", "fleet.identity", "fleet.operator"))}
