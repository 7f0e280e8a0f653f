"""Everything bad in every bucket, on the model and on the real server, while an operator runs.

`write_all` itself holds each entry to what `harness.bad_entries` says the server makes of it.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from fleet.adapters.objects import StandaloneObjects
from fleet.capabilities.bus import Bus, Entry, Stored
from fleet.commands import device as device_command
from fleet.contracts import layout
from fleet.contracts.ids import BootId, DeviceId, InstanceId, ObjectName, Release, Revision, Sha256, Slot, Version
from fleet.contracts.keys import shown
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import Device, DevicePhase, Metadata
from fleet.contracts.records import Health, Heartbeat, Role
from fleet.contracts.time import Duration
from fleet.operator.fleet_state import READ_BUCKETS
from fleet.operator.loop import run_operator
from fleet.operator.ports import OperatorConfig, OperatorPorts
from harness import bad_entries
from harness.bad_entries import BadEntry, Becomes
from harness.targets.bad_writing import RawWriter, write_all
from harness.targets.sim_raw import SimRawWriter
from tests.conformance.conftest import Lab, RealLab, SimLab

PI = DeviceId("dev-1")
RELEASE = Release(version=Version("1.0.0"), sha256=Sha256("a" * 64))
MOMENT = Duration.millis(20)
_TOLD = re.compile(r"(\S+) (.*) at revision [0-9]+ is unreadable: ", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RealRawWriter:
    """See `RawWriter`."""

    lab: RealLab
    bus: Bus

    async def write(self, bucket: Bucket, key: bytes, value: bytes, headers: bytes, becomes: Becomes) -> Revision:
        return await self.lab.process.store_raw("harness", bucket, key, value, headers)

    async def entries(self, bucket: Bucket) -> tuple[Entry, ...]:
        return await self.bus.entries(bucket)

    async def put_back(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> None:
        await self.bus.update(bucket, key, value, last)


def raw_writer(lab: Lab, bus: Bus) -> RawWriter:
    return SimRawWriter(lab.server) if isinstance(lab, SimLab) else RealRawWriter(lab, bus)


async def connected(lab: Lab, name: str) -> Bus:
    bus = lab.bus(name)
    while not bus.is_connected():
        await lab.clock.sleep(MOMENT)
    return bus


OnLab = Callable[[Callable[[Lab], Awaitable[None]]], None]


def test_the_server_makes_of_each_what_is_said(on_lab: OnLab) -> None:
    async def told(lab: Lab) -> None:
        bus = await connected(lab, "harness")
        await bus.put(Bucket.INFO, PI, b"stands for a device")
        await write_all(raw_writer(lab, bus), PI)
        for bucket in Bucket:
            there = {entry.key: entry for entry in await bus.entries(bucket)}
            for bad in bad_entries.of_bucket(bucket):
                entry = there.get(bad.key.decode("utf-8", "surrogateescape"))
                assert _became(entry) is bad.becomes, f"{bad.name} in {bucket}"
                assert not isinstance(entry, Stored) or entry.value == bad.value, f"{bad.name} in {bucket}"

    on_lab(told)


def test_a_catalogue_that_is_wrong_is_noticed(on_lab: OnLab, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = BadEntry("wrong", b"stranger.a", b"", b"", Becomes.REFUSED)
    monkeypatch.setattr(bad_entries, "of_bucket", lambda bucket: (wrong,))

    async def told(lab: Lab) -> None:
        bus = await connected(lab, "harness")
        await bus.put(Bucket.INFO, PI, b"stands for a device")
        with pytest.raises(AssertionError, match="the server took wrong in desired"):
            await write_all(raw_writer(lab, bus), PI)

    on_lab(told)


def test_the_operator_tells_each_once_goes_on_and_takes_the_next_good_one(
    on_lab: OnLab, caplog: pytest.LogCaptureFixture
) -> None:
    async def told(lab: Lab) -> None:
        bus, stop = await connected(lab, "harness"), asyncio.Event()
        objects = StandaloneObjects(bus, lab.chance)
        own = lab.bus("operator")
        ports = OperatorPorts(lab.clock, lab.chance, own, StandaloneObjects(own, lab.chance))
        operator = asyncio.get_running_loop().create_task(run_operator(ports, OperatorConfig(), stop))
        await objects.create(Device(metadata=Metadata(name=ObjectName(PI))))

        async def ready() -> None:
            while (await objects.get(Device, ObjectName(PI))).status.phase is not DevicePhase.READY:
                await bus.put(Bucket.HEARTBEAT, layout.heartbeat(PI, Slot.A).key, layout.encode(_beat(lab)))
                await lab.clock.sleep(Duration.millis(300))

        await ready()
        heal = await write_all(raw_writer(lab, bus), PI)
        for _ in range(2):  # A write under a literal `*` is not republished: it is found when all is read again.
            await lab.crash()
            await lab.restart()
            while not (bus.is_connected() and own.is_connected()):
                await lab.clock.sleep(MOMENT)
            await _until_told(lab, caplog)
            await lab.clock.sleep(Duration.seconds(2))
        await heal()
        await ready()
        assert (await device_command.collect(PI, bus, objects)).unreadable == ()
        assert not operator.done()
        stop.set()
        await operator

    on_lab(told)
    lines = Counter(_lines(caplog))
    assert {place: count for place, count in lines.items() if count != 1} == {}
    assert set(lines) >= _expected()


def _beat(lab: Lab) -> Heartbeat:
    instance = InstanceId(device=PI, version=RELEASE.version, boot=BootId("boot"), start=1)
    return Heartbeat(
        instance=instance,
        slot=Slot.A,
        release=RELEASE,
        role=Role.MANAGING,
        sent=lab.clock.wall(),
        uptime=Duration.seconds(5),
        health=Health(workloads=0, healthy=0, invalid_entries=0),
    )


def _became(entry: Entry | None) -> Becomes:
    match entry:
        case None:
            return Becomes.REFUSED
        case Stored():
            return Becomes.VALUE
        case _:
            return Becomes.DELETION


def _lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Where and which, of each entry that was told to be unreadable."""
    found = (_TOLD.match(record.getMessage()) for record in caplog.records if record.name == "fleet.operator")
    return [(told[1], told[2]) for told in found if told is not None]


def _expected() -> set[tuple[str, str]]:
    """What has to be told, beside the device's own keys: every value under a key that the operator reads."""
    keys = {
        (bucket.value, shown(bad.key.decode("utf-8", "surrogateescape")))
        for bucket in READ_BUCKETS
        for bad in bad_entries.of_bucket(bucket)
        if bad.becomes is Becomes.VALUE
    }
    objects = {
        ("Device", shown(bad.key.decode().removeprefix("Device.")))
        for bad in bad_entries.of_bucket(Bucket.OBJECTS)
        if bad.becomes is Becomes.VALUE and bad.key.startswith(b"Device.")
    }
    return keys | objects


async def _until_told(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(300):
        missing = _expected() - set(_lines(caplog))
        if not missing:
            return
        await lab.clock.sleep(Duration.millis(100))
    raise AssertionError(f"not told: {sorted(missing)}")
