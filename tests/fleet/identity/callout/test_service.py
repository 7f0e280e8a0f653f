"""The callout's hands in virtual time, with a server that a test holds in its hand: what is answered, what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fleet.capabilities.bus import Subscription
from fleet.capabilities.callout import Admission, Connected, LoginRequest, Shown
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue, NotPermitted, Unavailable
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import BUCKETS, Bucket
from fleet.contracts.permissions import EVERYTHING
from fleet.contracts.records import Admitted, Enrolment, Revoked
from fleet.contracts.time import Duration, Instant
from fleet.identity.callout.service import CalloutCounts, CalloutPorts, CalloutTimings, run_callout
from sim.clock import SimClock
from sim.nats import NatsServer, SimBus
from sim.random import SimChance
from sim.world import World
from tests.fleet.identity.callout.provider import RULES, claims, jwks, key, sign, token

TIMINGS = CalloutTimings()
DEVICE = DeviceId("dev-1")


class Asker:
    """A LoginRequest. Says what became of it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.was_read = False
        self.answer: Admission | str | None = None

    def read(self) -> Shown:
        self.was_read = True
        if self._text == "unreadable":
            raise InvalidValue("nobody can read it")
        return Shown(self._text, "'dev-1' at '10.0.0.9'")

    def allow(self, admission: Admission) -> None:
        self.answer = admission

    def refuse(self) -> None:
        self.answer = "refused"


class Wire:
    """The CalloutWire port."""

    def __init__(self) -> None:
        self.handler: Callable[[LoginRequest], None] | None = None
        self.standing: dict[str, Connected] = {}
        self.up = True
        self.looked = 0

    refused: NotPermitted | None = None

    def serve(self, handler: Callable[[LoginRequest], None]) -> Subscription:
        self.handler = handler
        return self

    def close(self) -> None:
        self.handler = None

    async def connected(self) -> tuple[Connected, ...]:
        if not self.up:
            raise Unavailable("no connection to the system's account")
        self.looked += 1
        return tuple(self.standing.values())

    async def end(self, connection: Connected) -> None:
        del self.standing[connection.connection]


