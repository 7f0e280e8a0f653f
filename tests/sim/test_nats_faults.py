"""What the model of the NATS server does when links are cut, processes die and a server loses its tail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from fleet.capabilities.bus import Deleted, Entry, Stored
from fleet.contracts.errors import Conflict, Disconnected, InvalidValue, NotPermitted, TimedOut, Unavailable, Unknown
from fleet.contracts.ids import DeviceId, Revision
from fleet.contracts.layout import BUCKETS, Bucket
from fleet.contracts.permissions import EVERYTHING, of_device
from fleet.contracts.time import Duration, Instant
from sim.clock import SimClock
from sim.nats import NatsServer, SimBus
from sim.network import Cut, Link
from sim.process import Process, spawn
from sim.random import SimChance
from sim.world import World

STATE, DESIRED = Bucket.STATE, Bucket.DESIRED
SECOND = Duration.seconds(1)
MOMENT = Duration.millis(1)


class Stage:
    """A server on the backbone, an operator beside it, a device behind an uplink."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.clock = SimClock(self.world.loop)
        self.network = self.world.network
        for name in ("nats", "operator"):
            self.network.add_node(name)
        self.network.add_node("dev-1", Link())
        self.server = NatsServer(self.world.kernel, self.network)
        for spec in BUCKETS:
            self.server.ensure_bucket(spec)
        self.server.permit("operator", EVERYTHING)
        self.server.permit("dev-1", of_device(DeviceId("dev-1")))
        self.ends: list[tuple[str, int]] = []

    def run(self, main: Callable[[Stage], Awaitable[None]]) -> None:
        async def told() -> None:
            await main(self)

        with self.world:
            self.world.run(told())

    def start(self, name: str) -> tuple[Process, list[SimBus]]:
        """A process whose program makes a bus and then waits to be told to end."""
        made: list[SimBus] = []

        async def program(process: Process) -> int:
            made.append(SimBus(self.server, name, name, process, SimChance(self.world.streams.stream(name))))
            await process.stop.wait()
            await made[0].close()
            return 0

        ended = self.ends.append
        return spawn(self.world.loop, name, program, lambda process, code: ended((process.name, code))), made

    async def bus(self, name: str) -> SimBus:
        _, made = self.start(name)
        while not made or not made[0].is_connected():
            await self.clock.sleep(Duration.millis(1))
        return made[0]

    def now(self) -> Instant:
        return self.clock.monotonic()


