"""What the model's server does about a login by token that no program answers, answers late, or answers twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fleet.capabilities.callout import Admission, LoginRequest
from fleet.contracts.errors import FleetError, Refused, TimedOut
from fleet.contracts.ids import DeviceId
from fleet.contracts.permissions import of_device
from fleet.contracts.time import Duration, Instant
from sim.clock import EPOCH, SimClock
from sim.nats import Callouts, SimCallout
from sim.nats.auth import AUTH_TIMEOUT
from sim.world import World

DEVICE = DeviceId("dev-1")
GOOD = Admission(DEVICE, "u-1", EPOCH, Instant(EPOCH + Duration.minutes(60)), of_device(DEVICE))


class Standing:
    alive = True

    def on_death(self, callback: Callable[[], None]) -> None:
        """It does not die."""

    def crash(self, error: BaseException) -> None:
        raise error


class Room:
    def __init__(self, world: World) -> None:
        self.clock = SimClock(world.loop)
        self.world = world
        for node in ("nats", "callout-0", "callout-1"):
            world.network.add_node(node)
        self.callouts = Callouts(world.kernel, world.network, "nats", self.clock)
        self.programs = [SimCallout(self.callouts, f"callout-{n}", Standing(), lambda: True) for n in range(2)]
        self.decided: list[tuple[Duration, Admission | FleetError]] = []
        self.questions: list[LoginRequest] = []

    def ask(self) -> None:
        began = self.world.kernel.now
        self.callouts.ask(
            "dev-1", "token", lambda said: self.decided.append((Duration(self.world.kernel.now - began), said))
        )


def story(tell: Callable[[Room], Awaitable[None]]) -> Callable[[], None]:
    async def told(world: World) -> None:
        await tell(Room(world))

    def test() -> None:
        with World(1) as world:
            world.run(told(world))

    test.__doc__ = tell.__doc__
    return test


@story
async def test_without_a_program_the_client_is_sent_away_after_the_servers_limit(room: Room) -> None:
    room.ask()
    await room.clock.sleep(Duration.seconds(5))
    ((after, said),) = room.decided
    assert after == AUTH_TIMEOUT == Duration.seconds(1)
    assert isinstance(said, TimedOut)


@story
async def test_a_late_and_a_second_answer_find_nobody(room: Room) -> None:
    room.programs[0].serve(room.questions.append)
    room.ask()
    await room.clock.sleep(Duration.millis(1500))
    room.questions[0].allow(GOOD)
    await room.clock.sleep(Duration.seconds(1))
    assert [type(said) for _, said in room.decided] == [TimedOut]
    room.ask()
    await room.clock.sleep(Duration.millis(500))
    room.questions[1].refuse()
    room.questions[1].allow(GOOD)
    await room.clock.sleep(Duration.seconds(1))
    assert [type(said) for _, said in room.decided] == [TimedOut, Refused]


@story
async def test_programs_are_asked_in_turn_and_one_that_left_is_not(room: Room) -> None:
    asked: list[int] = []
    for number, program in enumerate(room.programs):
        program.serve(lambda request, number=number: asked.append(number))  # type: ignore[misc]  # bound to its number
    for _ in range(6):
        room.ask()
    await room.clock.sleep(Duration.seconds(2))
    assert sorted(asked) == [0, 0, 0, 1, 1, 1]
    asked.clear()
    room.programs[0].close()
    room.ask()
    room.ask()
    await room.clock.sleep(Duration.seconds(2))
    assert asked == [1, 1]


@story
async def test_an_admission_that_has_expired_already_is_refused_by_the_server_itself(room: Room) -> None:
    room.programs[0].serve(lambda request: request.allow(Admission(DEVICE, "u-1", EPOCH, EPOCH, of_device(DEVICE))))
    await room.clock.sleep(Duration.millis(1))
    room.ask()
    await asyncio.sleep(0.5)
    assert [type(said) for _, said in room.decided] == [Refused]
