"""What only the client of a real server does: logins, silent servers, hostile askers, and no password in any log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.nats import NatsBus, NatsTimings, PasswordFile
from fleet.adapters.nats_admin import NatsAdmin
from fleet.contracts.errors import NotFound, Refused, TimedOut, Unavailable
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import BUCKETS, Bucket, BucketSpec
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
    def __init__(self, folder: Path) -> None:
        users = (User.fresh("operator"), User.fresh("dev-1", of_device(DeviceId("dev-1"))))
        self.folder = folder
        self.server = NatsProcess(folder, users, CLOCK)
        self.buses: list[NatsBus] = []

    def bus(self, name: str, url: str | None = None, login: Path | None = None) -> NatsBus:
        source = PasswordFile(login or self.server.login(name))
        bus = NatsBus(url or self.server.url, name, source, CLOCK, SystemChance(), QUICK)
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
    async def told(folder: Path) -> None:
        stage = Stage(folder)
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


@story
async def test_a_bucket_is_made_once_and_never_changed(stage: Stage) -> None:
    admin = NatsAdmin(await stage.connected("operator"))
    for spec in (*BUCKETS, *BUCKETS):
        await admin.ensure_bucket(spec)
    with pytest.raises(Refused):
        await admin.ensure_bucket(BucketSpec(Bucket.STATE, history=3, rollup=False))


@story
async def test_without_a_bucket_there_is_nothing_to_read_or_write(stage: Stage) -> None:
    bus = await stage.connected("operator")
    with pytest.raises(Unavailable):
        await bus.put(Bucket.STATE, "dev-1.a", b"x")
    with pytest.raises(Unavailable):
        await bus.get(Bucket.STATE, "dev-1.a")
    with pytest.raises(Unavailable):
        await bus.entries(Bucket.STATE)


@story
async def test_a_device_can_neither_make_nor_wipe_a_bucket(stage: Stage) -> None:
    operator = await stage.connected("operator")
    await NatsAdmin(operator).ensure_bucket(BUCKETS[0])
    device = await stage.connected("dev-1")
    with pytest.raises(TimedOut):
        await NatsAdmin(device).ensure_bucket(BUCKETS[2])
    with pytest.raises(TimedOut):
        await device.call_api("$JS.API.STREAM.PURGE.KV_desired", b"")
    with pytest.raises(TimedOut):
        await device.call_api("$JS.API.STREAM.INFO.KV_desired", b"")


@story
async def test_a_rotated_password_is_picked_up_at_the_next_attempt(stage: Stage) -> None:
    login = stage.folder / "wrong.json"
    login.write_text(json.dumps({"user": "operator", "password": "wrong"}))
    bus = stage.bus("operator", login=login)
    await CLOCK.sleep(Duration.millis(300))
    assert not bus.is_connected()
    with pytest.raises(Unavailable):
        await bus.put(Bucket.STATE, "dev-1.a", b"x")
    login.unlink()
    await CLOCK.sleep(Duration.millis(200))
    login.write_bytes(stage.server.login("operator").read_bytes())
    await until(bus.is_connected)


@pytest.mark.real
def test_no_password_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secrets: list[str] = []

    async def tell(stage: Stage) -> None:
        right = json.loads(stage.server.login("dev-1").read_bytes())["password"]
        login = stage.folder / "wrong.json"
        login.write_text(json.dumps({"user": "dev-1", "password": "wrong-hunter2"}))
        stage.bus("dev-1", login=login)
        device = await stage.connected("dev-1")
        with pytest.raises(TimedOut):
            await device.put(Bucket.DESIRED, "dev-1.agent", b"forbidden")
        await until(lambda: "ermissions violation" in caplog.text)  # a busy server says it after the time limit
        await stage.server.kill()
        await until(lambda: not device.is_connected())
        secrets.extend(("wrong-hunter2", right, "hunter2"))
        assert right not in repr(device)
        assert right not in repr(stage.server._users)

    with caplog.at_level(logging.DEBUG):
        story(tell)(tmp_path)
    assert "Authorization Violation" in caplog.text
    assert "ermissions violation" in caplog.text
    assert not any(secret in caplog.text for secret in secrets)
    assert "Traceback" not in caplog.text
    assert len([record for record in caplog.records if record.name == "fleet.bus"]) < 12


@story
async def test_the_passwords_stand_in_private_files_only(stage: Stage) -> None:
    stage.server.login("operator")
    for path in (stage.folder / "nats.conf", stage.folder / "logins" / "operator.json"):
        assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(NotFound):
        stage.server.login("stranger")


@story
async def test_an_asker_cannot_have_a_key_written_for_it(stage: Stage) -> None:
    """The answer to a request goes where the asker says, with the permissions of whoever answers."""
    operator = await stage.connected("operator")
    await NatsAdmin(operator).ensure_bucket(BUCKETS[0])
    heard: list[bytes] = []

    def answer(payload: bytes) -> bytes:
        heard.append(payload)
        return b"evil"

    operator.serve("fleet.lock.*", lambda request: answer(request.payload))
    await operator.entries(Bucket.DESIRED)  # Answered after the server has taken the subscription in.
    password = json.loads(stage.server.login("dev-1").read_bytes())["password"]
    _, writer = await asyncio.open_connection("127.0.0.1", int(stage.server.url.rpartition(":")[2]))
    try:
        options = json.dumps({"user": "dev-1", "pass": password, "verbose": False, "pedantic": False})
        line = f"CONNECT {options}\r\nPUB fleet.lock.dev-1 $KV.desired.dev-2.agent 2\r\nhi\r\nPING\r\n"
        writer.write(line.encode())
        await until(lambda: heard == [b"hi"])
        await CLOCK.sleep(Duration.millis(100))
        assert await operator.entries(Bucket.DESIRED) == ()
    finally:
        writer.close()


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


@pytest.mark.parametrize("pongs", [0, 1])
def test_a_server_that_never_confirms_is_no_session(tmp_path: Path, pongs: int) -> None:
    async def told() -> None:
        server = SilentServer(pongs)
        url = await server.start()
        login = tmp_path / "login.json"
        login.write_text('{"user": "x", "password": "y"}')
        sessions: list[int] = []
        bus = NatsBus(url, "x", PasswordFile(login), CLOCK, SystemChance(), QUICK)
        bus.on_session(lambda: sessions.append(1))
        bus.start()
        await until(lambda: server.connections >= 2)
        assert sessions == []
        await bus.close()
        server.close()

    asyncio.run(told())


def test_a_server_that_falls_silent_is_left_and_calls_fail(tmp_path: Path) -> None:
    async def told() -> None:
        server = SilentServer(pongs=2)
        url = await server.start()
        login = tmp_path / "login.json"
        login.write_text('{"user": "x", "password": "y"}')
        sessions: list[int] = []
        bus = NatsBus(url, "x", PasswordFile(login), CLOCK, SystemChance(), QUICK)
        bus.on_session(lambda: sessions.append(1))
        bus.start()
        await until(lambda: sessions == [1])
        with pytest.raises(TimedOut):
            await bus.request("fleet.stop.x", b"", Duration.millis(50))
        await until(lambda: sessions == [1, 1])
        await bus.close()
        server.close()

    asyncio.run(told())


class Babbling(SilentServer):
    """Says a line of its own to whoever it let in."""

    def __init__(self, line: bytes) -> None:
        super().__init__(pongs=99)
        self._line = line

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"headers":true}\r\n')
        pings = 0
        while line := await reader.readline():
            if line.startswith(b"PING"):
                pings += 1
                writer.write(b"PONG\r\n" + (self._line if pings == 2 else b""))


@pytest.mark.parametrize(
    "line",
    [
        b"-ERR 'Authentication Expired'\r\n",
        b"-ERR 'maximum control line exceeded'\r\n",
        b"-ERR '\xff\xfe'\r\n",
        b"WHAT IS THIS\r\n",
        b"MSG a\r\n",
        b"MSG a b c\r\n",
        b"HMSG a 1 x 3\r\n",
        b"INFO nonsense\r\n",
        b"INFO []\r\n",
    ],
)
def test_whatever_ends_a_connection_there_is_a_new_one(tmp_path: Path, line: bytes) -> None:
    async def told() -> None:
        server = Babbling(line)
        url = await server.start()
        login = tmp_path / "login.json"
        login.write_text('{"user": "x", "password": "y"}')
        bus = NatsBus(url, "x", PasswordFile(login), CLOCK, SystemChance(), QUICK)
        bus.start()
        await until(lambda: server.connections >= 3)
        await bus.close()
        server.close()

    asyncio.run(told())
