"""What only the standalone store does: live with hostile entries, lost connections, and a server that forgot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from fleet.adapters.objects import StandaloneObjects
from fleet.capabilities.objects import Applied, InvalidObject, Removed
from fleet.contracts.errors import InvalidValue, Refused, Unavailable
from fleet.contracts.ids import ObjectName
from fleet.contracts.layout import BUCKETS, Bucket
from fleet.contracts.objects import Device, DevicePhase, DeviceStatus, Metadata
from fleet.contracts.permissions import EVERYTHING
from fleet.contracts.time import Duration
from sim.clock import SimClock
from sim.nats import NatsServer, SimBus
from sim.random import SimChance
from sim.world import World

OBJECTS = Bucket.OBJECTS
DEV = ObjectName("dev-1")


class Standing:
    alive = True

    def on_death(self, callback: Callable[[], None]) -> None:
        """It does not die."""

    def crash(self, error: BaseException) -> None:
        raise error


class Stage:
    """A server and one client of it."""

    def __init__(self, world: World) -> None:
        self.clock = SimClock(world.loop)
        for name in ("nats", "operator"):
            world.network.add_node(name)
        self.server = NatsServer(world.kernel, world.network)
        for spec in BUCKETS:
            self.server.ensure_bucket(spec)
        self.server.permit("operator", EVERYTHING)
        chance = SimChance(world.streams.stream("operator"))
        self.bus = SimBus(self.server, "operator", "operator", Standing(), chance)
        self.objects = StandaloneObjects(self.bus, chance)

    async def session(self, stands: bool) -> None:
        while self.bus.is_connected() is not stands:
            await self.clock.sleep(Duration.millis(1))

    def store_raw(self, key: bytes, value: bytes) -> None:
        self.server.store_raw(OBJECTS, key, value)


def story(tell: Callable[[Stage], Awaitable[None]]) -> Callable[[], None]:
    async def told(world: World) -> None:
        stage = Stage(world)
        await stage.session(stands=True)
        await tell(stage)

    def test() -> None:
        with World(1) as world:
            world.run(told(world))

    test.__doc__ = tell.__doc__
    return test


def device(name: str = "dev-1") -> Device:
    return Device(metadata=Metadata(name=ObjectName(name)))


@story
async def test_hostile_entries_are_listed_as_invalid_and_the_rest_is_served(stage: Stage) -> None:
    await stage.objects.create(device())
    good = b'{"apiVersion":"fleet.nationtech.io/v1alpha1","kind":"Device","metadata":{"name":"dev-2"}}'
    stage.store_raw(b"Device.dev-3", good)
    stage.store_raw(b"Device.\xff", b"\xff\xfe")
    stage.store_raw(b"Device.>", b"")
    stage.store_raw(b"Device", b"{}")
    stage.store_raw(b"Device.deep", b"[" * 60_000)
    stage.store_raw(b"Nonsense.x", b"{}")
    stage.store_raw(b"Device.dev-2", good)
    listing = await stage.objects.list(Device)
    assert [item.name for item in listing.items] == ["dev-1", "dev-2"]
    assert [(item.kind, item.name) for item in listing.invalid] == [
        ("Device", "dev-3"),
        ("Device", "\udcff"),
        ("Device", ">"),
        ("Device", ""),
        ("Device", "deep"),
    ]
    with pytest.raises(InvalidValue):
        await stage.objects.get(Device, ObjectName("dev-3"))


@story
async def test_a_reason_never_quotes_the_value(stage: Stage) -> None:
    stage.store_raw(b"Device.dev-1", b'{"metadata":{"name":"dev-1"},"kind":"hunter2","hunter2":"hunter2"}')
    (invalid,) = (await stage.objects.list(Device)).invalid
    assert "hunter2" not in invalid.reason.replace("hunter2: Extra", "")


@story
async def test_a_watch_tells_of_invalid_entries_and_of_their_healing(stage: Stage) -> None:
    made = await stage.objects.create(device())
    events = stage.objects.watch(Device, made.metadata.resource_version)
    stage.store_raw(b"Device.dev-1", b"nonsense")
    first = await anext(events)
    assert isinstance(first, InvalidObject)
    assert first.name == "dev-1"
    stage.store_raw(b"Device.\xff", b"x")
    assert isinstance(await anext(events), InvalidObject)
    await stage.bus.delete(OBJECTS, "Device.dev-1")
    assert await anext(events) == Removed("Device", DEV)
    again = await stage.objects.create(device())
    assert await anext(events) == Applied(again)


@story
async def test_an_invalid_object_can_be_deleted(stage: Stage) -> None:
    stage.store_raw(b"Device.dev-1", b"nonsense")
    await stage.objects.delete(Device, DEV)
    assert (await stage.objects.create(device())).metadata.generation == 1


@story
async def test_a_watch_finds_what_was_written_while_it_was_away(stage: Stage) -> None:
    made = await stage.objects.create(device("dev-1"))
    await stage.objects.create(device("dev-2"))
    events = stage.objects.watch(Device, "0")
    assert isinstance(await anext(events), Applied)
    assert isinstance(await anext(events), Applied)
    stage.server.stop()
    await stage.session(stands=False)
    with pytest.raises(Unavailable):
        await stage.objects.list(Device)
    stage.server.start()
    stage.store_raw(b"Device.dev-9", b"missed")
    missed = await anext(events)
    assert isinstance(missed, InvalidObject)
    assert missed.name == "dev-9"
    changed = await stage.objects.replace_status(made.changed(status=DeviceStatus(phase=DevicePhase.READY)))
    assert await anext(events) == Applied(changed)


@story
async def test_a_watch_ends_when_the_store_went_back(stage: Stage) -> None:
    await stage.objects.create(device("dev-1"))
    await stage.objects.create(device("dev-2"))
    events = stage.objects.watch(Device, "0")
    await anext(events)
    await anext(events)
    stage.server.stop()
    stage.server.lose_tail(OBJECTS, 1)
    stage.server.start()
    with pytest.raises(Refused):
        await anext(events)
    assert [item.name for item in (await stage.objects.list(Device)).items] == ["dev-1"]


@story
async def test_a_closed_watch_leaves_no_subscription(stage: Stage) -> None:
    await stage.objects.create(device())
    events = stage.objects.watch(Device, "0")
    await anext(events)
    assert stage.server.interest.of("fleet.objects.Device.dev-1")
    await events.aclose()  # type: ignore[attr-defined]  # the port promises an iterator, this one is a generator
    await stage.clock.sleep(Duration.seconds(1))
    assert not stage.server.interest.of("fleet.objects.Device.dev-1")