class Keys:
    """The SigningKeys port."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock
        self.document = jwks(key())
        self.takes = Duration.millis(50)
        self.up = True
        self.asked = 0

    async def fetch(self) -> bytes:
        self.asked += 1
        await self._clock.sleep(self.takes)
        if not self.up:
            raise Unavailable("the provider is down")
        return self.document


class Standing:
    alive = True

    def on_death(self, callback: Callable[[], None]) -> None:
        """It does not die."""

    def crash(self, error: BaseException) -> None:
        raise error


class Room:
    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = SimClock(world.loop)
        for node in ("nats", "callout", "enrolment"):
            world.network.add_node(node)
        self.server = NatsServer(world.kernel, world.network)
        for spec in BUCKETS:
            self.server.ensure_bucket(spec)
        for name in ("callout", "enrolment"):
            self.server.permit(name, EVERYTHING)
        self.wire, self.keys, self.counts = Wire(), Keys(self.clock), CalloutCounts()
        self.enrolment = self.bus("enrolment")
        self.stop = asyncio.Event()
        ports = CalloutPorts(self.clock, self.wire, self.bus("callout"), self.keys)
        self.task = asyncio.get_running_loop().create_task(run_callout(ports, RULES, self.stop, TIMINGS, self.counts))

    def bus(self, name: str) -> SimBus:
        return SimBus(self.server, name, name, Standing(), SimChance(self.world.streams.stream(name)))

    async def enrol(self, standing: Admitted | Revoked) -> None:
        record = Enrolment(device=DEVICE, user="u-1", standing=standing)
        await self.enrolment.put(Bucket.IDENTITY, DEVICE, layout.encode(record))
        await self.clock.sleep(Duration.millis(100))

    def serving(self) -> bool:
        return self.wire.handler is not None

    async def ready(self) -> None:
        await self.clock.sleep(Duration.seconds(5))
        assert self.serving()
        await self.enrol(Admitted(tokens_from=Instant(0)))

    def ask(self, text: str) -> Asker:
        asker = Asker(text)
        assert self.wire.handler is not None
        self.wire.handler(asker)
        return asker

    def good(self) -> str:
        return token("u-1", self.clock.wall())


def story(tell: Callable[[Room], Awaitable[None]]) -> Callable[[], None]:
    async def told(world: World) -> None:
        room = Room(world)
        await tell(room)
        room.stop.set()
        await room.task

    def test() -> None:
        with World(1) as world:
            world.run(told(world))

    test.__doc__ = tell.__doc__
    return test


@story
async def test_a_good_question_is_answered_at_once(room: Room) -> None:
    await room.ready()
    asker = room.ask(room.good())
    await room.clock.sleep(Duration.millis(1))
    assert isinstance(asker.answer, Admission)
    assert asker.answer.device == DEVICE


@story
async def test_it_takes_no_questions_before_it_knows_what_it_says(room: Room) -> None:
    room.keys.up = False
    await room.clock.sleep(Duration.seconds(8))
    assert not room.serving()
    room.keys.up = True
    await room.clock.sleep(Duration.seconds(15))
    assert room.serving()


@story
async def test_it_leaves_questions_to_others_when_it_cannot_read_the_enrolments_any_more(room: Room) -> None:
    await room.ready()
    room.server.stop()
    await room.clock.sleep(TIMINGS.trust - Duration.seconds(35))
    assert room.serving()
    await room.clock.sleep(Duration.seconds(40))
    assert not room.serving()
    room.server.start()
    await room.clock.sleep(Duration.seconds(10))
    assert room.serving()


@story
async def test_a_storm_is_answered_in_time_or_not_at_all_and_takes_no_memory(room: Room) -> None:
    await room.ready()
    askers = [room.ask(room.good()) for _ in range(TIMINGS.line + 500)]
    assert room.counts.longest_line == TIMINGS.line
    await room.clock.sleep(Duration.seconds(2))
    assert [asker.was_read for asker in askers[:500]] == [False] * 500
    assert all(isinstance(asker.answer, Admission) for asker in askers[500:])
    assert room.counts.dropped == 500


@story
async def test_a_question_that_waited_too_long_is_not_even_read(room: Room) -> None:
    await room.ready()
    room.keys.takes = Duration.seconds(3)
    await room.clock.sleep(Duration.seconds(10))
    late = room.ask(sign(claims("u-1", room.clock.wall()), key("k2")))
    room.keys.document = jwks(key(), key("k2"))
    await room.clock.sleep(Duration.seconds(5))
    assert late.answer is None
    assert room.counts.dropped == 1


@story
async def test_an_unknown_key_is_looked_for_once_and_holds_nobody_up(room: Room) -> None:
    await room.ready()
    await room.clock.sleep(Duration.seconds(10))
    asked = room.keys.asked
    room.keys.document = jwks(key(), key("k2"))
    new = [room.ask(sign(claims("u-1", room.clock.wall()), key("k2"))) for _ in range(20)]
    old = room.ask(room.good())
    await room.clock.sleep(Duration.millis(10))
    assert isinstance(old.answer, Admission)
    assert [asker.answer for asker in new] == [None] * 20
    await room.clock.sleep(Duration.millis(100))
    assert all(isinstance(asker.answer, Admission) for asker in new)
    forged = [room.ask(sign(claims("u-1", room.clock.wall()), key("k3"))) for _ in range(20)]
    await room.clock.sleep(Duration.millis(100))
    assert [asker.answer for asker in forged] == ["refused"] * 20
    assert room.keys.asked == asked + 1


@story
async def test_keys_last_while_the_provider_is_down_and_a_withdrawn_one_does_not(room: Room) -> None:
    await room.ready()
    room.keys.up = False
    await room.clock.sleep(Duration.minutes(60))
    asker = room.ask(room.good())
    await room.clock.sleep(Duration.millis(10))
    assert isinstance(asker.answer, Admission)
    room.keys.up = True
    room.keys.document = jwks(key("k2"))
    await room.clock.sleep(Duration.minutes(6))
    withdrawn = room.ask(room.good())
    await room.clock.sleep(Duration.seconds(1))
    assert withdrawn.answer == "refused"


@story
async def test_what_cannot_be_read_is_dropped(room: Room) -> None:
    await room.ready()
    asker = room.ask("unreadable")
    await room.clock.sleep(Duration.millis(10))
    assert asker.answer is None
    assert room.counts.dropped == 1


@story
async def test_a_revocation_denies_first_and_cuts_then_and_looks_twice(room: Room) -> None:
    await room.ready()
    now = room.clock.wall()
    room.wire.standing["a"] = Connected("a", DEVICE, now)
    room.wire.standing["b"] = Connected("b", DeviceId("dev-2"), now)
    await room.enrol(Revoked(at=now))
    asker = room.ask(room.good())
    await room.clock.sleep(Duration.millis(10))
    assert asker.answer == "refused"
    assert list(room.wire.standing) == ["b"]
    room.wire.standing["c"] = Connected("c", DEVICE, now)  # It was let in just before, and is a connection only now.
    await room.clock.sleep(TIMINGS.second_look)
    assert list(room.wire.standing) == ["b"]
    assert room.counts.cut == 2


@story
async def test_connections_are_cut_later_when_it_cannot_be_done_now(room: Room) -> None:
    await room.ready()
    room.wire.standing["a"] = Connected("a", DEVICE, room.clock.wall())
    room.wire.up = False
    await room.enrol(Revoked(at=room.clock.wall()))
    await room.clock.sleep(Duration.minutes(10))
    assert list(room.wire.standing) == ["a"]
    room.wire.up = True
    await room.clock.sleep(Duration.seconds(3))
    assert room.wire.standing == {}


@story
async def test_a_lost_push_is_found_at_the_next_reading(room: Room) -> None:
    await room.ready()
    room.wire.standing["a"] = Connected("a", DEVICE, room.clock.wall())
    record = Enrolment(device=DEVICE, user="u-1", standing=Revoked(at=room.clock.wall()))
    room.server.store(Bucket.IDENTITY).write(DEVICE, layout.encode(record))
    await room.clock.sleep(Duration.seconds(1))
    assert list(room.wire.standing) == ["a"]
    await room.clock.sleep(TIMINGS.reread)
    assert room.wire.standing == {}


@story
async def test_an_idle_callout_looks_through_the_connections_now_and_then_only(room: Room) -> None:
    await room.ready()
    before = room.wire.looked
    await room.clock.sleep(Duration.minutes(5))
    assert room.wire.looked - before <= 2 * 11