def story(tell: Callable[[Stage], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        Stage().run(tell)

    test.__doc__ = tell.__doc__
    return test


@story
async def test_a_short_cut_delays_a_write_and_loses_nothing(stage: Stage) -> None:
    bus = await stage.bus("dev-1")
    sessions: list[int] = []
    bus.on_session(lambda: sessions.append(1))
    stage.network.partition("dev-1")
    stage.world.kernel.after(2 * SECOND, stage.network.heal, "dev-1")
    assert await bus.put(STATE, "dev-1.a", b"late") == 1
    assert stage.now() < 5 * SECOND
    assert sessions == [1]


@story
async def test_a_write_that_timed_out_lands_when_the_link_heals_in_time(stage: Stage) -> None:
    bus = await stage.bus("dev-1")
    stage.network.partition("dev-1")
    with pytest.raises(TimedOut):
        await bus.put(STATE, "dev-1.a", b"late")
    assert stage.server.store(STATE).sequence == 0
    stage.network.heal("dev-1")
    await stage.clock.sleep(SECOND * 10)
    assert bus.is_connected()
    assert stage.server.store(STATE).newest("dev-1.a") == Stored(STATE, "dev-1.a", Revision(1), b"late")


@story
async def test_only_the_acknowledgement_is_lost_when_the_way_back_is_cut(stage: Stage) -> None:
    bus = await stage.bus("dev-1")
    stage.network.partition("dev-1", Cut.TO_DEVICE)
    with pytest.raises(TimedOut):
        await bus.put(STATE, "dev-1.a", b"arrived")
    assert stage.server.store(STATE).sequence == 1


@story
async def test_a_long_cut_is_noticed_by_pings_and_calls_fail(stage: Stage) -> None:
    bus = await stage.bus("dev-1")
    begin = stage.now()
    stage.network.partition("dev-1")
    with pytest.raises(Disconnected):
        await bus.request("fleet.lock.dev-1", b"", Duration.minutes(5))
    assert Duration.seconds(20) <= stage.now() - begin <= Duration.seconds(30)
    assert not bus.is_connected()
    with pytest.raises(Unavailable):
        await bus.put(STATE, "dev-1.a", b"unsent")


@story
async def test_after_a_long_cut_the_client_is_back_within_seconds(stage: Stage) -> None:
    bus = await stage.bus("dev-1")
    sessions: list[int] = []
    heard: list[Entry] = []
    bus.on_session(lambda: sessions.append(1))
    bus.listen(DESIRED, "dev-1", heard.append)
    operator = await stage.bus("operator")
    stage.network.partition("dev-1")
    await operator.put(DESIRED, "dev-1.agent", b"missed")
    await stage.clock.sleep(Duration.minutes(10))
    stage.network.heal("dev-1")
    await stage.clock.sleep(Duration.seconds(6))
    assert sessions == [1, 1]
    assert heard == []
    await operator.put(DESIRED, "dev-1.agent", b"live")
    await stage.clock.sleep(SECOND)
    assert [entry.revision for entry in heard] == [2]
    assert len(stage.server.sessions) == 2


def test_what_was_buffered_at_a_disconnect_may_be_written_after_the_reconnect() -> None:
    landed = []

    async def tell(stage: Stage) -> None:
        bus = await stage.bus("dev-1")
        stage.network.partition("dev-1")
        with pytest.raises(Unknown):
            await bus.put(STATE, "dev-1.a", b"buffered")
        await stage.clock.sleep(Duration.minutes(1))
        assert not bus.is_connected()
        stage.network.heal("dev-1")
        await stage.clock.sleep(Duration.seconds(10))
        assert bus.is_connected()
        landed.append(stage.server.store(STATE).sequence)

    for seed in range(12):
        Stage(seed).run(tell)
    assert set(landed) == {0, 1}


@story
async def test_a_stopped_server_ends_calls_and_is_found_again(stage: Stage) -> None:
    bus = await stage.bus("dev-1")
    stage.world.kernel.after(1, stage.server.stop)
    with pytest.raises(Disconnected):
        await bus.put(STATE, "dev-1.a", b"under way")
    assert stage.server.store(STATE).sequence == 0
    await stage.clock.sleep(Duration.minutes(1))
    assert not bus.is_connected()
    stage.server.start()
    begin = stage.now()
    while not bus.is_connected():
        await stage.clock.sleep(Duration.millis(10))
    assert stage.now() - begin < Duration.seconds(4)


@story
async def test_a_connection_that_the_server_forgot_in_a_cut_ends_at_the_next_word(stage: Stage) -> None:
    bus = await stage.bus("dev-1")
    stage.network.partition("dev-1")
    stage.server.stop()
    stage.server.start()
    stage.network.heal("dev-1")
    await stage.clock.sleep(SECOND)
    with pytest.raises(Disconnected):
        await bus.put(STATE, "dev-1.a", b"into the void")
    await stage.clock.sleep(Duration.seconds(5))
    assert await bus.put(STATE, "dev-1.a", b"heard") == 1


@story
async def test_reconnects_are_spread_by_jitter(stage: Stage) -> None:
    back: list[int] = []
    for number in range(20):
        name = f"dev-{number + 2}"
        stage.network.add_node(name, Link())
        stage.server.permit(name, EVERYTHING)
        bus = await stage.bus(name)
        bus.on_session(lambda: back.append(stage.now()))
    await stage.clock.sleep(SECOND)
    stage.server.stop()
    stage.server.start()
    back.clear()
    await stage.clock.sleep(Duration.seconds(5))
    assert len(back) == 20
    assert max(back) - min(back) > SECOND


@story
async def test_a_lost_tail_is_gone_and_its_revisions_come_again(stage: Stage) -> None:
    bus = await stage.bus("operator")
    for number in range(3):
        await bus.put(STATE, "dev-1.a", b"a%d" % number)
    await bus.put(STATE, "dev-2.a", b"b")
    await bus.delete(STATE, "dev-1.a")
    with pytest.raises(InvalidValue):
        stage.server.lose_tail(STATE, 3)
    stage.server.stop()
    with pytest.raises(InvalidValue):
        stage.server.lose_tail(STATE, 6)
    stage.server.lose_tail(STATE, 3)
    stage.server.start()
    await stage.clock.sleep(MOMENT)
    while not bus.is_connected():
        await stage.clock.sleep(Duration.millis(10))
    assert await bus.entries(STATE) == (Stored(STATE, "dev-1.a", Revision(2), b"a1"),)
    assert await bus.entries(STATE, "dev-2") == ()
    assert await bus.put(STATE, "dev-3.a", b"other data") == 3


@story
async def test_history_is_kept_per_key_to_its_limit(stage: Stage) -> None:
    bus = await stage.bus("operator")
    for number in range(10):
        await bus.put(DESIRED, "dev-1.agent", b"%d" % number)
        await bus.put(STATE, "dev-1.a", b"%d" % number)
    assert [entry.revision for entry in stage.server.store(DESIRED).history("dev-1.agent")] == list(range(3, 11))
    assert [entry.revision for entry in stage.server.store(STATE).history("dev-1.a")] == [10]


@story
async def test_a_killed_process_hears_nothing_and_its_session_ends(stage: Stage) -> None:
    operator = await stage.bus("operator")
    process, made = stage.start("dev-1")
    await stage.clock.sleep(SECOND)
    heard: list[Entry] = []
    made[0].listen(DESIRED, "dev-1", heard.append)
    made[0].serve("fleet.stop.dev-1", lambda request: b"here")
    await stage.clock.sleep(SECOND)
    assert await operator.request("fleet.stop.dev-1", b"", SECOND) == b"here"
    process.kill()
    await operator.put(DESIRED, "dev-1.agent", b"unheard")
    await stage.clock.sleep(SECOND)
    assert heard == []
    assert len(stage.server.sessions) == 1
    with pytest.raises(Unavailable):
        await operator.request("fleet.stop.dev-1", b"", SECOND)


@story
async def test_a_machine_without_power_keeps_its_session_until_somebody_speaks_to_it(stage: Stage) -> None:
    operator = await stage.bus("operator")
    process, made = stage.start("dev-1")
    await stage.clock.sleep(SECOND)
    made[0].serve("fleet.stop.dev-1", lambda request: b"here")
    await stage.clock.sleep(SECOND)
    stage.network.partition("dev-1")
    process.kill()
    with pytest.raises(TimedOut):
        await operator.request("fleet.stop.dev-1", b"", SECOND)
    await stage.clock.sleep(Duration.minutes(2))
    with pytest.raises(Unavailable):
        await operator.request("fleet.stop.dev-1", b"", SECOND)


@story
async def test_a_process_that_ends_in_order_closes_its_connection(stage: Stage) -> None:
    process, made = stage.start("dev-1")
    await stage.clock.sleep(SECOND)
    assert made[0].is_connected()
    process.terminate()
    await stage.clock.sleep(SECOND)
    assert stage.ends == [("dev-1", 0)]
    assert not stage.server.sessions


@story
async def test_a_callback_that_raises_ends_its_process_and_not_the_world(stage: Stage) -> None:
    operator = await stage.bus("operator")
    _, made = stage.start("dev-1")
    await stage.clock.sleep(SECOND)

    def bad(entry: Entry) -> None:
        raise ZeroDivisionError

    made[0].listen(DESIRED, "dev-1", bad)
    await stage.clock.sleep(SECOND)
    await operator.put(DESIRED, "dev-1.agent", b"x")
    await stage.clock.sleep(SECOND)
    assert stage.ends == [("dev-1", 1)]


@story
async def test_an_unknown_client_is_not_let_in(stage: Stage) -> None:
    stage.network.add_node("stranger")
    _, made = stage.start("stranger")
    await stage.clock.sleep(Duration.minutes(1))
    assert not made[0].is_connected()
    stage.server.permit("stranger", EVERYTHING)
    await stage.clock.sleep(Duration.seconds(5))
    assert made[0].is_connected()


class Notes:
    """An observer."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def stored(self, *what: object) -> None:
        self.seen.append(("stored", *what))

    def deleted(self, *what: object) -> None:
        self.seen.append(("deleted", *what))

    def requested(self, *what: object) -> None:
        self.seen.append(("requested", *what))

    def read(self, *what: object) -> None:
        self.seen.append(("read", *what))

    def listened(self, *what: object) -> None:
        self.seen.append(("listened", *what))


@story
async def test_an_observer_sees_what_is_accepted_and_who_did_it(stage: Stage) -> None:
    notes = Notes()
    stage.server.observe(notes)
    operator, device = await stage.bus("operator"), await stage.bus("dev-1")
    await device.put(STATE, "dev-1.a", b"1")
    with pytest.raises(Conflict):
        await operator.update(STATE, "dev-1.a", b"refused", Revision(0))
    with pytest.raises(NotPermitted):
        await device.put(STATE, "dev-2.a", b"forbidden")
    await operator.delete(STATE, "dev-1.a")
    stage.server.store_raw(STATE, b"\xff", b"raw")
    with pytest.raises(Unavailable):
        await device.request("fleet.lock.dev-1", b"?", SECOND)
    with pytest.raises(NotPermitted):
        await device.request("fleet.lock.dev-2", b"?", SECOND)
    with pytest.raises(NotPermitted):
        await device.get(DESIRED, "dev-2.agent")
    device.listen(DESIRED, "dev-2", lambda _: None)
    await stage.clock.sleep(SECOND)
    assert notes.seen == [
        ("stored", STATE, "dev-1.a", 1, "dev-1", b"1"),
        ("read", "operator", STATE, "dev-1.a", True),
        ("deleted", STATE, "dev-1.a", 2, "operator"),
        ("stored", STATE, "\udcff", 3, "raw", b"raw"),
        ("requested", "fleet.lock.dev-1", "dev-1", b"?"),
        ("read", "dev-1", DESIRED, "dev-2.agent", False),
        ("listened", "dev-1", "fleet.desired.dev-2", False),
        ("listened", "dev-1", "fleet.desired.dev-2.>", False),
    ]


@story
async def test_a_subscription_made_before_the_connection_stands_is_not_lost(stage: Stage) -> None:
    operator = await stage.bus("operator")
    heard: list[Entry] = []
    _, made = stage.start("dev-1")
    while not made:
        await stage.clock.sleep(MOMENT)
    assert not made[0].is_connected()
    made[0].listen(DESIRED, "dev-1", heard.append)
    await stage.clock.sleep(SECOND)
    await operator.put(DESIRED, "dev-1.agent", b"x")
    await operator.delete(DESIRED, "dev-1.agent")
    await stage.clock.sleep(SECOND)
    assert heard == [
        Stored(DESIRED, "dev-1.agent", Revision(1), b"x"),
        Deleted(DESIRED, "dev-1.agent", Revision(2)),
    ]
