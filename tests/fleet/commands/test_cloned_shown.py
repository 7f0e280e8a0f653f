"""That two machines have one identity is shown wherever the condition of a device is."""

from __future__ import annotations

import json

from rich.console import Console

from fleet.commands import device, tables
from fleet.commands.status import FleetStatus
from fleet.contracts.ids import BootId, DeviceId, ObjectName
from fleet.contracts.objects import Cloned, Device, DevicePhase, DeviceStatus, Metadata
from fleet.contracts.time import Instant

CLONED = Cloned(since=Instant(1_790_000_000 * 10**9), boots=(BootId("b-1"), BootId("b-2")))


def item(name: str, cloned: Cloned | None) -> Device:
    return Device(metadata=Metadata(name=ObjectName(name)), status=DeviceStatus(phase=DevicePhase.READY, cloned=cloned))


def test_the_status_of_the_fleet_names_the_device_and_counts_it() -> None:
    status = FleetStatus((item("pi-1", CLONED), item("pi-2", None)), (), (), ())
    console = Console(width=200, force_terminal=False)
    with console.capture() as captured:
        tables.show(status, console)
    lines = captured.get().splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("pi-")] == [
        ["pi-1", "Ready", "cloned"],
        ["pi-2", "Ready"],
    ]
    assert lines[-1] == "2 of 2 devices ready, 0 unreadable entries, 1 devices with two machines under one identity"
    stored = json.loads(status.to_json())["devices"][0]["status"]["cloned"]
    assert stored["boots"] == ["b-1", "b-2"]


def test_a_device_is_shown_with_the_two_boots() -> None:
    seen = device.DeviceView(DeviceId("pi-1"), item("pi-1", CLONED), (), ())
    console = Console(width=200, force_terminal=False)
    with console.capture() as captured:
        device.show(seen, console)
    assert "two machines have its identity since 2026-09-21T" in captured.get()
    assert "with boots b-1 and b-2" in captured.get()
