"""The reconnect storm on real parts: a nats-server, two callouts as processes, clients with the production adapter."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.nats import NatsBus, PasswordFile, TokenLogin
from fleet.adapters.nats_admin import NatsAdmin
from fleet.contracts import layout
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import BUCKETS, Bucket
from fleet.contracts.time import Duration, Instant
from fleet.roots.logins import REGISTRY, server_config
from fleet.secrets.file import FileDocuments
from fleet.secrets.registry import ensure_all
from fleet.secrets.store import Secrets
from harness.storm_report import StormReport
from harness.targets.local_process import Child
from harness.targets.nats_process import NatsProcess, User
from harness.targets.storm_tokens import PROJECT, StormProvider, enrolled

DOWN: Final = Duration.seconds(2)
_LIMIT: Final = Duration.minutes(2)
_LOOK_AGAIN: Final = Duration.millis(20)
_GRACE: Final = Duration.seconds(10)


def storm(devices: int, folder: Path) -> StormReport:
    """Kill and restart the server under so many clients; how long it takes until all are back."""

    async def told() -> StormReport:
        async with AsyncExitStack() as parts:
            return await _Storm(folder, devices, parts).run()

    return asyncio.run(told())


class _Shows:
    """A LoginSource with one token."""

    def __init__(self, text: str, expires: Instant) -> None:
        self._login = TokenLogin(text, expires)

    async def read(self) -> TokenLogin:
        return self._login

    def turned_away(self) -> None:
        """It has no other."""


class _Storm:
    def __init__(self, folder: Path, devices: int, parts: AsyncExitStack) -> None:
        self._folder = folder
        self._parts = parts
        self._clock = WallClock()
        self._names = [DeviceId(f"device-{number:03}") for number in range(1, devices + 1)]
        self._provider = StormProvider()
        self._server = NatsProcess(folder / "nats", (User.fresh("operator"),), self._clock)
        self._callouts: list[Child] = []
        self._back: list[Instant] = []

    async def run(self) -> StormReport:
        await self._install()
        for number in range(2):
            await self._start_callout(number)
        buses = [await self._client(name) for name in self._names]
        await self._until(lambda: all(bus.is_connected() for bus in buses))
        await self._server.kill()
        await self._clock.sleep(DOWN)
        for bus in buses:
            bus.on_session(lambda: self._back.append(self._clock.monotonic()))
        await self._server.start()
        up = self._clock.monotonic()
        await self._until(lambda: len(self._back) >= len(buses))
        for child in self._callouts:
            await child.stop(self._clock, _GRACE)
        last = tuple(self._log(number).read_text().splitlines()[-1].split("fleet.callout ")[-1] for number in range(2))
        times = tuple(Duration(max(moment - up, Duration(0))) for moment in sorted(self._back))
        return StormReport(len(buses), times, None, last)

    async def _install(self) -> None:
        await self._provider.start()
        self._parts.callback(self._provider.close)
        store = Secrets(FileDocuments(self._folder / "secrets", self._clock), self._clock)
        await ensure_all(store)
        config = await server_config(store, "", "127.0.0.1", -1)
        registry = next(user for user in config.users if user.name == REGISTRY)
        assert config.callout is not None
        self._server.ask(config.callout, (User(registry.name, registry.password, registry.permissions),))
        self._parts.push_async_callback(self._server.stop)
        await self._server.start()
        operator = await self._bus("operator")
        await self._until(operator.is_connected)
        for spec in BUCKETS:
            await NatsAdmin(operator).ensure_bucket(spec)
        for name in self._names:
            await operator.put(Bucket.IDENTITY, name, layout.encode(enrolled(name)))

    async def _bus(self, name: str) -> NatsBus:
        bus = NatsBus(self._server.url, name, PasswordFile(self._server.login(name)), self._clock, SystemChance())
        bus.start()
        self._parts.push_async_callback(bus.close)
        return bus

    async def _client(self, name: DeviceId) -> NatsBus:
        login = _Shows(self._provider.token(name, self._clock.wall()), self._clock.monotonic() + Duration.minutes(720))
        bus = NatsBus(self._server.url, name, login, self._clock, SystemChance())
        bus.start()
        self._parts.push_async_callback(bus.close)
        return bus

    async def _start_callout(self, number: int) -> None:
        secrets = {"store": "file", "folder": "secrets"}
        told = {"url": self._server.url, "issuer": self._provider.issuer, "project": PROJECT, "secrets": secrets}
        config = self._folder / "callout.json"
        config.write_text(json.dumps(told), "utf-8")
        program = (sys.executable, "-m", "fleet", "callout", "run", "--config", str(config))
        environment = {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2])}
        child = await Child.start(program, self._log(number), environment)
        self._callouts.append(child)
        self._parts.push_async_callback(child.stop, self._clock, _GRACE)
        await self._until(lambda: "answers for" in self._log(number).read_text())

    def _log(self, number: int) -> Path:
        return self._folder / f"callout-{number}.log"

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with self._clock.timeout(_LIMIT):
            while not holds():
                await self._clock.sleep(_LOOK_AGAIN)
