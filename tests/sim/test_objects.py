"""What only the model of the Kubernetes API does: go away, forget, be observed, take time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from fleet.capabilities.objects import Applied
from fleet.contracts.errors import Disconnected, Refused, Unavailable
from fleet.contracts.ids import ObjectName
from fleet.contracts.objects import Device, Metadata
from fleet.contracts.time import Duration, Instant
from sim.clock import SimClock
from sim.objects import LATENCY, SimObjects
from sim.process import Process, spawn
from sim.random import SimChance
from sim.world import World


class Stage:
    def __init__(self) -> None:
        self.world = World(1)
        self.clock = SimClock(self.world.loop)
        self.api = SimObjects(self.world.kernel, SimChance(self.world.streams.stream("api")))


def story(tell: Callable[[Stage], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        stage = Stage()

        async def told() -> None:
            await tell(stage)

        with stage.world:
            stage.world.run(told())

    test.__doc__ = tell.__doc__
    return test


def device(name: str) -> Device:
    return Device(metadata=Metadata(name=ObjectName(name)))


@story
async def test_a_call_takes_its_time(stage: Stage) -> None:
    await stage.api.create(device("dev-1"))
    assert stage.clock.monotonic() == Instant(LATENCY)


@story
async def test_an_api_that_is_away_answers_nothing_and_forgets_nothing(stage: Stage) -> None:
    await stage.api.create(device("dev-1"))
    stage.api.stop()
    with pytest.raises(Unavailable):
        await stage.api.list(Device)
    with pytest.raises(Unavailable):
        await anext(stage.api.watch(Device, "0"))
    stage.api.start()
    assert len((await stage.api.list(Device)).items) == 1


@story
async def test_a_call_that_acted_before_the_api_went_away_is_unknown(stage: Stage) -> None:
    stage.world.kernel.after(LATENCY - 1, stage.api.stop)
    with pytest.raises(Disconnected):
        await stage.api.create(device("dev-1"))
    stage.api.start()
    assert len((await stage.api.list(Device)).items) == 1


@story
async def test_a_watch_ends_when_the_api_goes_away_however_briefly(stage: Stage) -> None:
    made = await stage.api.create(device("dev-1"))
    events = stage.api.watch(Device, "0")
    assert await anext(events) == Applied(made)

    def blink() -> None:
        stage.api.stop()
        stage.api.start()

    stage.world.kernel.after(Duration.seconds(1), blink)
    with pytest.raises(Disconnected):
        await anext(events)
    assert await anext(stage.api.watch(Device, "0")) == Applied(made)


@story
async def test_a_forgotten_version_is_refused(stage: Stage) -> None:
    await stage.api.create(device("dev-1"))
    events = stage.api.watch(Device, "0")
    stage.api.compact()
    with pytest.raises(Refused):
        await anext(events)
    made = await stage.api.create(device("dev-2"))
    assert await anext(stage.api.watch(Device, "1")) == Applied(made)


@story
async def test_a_version_from_the_future_is_silence(stage: Stage) -> None:
    await stage.api.create(device("dev-1"))
    with pytest.raises(TimeoutError):
        async with stage.clock.timeout(Duration.minutes(5)):
            await anext(stage.api.watch(Device, "77"))


@story
async def test_a_request_of_a_process_that_dies_still_arrives(stage: Stage) -> None:
    async def program(process: Process) -> int:
        await stage.api.create(device("dev-1"))
        return 0

    process = spawn(stage.world.loop, "program", program, lambda process, code: None)
    stage.world.kernel.after(LATENCY // 4, process.kill)
    await stage.clock.sleep(Duration.seconds(1))
    assert len((await stage.api.list(Device)).items) == 1


class Notes:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bool]] = []

    def object_stored(self, kind: str, name: str, value: bytes) -> None:
        self.seen.append((kind, name, b'"resourceVersion":"1"' in value))

    def object_removed(self, kind: str, name: str) -> None:
        self.seen.append((kind, name, False))


@story
async def test_an_observer_sees_every_change(stage: Stage) -> None:
    notes = Notes()
    stage.api.observe(notes)
    made = await stage.api.create(device("dev-1"))
    await stage.api.replace(made)
    await stage.api.delete(Device, ObjectName("dev-1"))
    assert notes.seen == [("Device", "dev-1", True), ("Device", "dev-1", False)]
