"""What ends a connection to a server in real life, and that nothing of it ends the bus, or is lost in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.nats import LoginSource, NatsBus, NatsTimings, PasswordFile, PasswordLogin
from fleet.adapters.nats_admin import NatsAdmin
from fleet.adapters.nats_messages import is_no_responders
from fleet.adapters.nats_session import Session
from fleet.capabilities.bus import Entry, Stored
from fleet.contracts.errors import Definite, Disconnected, TimedOut, TooLarge, Unavailable, Unknown
from fleet.contracts.layout import BUCKETS, MAX_VALUE_BYTES, Bucket
from fleet.contracts.time import Duration
from harness.faults import Direction
from harness.targets.local_link import Line, Proxy
from harness.targets.nats_process import NatsProcess
from tests.fleet.adapters.nats_stage import CLOCK, QUICK, SilentServer, Stage, story, story_on, until

KEY = "dev-1.agent"


class Impatient(NatsProcess):
    """Drops a client for which more than 128 KiB wait."""

    def _config(self) -> str:
        return super()._config() + "max_payload: 131072\nmax_pending: 131072\nwrite_deadline: 500ms\n"


async def behind_a_line(stage: Stage, tell: Callable[[str, Line], Awaitable[None]]) -> None:
    line = Line(CLOCK)
    proxy = Proxy(lambda: stage.server.port, lambda port: line)
    port = await proxy.start()
    try:
        await tell(f"nats://127.0.0.1:{port}", line)
    finally:
        await proxy.stop()


@story_on(Impatient)
async def test_a_slow_consumer_that_the_server_drops_reads_again(stage: Stage) -> None:
    operator = await stage.connected("operator")
    await NatsAdmin(operator).ensure_bucket(BUCKETS[0])
    heard: list[Entry] = []
    reread: list[Entry | None] = []

    async def tell(url: str, line: Line) -> None:
        patient = NatsTimings(QUICK.answer, ping=Duration.seconds(60), backoff_most=QUICK.backoff_most)
        device = stage.bus("dev-1", url, timings=patient)
        reading: list[asyncio.Task[None]] = []

        async def read() -> None:
            reread.append(await device.get(Bucket.DESIRED, KEY))

        device.listen(Bucket.DESIRED, "dev-1", heard.append)
        device.on_session(lambda: reading.append(asyncio.get_running_loop().create_task(read())))
        await until(lambda: len(reread) == 1)
        line.cut(Direction.TO_DEVICE)
        for _ in range(300):
            await operator.put(Bucket.DESIRED, KEY, b"x" * MAX_VALUE_BYTES)
        line.heal(Direction.TO_DEVICE)
        await until(lambda: len(reread) == 2)
        await asyncio.gather(*reading)

    await behind_a_line(stage, tell)
    assert "Slow Consumer" in (stage.folder / "nats.log").read_text()
    assert 0 < len(heard) < 300
    assert reread[0] is None
    assert isinstance(reread[1], Stored)
    assert reread[1].revision == 300


@story
async def test_a_write_that_timed_out_may_land_later_and_is_found_there(stage: Stage) -> None:
    operator = await stage.connected("operator")
    await NatsAdmin(operator).ensure_bucket(BUCKETS[2])

    async def tell(url: str, line: Line) -> None:
        timings = NatsTimings(answer=Duration.millis(150), ping=Duration.seconds(60))
        device = stage.bus("dev-1", url, timings=timings)
        await until(device.is_connected)
        line.cut(Direction.FROM_DEVICE)
        with pytest.raises(TimedOut) as held:
            await device.put(Bucket.STATE, "dev-1.a", b"late")
        assert await operator.get(Bucket.STATE, "dev-1.a") is None
        line.heal(Direction.FROM_DEVICE)
        while await operator.get(Bucket.STATE, "dev-1.a") is None:
            await CLOCK.sleep(Duration.millis(5))
        line.cut(Direction.TO_DEVICE)
        with pytest.raises(TimedOut):
            await device.put(Bucket.STATE, "dev-1.a", b"stored at once")
        line.heal(Direction.TO_DEVICE)
        found = await device.get(Bucket.STATE, "dev-1.a")
        assert isinstance(found, Stored)
        assert found.value == b"stored at once"
        assert isinstance(held.value, Unknown)

    await behind_a_line(stage, tell)


@story
async def test_a_write_under_way_when_the_server_dies_is_unknown(stage: Stage) -> None:
    operator = await stage.connected("operator")
    await NatsAdmin(operator).ensure_bucket(BUCKETS[2])

    async def tell(url: str, line: Line) -> None:
        device = stage.bus("dev-1", url, timings=NatsTimings(answer=Duration.seconds(60)))
        await until(device.is_connected)
        line.cut(Direction.TO_DEVICE)
        writing = asyncio.get_running_loop().create_task(device.put(Bucket.STATE, "dev-1.a", b"x"))
        while await operator.get(Bucket.STATE, "dev-1.a") is None:
            await CLOCK.sleep(Duration.millis(5))
        line.heal(Direction.TO_DEVICE)
        await asyncio.wait((writing,))
        line.cut(Direction.TO_DEVICE)
        lost = asyncio.get_running_loop().create_task(device.put(Bucket.STATE, "dev-1.a", b"y"))
        await CLOCK.sleep(Duration.millis(100))
        await stage.server.kill()
        line.heal(Direction.BOTH)
        with pytest.raises(Disconnected):
            await lost

    await behind_a_line(stage, tell)


@story
async def test_a_line_over_the_limit_is_refused_before_it_is_sent(stage: Stage) -> None:
    """The longest line that is let through is one that the server takes."""
    operator = await stage.connected("operator")
    await NatsAdmin(operator).ensure_bucket(BUCKETS[2])
    sessions: list[int] = []
    operator.on_session(lambda: sessions.append(1))
    refused = taken = 0
    for size in range(3900, 4200, 5):
        try:
            frame = await operator.call_api("x" * size, b"")
        except TooLarge:
            refused += 1
        else:
            taken += is_no_responders(frame)
    assert taken > 10
    assert refused > 10
    assert sessions == [1]
    assert await operator.put(Bucket.STATE, "dev-1.a", b"x") == 1


def has_another(bus: NatsBus, session: Session) -> bool:
    return bus._supervisor.session not in (None, session)


@story
async def test_a_client_that_the_server_made_close_for_good_is_replaced(stage: Stage) -> None:
    operator, other = await stage.connected("operator"), await stage.connected("operator")
    await NatsAdmin(other).ensure_bucket(BUCKETS[2])
    heard: list[Entry] = []
    sessions: list[int] = []
    operator.listen(Bucket.STATE, "", heard.append)
    operator.on_session(lambda: sessions.append(1))
    for line in (b"NONSENSE\r\n", b"PUB " + b"x" * 5000 + b" 0\r\n\r\n", b"PUB x 9999999\r\n"):
        session = operator._supervisor.session
        assert session is not None
        session.client.say(line)
        await until(partial(has_another, operator, session))
        assert session.client.is_closed
        await other.put(Bucket.STATE, "dev-1.a", line)
    await until(lambda: len(heard) == 3)
    assert sessions == [1] * 4


class EarlyPing(SilentServer):
    """Sends a PING before it answers the client's first one, as a server whose auth callout takes its time."""

    def __init__(self) -> None:
        super().__init__(pongs=99)
        self.answered = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"headers":true}\r\n')
        first = True
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PING\r\nPONG\r\n" if first else b"PONG\r\n")
                first = False
            elif line.startswith(b"PONG"):
                self.answered += 1


