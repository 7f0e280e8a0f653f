"""The unit file says what the port promises."""

from __future__ import annotations

from configparser import ConfigParser

from agent.linux.units import AgentUnit, unit_name
from fleet.contracts.ids import Slot
from fleet.contracts.time import Duration


def parsed(text: str) -> ConfigParser:
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # keep systemd's capital letters
    unit.read_string(text)
    return unit


def test_production_values() -> None:
    unit = parsed(AgentUnit().render())
    assert dict(unit["Unit"]) == {
        "Description": "Harmony Fleet agent (slot %i)",
        "StartLimitIntervalSec": "60s",
        "StartLimitBurst": "5",
    }
    assert dict(unit["Service"]) == {
        "Type": "exec",
        "ExecStart": "/usr/bin/python3 /usr/local/lib/fleet-agent/launcher.py %i",
        "Restart": "on-failure",
        "RestartSec": "5s",
        "KillMode": "mixed",
        "TimeoutStopSec": "10s",
    }
    assert dict(unit["Install"]) == {"WantedBy": "multi-user.target", "DefaultInstance": "a"}


def test_fractions_of_seconds() -> None:
    assert parsed(AgentUnit(restart_after=Duration.millis(250)).render())["Service"]["RestartSec"] == "250ms"


def test_names() -> None:
    assert [unit_name(slot) for slot in Slot] == ["fleet-agent@a.service", "fleet-agent@b.service"]
