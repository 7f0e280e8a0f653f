"""A real nats-server with clients on it, and servers that say what they were told to: where the adapter is tested."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.nats import LoginSource, NatsBus, NatsTimings, PasswordFile
from fleet.contracts.ids import DeviceId
from fleet.contracts.permissions import of_device
from fleet.contracts.time import Duration
from harness.targets.nats_process import NatsProcess, User

QUICK = NatsTimings(
    answer=Duration.millis(700),
    dial=Duration.millis(700),
    backoff_least=Duration.millis(50),
    backoff_most=Duration.millis(100),
    ping=Duration.millis(200),
)
MOMENT = Duration.millis(5)
CLOCK = WallClock()


class Stage:
    def __init__(self, folder: Path, server: type[NatsProcess] = NatsProcess) -> None:
        users = (User.fresh("operator"), User.fresh("dev-1", of_device(DeviceId("dev-1"))))
        self.folder = folder
        self.server = server(folder, users, CLOCK)
        self.buses: list[NatsBus] = []

    def bus(
        self, name: str, url: str | None = None, login: Path | None = None, timings: NatsTimings = QUICK
    ) -> NatsBus:
        return self.started(name, PasswordFile(login or self.server.login(name)), timings, url)

    def started(self, name: str, source: LoginSource, timings: NatsTimings = QUICK, url: str | None = None) -> NatsBus:
        bus = NatsBus(url or self.server.url, name, source, CLOCK, SystemChance(), timings)
        bus.start()
        self.buses.append(bus)
        return bus

    async def connected(self, name: str) -> NatsBus:
        bus = self.bus(name)
        await until(bus.is_connected)
        return bus


async def until(holds: Callable[[], bool]) -> None:
    async with CLOCK.timeout(Duration.seconds(10)):
        while not holds():
            await CLOCK.sleep(MOMENT)


def story(tell: Callable[[Stage], Awaitable[None]]) -> Callable[[Path], None]:
    return story_on(NatsProcess)(tell)


def story_on(
    server: type[NatsProcess],
) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[[Path], None]]:
    return lambda tell: _test(tell, server)


def _test(tell: Callable[[Stage], Awaitable[None]], server: type[NatsProcess]) -> Callable[[Path], None]:
    async def told(folder: Path) -> None:
        stage = Stage(folder, server)
        try:
            async with CLOCK.timeout(Duration.seconds(30)):
                await stage.server.start()
                await tell(stage)
        finally:
            for bus in stage.buses:
                await bus.close()
            await stage.server.stop()

    @pytest.mark.real
    def test(tmp_path: Path) -> None:
        asyncio.run(told(tmp_path))

    test.__doc__ = tell.__doc__
    return test


class SilentServer:
    """Lets a client in and answers its first pings, then hears everything and says nothing."""

    def __init__(self, pongs: int) -> None:
        self.pongs = pongs
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"headers":true}\r\n')
        left = self.pongs
        while line := await reader.readline():
            if line.startswith(b"PING") and left:
                left -= 1
                writer.write(b"PONG\r\n")

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self._server.close()