def with_fake(server: SilentServer, tell: Callable[[str], Awaitable[None]]) -> None:
    async def told() -> None:
        url = await server.start()
        try:
            async with CLOCK.timeout(Duration.seconds(20)):
                await tell(url)
        finally:
            server.close()

    asyncio.run(told())


def test_a_ping_before_the_first_pong_costs_nothing() -> None:
    server = EarlyPing()

    async def tell(url: str) -> None:
        stage_bus = bus_with(url, Fixed())
        await until(lambda: stage_bus.is_connected() and server.answered == 1)
        await stage_bus.close()

    with_fake(server, tell)
    assert server.connections == 1


def test_the_pauses_between_attempts_differ_and_keep_their_bounds() -> None:
    """A thousand devices that lost one server must not come back as one wave."""
    pauses: list[Duration] = []

    class Clocked(WallClock):
        async def sleep(self, length: Duration) -> None:
            pauses.append(length)
            await CLOCK.sleep(Duration.millis(1))

    async def told() -> None:
        timings = NatsTimings()
        bus = NatsBus("nats://127.0.0.1:1", "x", Fixed(), Clocked(), SystemChance(), timings)
        bus.start()
        await until(lambda: len(pauses) >= 40)
        await bus.close()
        assert all(timings.backoff_least <= pause <= timings.backoff_most for pause in pauses)
        assert len(set(pauses)) == len(pauses)
        assert max(pauses) - min(pauses) > (timings.backoff_most - timings.backoff_least) // 2

    asyncio.run(told())


