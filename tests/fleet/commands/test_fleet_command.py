"""The command itself: what it refuses, and one fleet on a real bus from installation to the operator's orderly end."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.nats import NatsBus, PasswordFile
from fleet.contracts import layout
from fleet.contracts.ids import Architecture, BootId, DeviceId, InstanceId, Release, Sha256, Slot, Version
from fleet.contracts.layout import Bucket
from fleet.contracts.records import DesiredAgent, DeviceInfo, Health, Heartbeat, Role
from fleet.contracts.time import ZERO, Duration, Instant
from harness.targets.nats_process import NatsProcess, User

ROOT = Path(__file__).parents[3]
PI = DeviceId("pi-1")
OLD = Release(version=Version("1.0.0"), sha256=Sha256("a" * 64))
RUN = (sys.executable, "-m", "fleet")


def fleet(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((*RUN, *words), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_wrong_input_ends_with_code_2_and_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "fleet.json"
    wrong.write_text("{}", encoding="utf-8")
    for words in (
        ("operator", "run", "--config", str(wrong)),
        ("status", "--config", str(tmp_path / "missing")),
        ("device", "create", "Not A Name", "--config", str(wrong)),
        ("release", "build", "one", "--folder", str(tmp_path)),
    ):
        done = fleet(*words)
        assert done.returncode == 2, done
        assert done.stderr.startswith("fleet: "), done
        assert done.stderr.count("\n") == 1, done
    assert fleet("no-such-command").returncode == 2


def test_a_bus_out_of_reach_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "login.json").write_text('{"user": "u", "password": "p"}', encoding="utf-8")
    config = {"bus": {"url": "nats://127.0.0.1:1", "login": "login.json"}, "pace": 100}
    (tmp_path / "fleet.json").write_text(json.dumps(config), encoding="utf-8")
    done = fleet("status", "--config", str(tmp_path / "fleet.json"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "fleet: no connection to nats://127.0.0.1:1 within 10s"


class Control:
    """A bus, the command's configuration, and a client of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = WallClock()
        self.server = NatsProcess(folder / "nats", (User.fresh("operator"), User.fresh("tester")), self.clock)
        self.config = folder / "fleet.json"
        self.releases = folder / "releases"

    async def start(self) -> NatsBus:
        await self.server.start()
        self.releases.mkdir()
        config = {
            "bus": {"url": self.server.url, "login": str(self.server.login("operator"))},
            "pace": 20,
            "releases": {"folder": "releases", "port": 0},
        }
        self.config.write_text(json.dumps(config), encoding="utf-8")
        bus = NatsBus(self.server.url, "tester", PasswordFile(self.server.login("tester")), self.clock, SystemChance())
        bus.start()
        established = asyncio.Event()
        bus.on_session(established.set)
        async with self.clock.timeout(Duration.seconds(10)):
            await established.wait()
        return bus

    async def fleet(self, *words: str) -> str:
        done = await asyncio.to_thread(fleet, *words, "--config", str(self.config))
        assert done.returncode == 0, done
        return done.stdout


async def wait_for_desired(bus: NatsBus, clock: WallClock) -> DesiredAgent:
    async with clock.timeout(Duration.seconds(20)):
        while True:
            entry = await bus.get(Bucket.DESIRED, layout.desired_agent(PI).key)
            if entry is not None:
                return layout.decode(DesiredAgent, getattr(entry, "value", b""))
            await clock.sleep(Duration.millis(100))


async def beat(bus: NatsBus) -> None:
    info = DeviceInfo(
        device=PI,
        machine_id="m",
        hardware="h",
        operating_system="o",
        architecture=Architecture.AARCH64,
        releases_on_disk=(OLD,),
    )
    instance = InstanceId(device=PI, version=OLD.version, boot=BootId("b"), start=1)
    heartbeat = Heartbeat(
        instance=instance,
        slot=Slot.A,
        release=OLD,
        sent=Instant(0),
        uptime=ZERO,
        role=Role.MANAGING,
        health=Health(workloads=0, healthy=0, invalid_entries=0),
    )
    for record in (info, heartbeat):
        address = layout.address_of(record)
        await bus.put(address.bucket, address.key, layout.encode(record))


async def port_of_releases(operator: asyncio.subprocess.Process) -> int:
    assert operator.stderr is not None
    async for line in operator.stderr:
        if b"served on port" in line:
            return int(line.split()[-1])
    raise AssertionError("the operator never said where it serves releases")


async def story(control: Control) -> None:
    bus = await control.start()
    try:
        assert await control.fleet("bus", "prepare") == "6 buckets stand\n"
        assert await control.fleet("bus", "prepare") == "6 buckets stand\n"
        operator = await asyncio.create_subprocess_exec(
            *RUN, "operator", "run", "--config", str(control.config), cwd=ROOT, stderr=asyncio.subprocess.PIPE
        )
        try:
            await tell(control, bus, await port_of_releases(operator))
        finally:
            operator.send_signal(signal.SIGTERM)
            _, rest = await operator.communicate()
        assert operator.returncode == 0, rest.decode()
        assert b"Traceback" not in rest, rest.decode()
    finally:
        await bus.close()
        await control.server.stop()


async def tell(control: Control, bus: NatsBus, port: int) -> None:
    assert await control.fleet("device", "create", "pi-1", "--label", "ring=first") == "device pi-1 created\n"
    assert await control.fleet("device", "create", "pi-1") == "device pi-1 unchanged\n"
    await beat(bus)
    release = control.releases / "fleet-agent-v1.1.0-aarch64"
    release.write_bytes(b"release")
    words = ["rollout", "create", "r", "--artefact", str(release), "--group", "all:ring=first@1"]
    words += ["--releases-url", f"http://127.0.0.1:{port}"]
    assert await control.fleet(*words) == "rollout r created: 1.1.0 for 1 group(s)\n"
    assert await control.fleet(*words) == "rollout r unchanged: 1.1.0 for 1 group(s)\n"
    desired = await wait_for_desired(bus, control.clock)
    with await asyncio.to_thread(urllib.request.urlopen, desired.artefact.url, timeout=10) as answer:
        assert answer.read() == b"release"
    assert await control.fleet("deployment", "create", "web", "--image", "web:1") == "deployment web created\n"
    await bus.put(Bucket.STATE, "nonsense", b"\xff")
    async with control.clock.timeout(Duration.seconds(30)):
        while True:
            status = json.loads(await control.fleet("status", "--json"))
            if status["deployments"][0]["status"]["desired"] == 1 and status["rollouts"][0]["status"]["total"] == 1:
                break
    assert [device["metadata"]["name"] for device in status["devices"]] == ["pi-1"]
    assert [(problem["where"], problem["name"]) for problem in status["problems"]] == [("state", "nonsense")]
    table = await control.fleet("status")
    assert "1 unreadable entries" in table
    assert "Progressing" in table


@pytest.mark.real
def test_a_fleet_from_installation_to_the_operators_end(tmp_path: Path) -> None:
    asyncio.run(story(Control(tmp_path)))
