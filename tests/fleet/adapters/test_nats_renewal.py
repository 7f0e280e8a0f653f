"""A login that ends: a successor connects ahead of that, and users of the bus see a new session and no failure."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from fleet.adapters.nats import NatsBus, NatsTimings, TokenLogin
from fleet.adapters.nats_admin import NatsAdmin
from fleet.capabilities.bus import Entry, Stored
from fleet.contracts.errors import Unavailable
from fleet.contracts.layout import BUCKETS, Bucket
from fleet.contracts.time import Duration
from harness.faults import Direction
from harness.targets.local_link import Line, Proxy
from harness.targets.nats_process import NatsProcess
from tests.fleet.adapters.nats_stage import CLOCK, Stage, story_on, until

TOKEN = "token-of-the-test"
TIMINGS = NatsTimings(
    answer=Duration.millis(700),
    backoff_least=Duration.millis(50),
    backoff_most=Duration.millis(100),
    renew_ahead=Duration.millis(200),
)


class ByToken(NatsProcess):
    """Lets in whoever knows the token."""

    def _config(self) -> str:
        head, _, _ = super()._config().partition("accounts {")
        return f'{head}authorization {{ token: "{TOKEN}" }}\n'


class Tokens:
    """Logins that end `lasts` after they were read."""

    def __init__(self, lasts: Duration) -> None:
        self.lasts = lasts
        self.reads = 0
        self.failing = False

    def turned_away(self) -> None:
        """It has no other one."""

    async def read(self) -> TokenLogin:
        self.reads += 1
        if self.failing:
            raise Unavailable("the identity provider is away")
        return TokenLogin(TOKEN, CLOCK.monotonic() + self.lasts, root="")


def sessions_of(bus: NatsBus) -> list[int]:
    sessions: list[int] = []
    bus.on_session(lambda: sessions.append(1))
    return sessions


@story_on(ByToken)
async def test_the_successor_stands_before_the_login_ends_and_nothing_fails(stage: Stage) -> None:
    tokens = Tokens(Duration.seconds(1))
    writer, reader = (
        stage.started("operator", Tokens(Duration.seconds(60)), TIMINGS),
        stage.started("x", tokens, TIMINGS),
    )
    sessions = sessions_of(reader)
    await until(lambda: writer.is_connected() and reader.is_connected())
    await NatsAdmin(writer).ensure_bucket(BUCKETS[2])
    heard: list[Entry] = []
    reader.listen(Bucket.STATE, "", heard.append)
    reader.serve("fleet.stop.x", lambda request: request.payload)
    await reader.get(Bucket.STATE, "dev-1.a")
    first = last = CLOCK.monotonic()
    number = 0
    while len(sessions) < 4:
        assert reader.is_connected()
        await writer.put(Bucket.STATE, "dev-1.a", b"%d" % number)
        await reader.put(Bucket.STATE, "dev-2.a", b"%d" % number)
        assert await writer.request("fleet.stop.x", b"%d" % number, Duration.seconds(5)) == b"%d" % number
        number, last = number + 1, CLOCK.monotonic()
    found = await reader.get(Bucket.STATE, "dev-1.a")
    assert isinstance(found, Stored)
    assert found.value == b"%d" % (number - 1)
    assert 3 * Duration.millis(600) < last - first < 3 * Duration.millis(1000), "replaced 200 to 400 ms ahead"
    await reader.put(Bucket.STATE, "dev-2.a", b"last")
    await until(lambda: isinstance(heard[-1], Stored) and heard[-1].value == b"last")
    revisions = [entry.revision for entry in heard]
    assert revisions == sorted(set(revisions)), "in order, none twice"
    assert tokens.reads == 4


@story_on(ByToken)
async def test_without_a_new_login_the_session_is_used_to_its_end(stage: Stage) -> None:
    tokens = Tokens(Duration.seconds(1))
    bus = stage.started("x", tokens, TIMINGS)
    sessions = sessions_of(bus)
    await until(bus.is_connected)
    tokens.failing = True
    while tokens.reads < 6:
        assert bus.is_connected()
        await CLOCK.sleep(Duration.millis(10))
    assert sessions == [1]
    tokens.failing = False
    await until(lambda: len(sessions) >= 2)


@story_on(ByToken)
async def test_a_login_that_has_ended_already_does_not_make_a_storm(stage: Stage) -> None:
    tokens = Tokens(Duration.seconds(-5))
    bus = stage.started("x", tokens, TIMINGS)
    await CLOCK.sleep(Duration.seconds(1))
    assert 3 < tokens.reads <= 21
    await bus.close()


@story_on(ByToken)
async def test_a_call_under_way_is_answered_over_the_session_it_began_in(stage: Stage) -> None:
    admin = stage.started("operator", Tokens(Duration.seconds(60)), TIMINGS)
    await until(admin.is_connected)
    await NatsAdmin(admin).ensure_bucket(BUCKETS[2])
    lines: list[Line] = []

    def own_line(port: int) -> Line:
        lines.append(Line(CLOCK))
        return lines[-1]

    proxy = Proxy(lambda: stage.server.port, own_line)
    port = await proxy.start()
    try:
        timings = replace(TIMINGS, answer=Duration.seconds(5))
        bus = stage.started("x", Tokens(Duration.seconds(1)), timings, f"nats://127.0.0.1:{port}")
        sessions = sessions_of(bus)
        await until(bus.is_connected)
        lines[0].cut(Direction.TO_DEVICE)
        writing = asyncio.get_running_loop().create_task(bus.put(Bucket.STATE, "dev-1.a", b"x"))
        await until(lambda: len(sessions) == 2)
        assert await bus.put(Bucket.STATE, "dev-1.a", b"y") == 2
        assert not writing.done()
        lines[0].heal(Direction.TO_DEVICE)
        assert await writing == 1
    finally:
        await proxy.stop()