class Source:
    """What every source of logins here has in common."""

    turned = 0

    def turned_away(self) -> None:
        self.turned += 1


class Fixed(Source):
    """A login that is always the same."""

    async def read(self) -> PasswordLogin:
        return PasswordLogin("x", "y")


class Moody(Source):
    """A source of logins that raises what it is told to before it gives any."""

    def __init__(self, source: LoginSource, *errors: Exception) -> None:
        self.errors = list(errors)
        self._source = source

    async def read(self) -> PasswordLogin:
        if self.errors:
            raise self.errors.pop(0)
        login = await self._source.read()
        assert isinstance(login, PasswordLogin)
        return login


@story
async def test_whatever_the_source_of_the_login_raises_it_is_asked_again(stage: Stage) -> None:
    source = Moody(
        PasswordFile(stage.server.login("operator")), RuntimeError("a bug"), OSError("no file"), Unavailable("no IdP")
    )
    operator = stage.started("operator", source)
    sessions: list[int] = []
    operator.on_session(lambda: sessions.append(1))
    await until(lambda: len(sessions) == 1)
    assert source.errors == []
    source.errors += [KeyError("kid"), Definite("no"), TimeoutError()]
    await stage.server.kill()
    await stage.server.start()
    await until(lambda: len(sessions) == 2)
    assert source.errors == []


@story
async def test_a_source_of_the_login_that_hangs_is_asked_again(stage: Stage) -> None:
    asked: list[int] = []

    class Hanging(Source):
        async def read(self) -> PasswordLogin:
            asked.append(1)
            if len(asked) < 3:
                await asyncio.Event().wait()
            return await PasswordFile(stage.server.login("operator")).read()

    operator = stage.started("operator", Hanging(), replace(QUICK, login=Duration.millis(100)))
    await until(operator.is_connected)
    assert len(asked) == 3


@story
async def test_the_source_of_the_login_hears_that_the_server_did_not_accept_it_and_nothing_else(stage: Stage) -> None:
    source = Fixed()
    stage.started("operator", source)
    await until(lambda: source.turned >= 2)
    good = Moody(PasswordFile(stage.server.login("operator")))
    operator = stage.started("operator", good)
    await until(operator.is_connected)
    await stage.server.kill()
    await CLOCK.sleep(Duration.millis(300))
    await stage.server.start()
    await until(operator.is_connected)
    assert good.turned == 0


def bus_with(url: str, source: LoginSource) -> NatsBus:
    bus = NatsBus(url, "x", source, CLOCK, SystemChance(), QUICK)
    bus.start()
    return bus
