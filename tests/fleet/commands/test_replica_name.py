"""A replica of the operator has one name, and knows where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.commands.config import BusConfig, FleetConfig, replica_name
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import ObjectName


def config(replica: str | None = None) -> FleetConfig:
    bus = BusConfig(url="nats://127.0.0.1:4222", login=Path("login"))
    return FleetConfig(bus=bus, replica=None if replica is None else ObjectName(replica))


def test_the_command_line_goes_before_the_file_and_the_file_before_the_host() -> None:
    assert replica_name("told", config("filed"), "host") == "told"
    assert replica_name(None, config("filed"), "host") == "filed"
    assert replica_name(None, config(), "Operator-7b9.cluster.example") == "operator-7b9"


@pytest.mark.parametrize(("told", "host", "words"), [("Not A Name", "host", "object name"), (None, "_", "--replica")])
def test_what_cannot_be_a_name_is_refused(told: str | None, host: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        replica_name(told, config(), host)
