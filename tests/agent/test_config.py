"""The agent's configuration file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.config import AgentFile, BusWithIdentity, BusWithPassword, below, load
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId

GOOD = {"device": "dev-1", "bus": {"url": "nats://127.0.0.1:4222", "login": "/etc/fleet-agent/login.json"}}


def test_a_good_file_is_read_and_written_back(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GOOD))
    found = load(path)
    bus = BusWithPassword(url="nats://127.0.0.1:4222", login="/etc/fleet-agent/login.json")
    assert found == AgentFile(device=DeviceId("dev-1"), bus=bus)
    path.write_text(found.model_dump_json())
    assert load(path) == found


def test_a_device_with_an_identity_names_it(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GOOD | {"bus": {"url": "tls://bus.example:4222", "auth": "/etc/a.json"}}))
    found = load(path)
    assert found.bus == BusWithIdentity(url="tls://bus.example:4222", auth="/etc/a.json")
    path.write_text(found.model_dump_json())
    assert load(path) == found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"device": "Not A Device"}, "device"),
        ({"pace": 0}, "pace"),
        ({"bus": {"url": "nats://user:secret@127.0.0.1", "login": "/x"}}, "bus.url"),
        ({"bus": {"url": "nats://127.0.0.1", "login": "relative"}}, "bus.login"),
        ({"bus": {"url": "nats://127.0.0.1", "login": "/x", "auth": "/y"}}, "bus.login: Extra"),
        ({"bus": {"url": "nats://127.0.0.1", "auth": "secret"}}, "bus.auth"),
        ({"bus": {"url": "nats://127.0.0.1"}}, "bus.login: Field required"),
        ({"bus": "secret"}, "bus"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not_quoted(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(InvalidValue) as caught:
        load(path)
    assert named in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_what_is_no_configuration_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InvalidValue, match="not an agent configuration"):
        load(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="cannot be read"):
        load(tmp_path / "config.json")


def test_paths_are_those_of_the_device() -> None:
    assert below(Path("/srv/dev-1"), "/etc/x") == Path("/srv/dev-1/etc/x")
