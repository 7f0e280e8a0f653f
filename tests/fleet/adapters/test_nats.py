"""What only the client of a real server does: logins, silent servers, hostile askers, and no password in any log."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from fleet.adapters.clock import SystemChance
from fleet.adapters.nats import NatsBus, PasswordFile
from fleet.adapters.nats_admin import NatsAdmin
from fleet.contracts.errors import NotFound, NotPermitted, Refused, TimedOut, Unavailable
from fleet.contracts.layout import BUCKETS, Bucket, BucketSpec
from fleet.contracts.time import Duration
from tests.fleet.adapters.nats_stage import CLOCK, QUICK, SilentServer, Stage, story, until


def private(path: Path) -> Path:
    path.touch(0o600)
    return path


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
    with pytest.raises(NotPermitted):
        await NatsAdmin(device).ensure_bucket(BUCKETS[2])
    with pytest.raises(NotPermitted):
        await device.call_api("$JS.API.STREAM.PURGE.KV_desired", b"")
    with pytest.raises(NotPermitted):
        await device.call_api("$JS.API.STREAM.INFO.KV_desired", b"")


@story
async def test_a_rotated_password_is_picked_up_at_the_next_attempt(stage: Stage) -> None:
    login = private(stage.folder / "wrong.json")
    login.write_text(json.dumps({"user": "operator", "password": "wrong"}))
    bus = stage.bus("operator", login=login)
    await CLOCK.sleep(Duration.millis(300))
    assert not bus.is_connected()
    with pytest.raises(Unavailable):
        await bus.put(Bucket.STATE, "dev-1.a", b"x")
    login.unlink()
    await CLOCK.sleep(Duration.millis(200))
    private(login).write_bytes(stage.server.login("operator").read_bytes())
    await until(bus.is_connected)


@pytest.mark.real
def test_no_password_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secrets: list[str] = []

    async def tell(stage: Stage) -> None:
        right = json.loads(stage.server.login("dev-1").read_bytes())["password"]
        login = private(stage.folder / "wrong.json")
        login.write_text(json.dumps({"user": "dev-1", "password": "wrong-hunter2"}))
        stage.bus("dev-1", login=login)
        device = await stage.connected("dev-1")
        with pytest.raises(NotPermitted):
            await device.put(Bucket.DESIRED, "dev-1.agent", b"forbidden")
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
