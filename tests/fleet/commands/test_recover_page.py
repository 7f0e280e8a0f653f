"""The runbook docs/how-to/recover-a-device.md is followed literally: its commands, on a real bus, give its outputs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.nats import NatsBus, PasswordFile
from fleet.contracts import layout
from fleet.contracts.ids import (
    Architecture,
    AttemptId,
    BootId,
    DeploymentName,
    DeviceId,
    InstanceId,
    Release,
    Revision,
    Sha256,
    Slot,
    Version,
)
from fleet.contracts.records import (
    Artefact,
    ContainerCondition,
    ContainerReport,
    DesiredAgent,
    DeviceInfo,
    Health,
    Heartbeat,
    Record,
    Role,
    RolledBack,
    UpgradePhase,
    UpgradeState,
    WorkloadState,
)
from fleet.contracts.time import Duration, Instant
from harness.targets.nats_process import NatsProcess, User
from tests.fleet.commands.page import HOW_TO, console_blocks, follow, lines

PAGE = HOW_TO / "recover-a-device.md"
PI, WEB = DeviceId("pi-1"), DeploymentName("web")
OLD = Release(version=Version("1.0.0"), sha256=Sha256("a" * 64))
NEW = Release(version=Version("1.1.0"), sha256=Sha256("b" * 64))
NOON = Instant(1_795_608_000 * 10**9)


def records() -> tuple[Record, ...]:
    """A device that has rolled release 1.1.0 back, and on which a container does not start."""
    instance = InstanceId(device=PI, version=OLD.version, boot=BootId("b1"), start=4)
    attempt = AttemptId("move-1-bbbbbbbbbbbb")
    artefact = Artefact(release=NEW, architecture=Architecture.AARCH64, size=1, url="http://127.0.0.1/r")
    reason = "not confirmed by the operator within 5m in which it could have been"
    box = ContainerReport(
        name=DeploymentName("front"), image="web:1", condition=ContainerCondition.FAILED, detail="no such image"
    )
    return (
        DeviceInfo(
            device=PI,
            machine_id="3f1c",
            hardware="Raspberry Pi 4 Model B",
            operating_system="Debian 12",
            architecture=Architecture.AARCH64,
            releases_on_disk=(OLD, NEW),
        ),
        DesiredAgent(device=PI, attempt=attempt, artefact=artefact, granted=NOON),
        UpgradeState(
            device=PI,
            attempt=attempt,
            release=NEW,
            reporter=instance,
            status=RolledBack(phase=UpgradePhase.OVERLAPPING, reason=reason),
        ),
        WorkloadState(device=PI, deployment=WEB, desired=Revision(1), containers=(box,)),
        Heartbeat(
            instance=instance,
            slot=Slot.A,
            release=OLD,
            sent=NOON,
            uptime=Duration.minutes(61),
            role=Role.MANAGING,
            health=Health(workloads=1, healthy=0, invalid_entries=0),
        ),
    )


async def story(folder: Path) -> list[tuple[str, str, str]]:
    """Each command with what the page says and what it printed."""
    clock = WallClock()
    server = NatsProcess(folder / "nats", (User.fresh("operator"), User.fresh("tester")), clock)
    await server.start()
    config = {"bus": {"url": server.url, "login": str(server.login("operator"))}, "pace": 20}
    (folder / "fleet.json").write_text(json.dumps(config), encoding="utf-8")
    release = folder / "fleet-agent-v1.1.0-aarch64"
    release.write_bytes(b"release")
    try:
        await follow(folder, "fleet bus prepare --config fleet.json")
        await follow(folder, "fleet device create pi-1 --config fleet.json")
        create = f"fleet rollout create move --artefact {release} --releases-url http://127.0.0.1:1 --config fleet.json"
        await follow(folder, create)
        bus = NatsBus(server.url, "tester", PasswordFile(server.login("tester")), clock, SystemChance())
        bus.start()
        established = asyncio.Event()
        bus.on_session(established.set)
        async with clock.timeout(Duration.seconds(10)):
            await established.wait()
        for record in records():
            address = layout.address_of(record)
            await bus.put(address.bucket, address.key, layout.encode(record))
        await bus.close()
        blocks = console_blocks(PAGE.read_text(encoding="utf-8"))
        return [(told.command, told.output, await follow(folder, told.command)) for told in blocks]
    finally:
        await server.stop()


@pytest.mark.real
def test_the_runbook_gives_what_it_says(tmp_path: Path) -> None:
    told = asyncio.run(story(tmp_path))
    assert len(told) >= 4
    for command, said, printed in told:
        assert lines(printed) == lines(said), command
