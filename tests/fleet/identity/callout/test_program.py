"""`fleet callout run` as the process it is in production: its file, its secrets, a provider over HTTP, and a storm."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet.__main__ import command
from fleet.adapters.clock import SystemChance
from fleet.adapters.nats import NatsBus, PasswordFile
from fleet.adapters.nats_admin import NatsAdmin
from fleet.contracts import layout
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import BUCKETS
from fleet.contracts.records import Admitted, Enrolment
from fleet.contracts.time import Duration, Instant
from fleet.roots.logins import server_config
from fleet.secrets.file import FileDocuments
from fleet.secrets.registry import ensure_all
from fleet.secrets.store import Secrets
from harness.targets.local_process import Child
from harness.targets.nats_process import NatsProcess, User
from tests.fleet.identity.callout.provider import PROJECT, jwks, key
from tests.fleet.identity.callout.raw import RawClient
from tests.fleet.identity.callout.stage import CLOCK, QUICK, shown, until

DEVICES = 500


class Provider:
    """The two documents of a provider that the callout reads."""

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.issuer = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self.issuer

    def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readline()).split()[1]
        while (await reader.readline()).strip():
            pass
        discovery = json.dumps({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}).encode()
        body = jwks(key()) if path == b"/keys" else discovery
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()


class Installation:
    """Secrets in a folder, a server that is configured from them, and callouts as processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.provider = Provider()
        self.children: list[Child] = []
        self.buses: list[NatsBus] = []

    async def start(self) -> None:
        issuer = await self.provider.start()
        store = Secrets(FileDocuments(self.folder / "secrets", CLOCK), CLOCK)
        await ensure_all(store)
        config = await server_config(store, "", "127.0.0.1", -1)
        users = tuple(User(item.name, item.password, item.permissions) for item in config.users)
        self.server = NatsProcess(self.folder / "nats", users, CLOCK, callout=config.callout)
        await self.server.start()
        self.config = self.folder / "callout.json"
        secrets = {"store": "file", "folder": "secrets"}
        told = {"url": self.server.url, "issuer": issuer, "project": PROJECT, "secrets": secrets}
        self.config.write_text(json.dumps(told))
        admin = await self.bus("admin")
        for spec in BUCKETS:
            await NatsAdmin(admin).ensure_bucket(spec)
        self.enrolment = await self.bus("enrolment")

    async def stop(self) -> None:
        for child in self.children:
            assert await child.stop(CLOCK, Duration.seconds(10)) == 0
        for bus in self.buses:
            await bus.close()
        await self.server.stop()
        self.provider.close()

    async def callout(self, name: str) -> Path:
        log = self.folder / f"{name}.log"
        program = (sys.executable, "-m", "fleet", "callout", "run", "--config", str(self.config))
        self.children.append(await Child.start(program, log, {"PATH": os.defpath, "PYTHONPATH": os.getcwd()}))
        await until(lambda: "answers for" in log.read_text(), Duration.seconds(60))
        return log

    async def bus(self, name: str) -> NatsBus:
        bus = NatsBus(self.server.url, name, PasswordFile(self.server.login(name)), CLOCK, SystemChance(), QUICK)
        bus.start()
        self.buses.append(bus)
        await until(bus.is_connected)
        return bus

    async def admit(self, device: str) -> None:
        standing = Admitted(tokens_from=Instant(0))
        record = Enrolment(device=DeviceId(device), user=f"user-of-{device}", standing=standing)
        place = layout.enrolment(record.device)
        await self.enrolment.put(place.bucket, place.key, layout.encode(record))

    def client(self, device: str) -> RawClient:
        return RawClient(self.server.port, shown(device, iss=self.provider.issuer))


def story(tell: Callable[[Installation], Awaitable[None]]) -> Callable[[Path], None]:
    async def told(folder: Path) -> None:
        installation = Installation(folder)
        async with CLOCK.timeout(Duration.minutes(5)):
            await installation.start()
            try:
                await tell(installation)
            finally:
                await installation.stop()

    @pytest.mark.real
    def test(tmp_path: Path) -> None:
        asyncio.run(told(tmp_path))

    test.__doc__ = tell.__doc__
    return test


@story
async def test_five_hundred_at_once_all_come_in(installation: Installation) -> None:
    """Whom the callout cannot answer in time, it does not answer at all; they come again, as a device does."""
    names = [f"dev-{number}" for number in range(1, DEVICES + 1)]
    await asyncio.gather(*(installation.admit(name) for name in names))
    log = await installation.callout("one")
    clients = [installation.client(name) for name in names]
    began = CLOCK.monotonic()
    tries = await asyncio.gather(*(_persistent(client) for client in clients))
    print(f"{DEVICES} at once: all in after {CLOCK.monotonic() - began}, {sum(tries)} tries")
    for client in clients:
        client.close()
    assert "refused" not in log.read_text()


async def _persistent(client: RawClient) -> int:
    """Connect until it works, as devices do; how many tries it took."""
    for tries in range(1, 60):
        if await client.tried():
            return tries
        await CLOCK.sleep(SystemChance().between(Duration.seconds(1), Duration.seconds(3)))
    raise AssertionError("never let in")


@story
async def test_one_of_two_callouts_may_be_killed(installation: Installation) -> None:
    await installation.admit("dev-1")
    one, _ = await installation.callout("one"), await installation.callout("two")
    installation.children[0].kill()
    await installation.children.pop(0).wait()
    client = installation.client("dev-1")
    await _persistent(client)  # The server may not know yet that one is gone, and ask it.
    client.close()
    stranger = installation.client("dev-9")
    assert not await stranger.tried()
    assert "is no device" in (installation.folder / "two.log").read_text()
    assert not any(word in one.read_text() for word in ("Traceback", "ERROR"))


def test_the_servers_configuration_is_written_for_its_owner_alone(tmp_path: Path) -> None:
    store = Secrets(FileDocuments(tmp_path / "secrets", CLOCK), CLOCK)
    asyncio.run(_prepared(store))
    told = {
        "url": "nats://n:4222",
        "issuer": "http://i",
        "project": "1",
        "secrets": {"store": "file", "folder": "secrets"},
    }
    (tmp_path / "callout.json").write_text(json.dumps(told))
    target = tmp_path / "nats.conf"
    texts = []
    for _ in range(2):
        words = [
            "callout",
            "server-config",
            str(target),
            "--config",
            str(tmp_path / "callout.json"),
            "--store",
            "/data",
        ]
        done = CliRunner().invoke(command, words)
        assert done.exit_code == 0, done.output
        assert "password" not in done.output
        texts.append(target.read_text())
    assert target.stat().st_mode & 0o777 == 0o600
    assert texts[0] == texts[1]
    assert "auth_callout" in texts[0]


async def _prepared(store: Secrets) -> None:
    await ensure_all(store)
