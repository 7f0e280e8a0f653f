"""The virtual engine: images share the uplink, containers die with the power, and releases come over the same wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import PurePosixPath

import pytest

from fleet.capabilities.host import Exited
from fleet.contracts.errors import NoSpace, NotFound, Unavailable
from fleet.contracts.ids import DeploymentName, DeviceId, Slot
from fleet.contracts.podman import Container
from sim.artefacts import ArtefactServer, SimArtefacts
from sim.clock import SimClock
from sim.containers import Engine, Registry, SimContainers, size_of
from sim.disk import DiskImage
from sim.host import Machine
from sim.network import Link
from sim.process import Process, spawn
from sim.world import World

WEB, APP = DeploymentName("web"), DeploymentName("app")
URL = "http://releases/1"


async def idle(machine: Machine, slot: Slot, process: Process) -> int:
    await process.stop.wait()
    return 0


async def no_programs(machine: Machine, path: PurePosixPath, contents: bytes, arguments: tuple[str, ...]) -> Exited:
    raise AssertionError("no story here runs a program")


async def forever(process: Process) -> int:
    while True:  # a timer keeps hold of it: a task that waits for what nobody else has is the collector's
        await asyncio.sleep(3600)


class Lab:
    """One machine behind a link of 1 MB/s, a registry with an image of 10 MB, a server of releases."""

    def __init__(self, capacity: int = 10**9) -> None:
        self.world = World(1)
        network = self.world.network
        network.add_node("backbone")
        network.add_node("dev-1", Link(bandwidth=1_000_000))
        self.machine = Machine(
            self.world.loop,
            self.world.streams,
            DeviceId("dev-1"),
            SimClock(self.world.loop),
            idle,
            no_programs,
            disk=DiskImage(capacity),
        )
        self.engine = Engine(self.machine, Registry(network, "backbone", sizes={"img": 10_000_000}))
        self.server = ArtefactServer(network, "backbone", weight=1000)
        self.server.put(URL, b"0123456789")
        self.log: list[str] = []
        self.engine.hooks.started = lambda fact: self.log.append(f"+{fact.name}")
        self.engine.hooks.ended = lambda fact: self.log.append(f"-{fact.name}")

    def run(self, story: Callable[[SimContainers, SimArtefacts], Awaitable[None]]) -> None:
        process = spawn(self.world.loop, "teller", forever, lambda process, code: None)

        async def told() -> None:
            self.machine.boot(at_once=True)
            await story(SimContainers(self.engine, process), SimArtefacts(self.server, "dev-1", process))

        with self.world:
            self.world.run(told())

    @property
    def now(self) -> float:
        return self.world.now() / 1e9


def test_an_image_crosses_the_uplink_once() -> None:
    lab = Lab()

    async def story(containers: SimContainers, artefacts: SimArtefacts) -> None:
        free = lab.machine.disk.free()
        await containers.pull("img")
        assert 10 < lab.now < 10.5
        assert free - lab.machine.disk.free() == 10_000_000
        before = lab.now
        await containers.pull("img")
        assert lab.now == before

    lab.run(story)


def test_an_image_and_a_release_share_the_uplink() -> None:
    lab = Lab()
    lab.server.put(URL, bytes(10_000))

    async def story(containers: SimContainers, artefacts: SimArtefacts) -> None:
        await asyncio.gather(containers.pull("img"), artefacts.read(URL, 0, 10_000))
        assert 19.5 < lab.now < 21

    lab.run(story)


def test_an_image_that_does_not_fit() -> None:
    lab = Lab(capacity=5_000_000)

    async def story(containers: SimContainers, artefacts: SimArtefacts) -> None:
        with pytest.raises(NoSpace):
            await containers.pull("img")
        assert not lab.engine.has_image("img")

    lab.run(story)


def test_a_registry_behind_a_cut_link_is_unavailable() -> None:
    lab = Lab()

    async def story(containers: SimContainers, artefacts: SimArtefacts) -> None:
        lab.world.network.partition("dev-1")
        with pytest.raises(Unavailable):
            await containers.pull("img")

    lab.run(story)


def test_containers_stop_at_a_power_cut_and_are_there_to_be_started() -> None:
    lab = Lab()

    async def story(containers: SimContainers, artefacts: SimArtefacts) -> None:
        await containers.pull("img")
        await containers.run(WEB, Container(name=APP, image="img"), "f1")
        lab.machine.cut_power()
        assert lab.log == ["+app", "-app"]
        lab.machine.boot(at_once=True)
        (fact,) = await containers.present()
        assert not fact.running
        await containers.start(WEB, APP)
        assert lab.log == ["+app", "-app", "+app"]
        lab.engine.crash(APP)
        assert lab.log[-1] == "-app"
        with pytest.raises(NotFound):
            lab.engine.crash(APP)

    lab.run(story)


def test_an_engine_that_does_not_answer() -> None:
    lab = Lab()

    async def story(containers: SimContainers, artefacts: SimArtefacts) -> None:
        lab.engine.silenced = 1
        with pytest.raises(Unavailable):
            await containers.present()
        with pytest.raises(Unavailable):
            await containers.remove(WEB, APP)

    lab.run(story)


def test_sizes_belong_to_names() -> None:
    assert size_of("a") == size_of("a")
    assert size_of("a") != size_of("b")
    assert all(20 * 2**20 <= size_of(f"image-{number}") < 200 * 2**20 for number in range(100))


def test_artefacts_are_read_by_ranges_that_take_their_time() -> None:
    lab = Lab()

    async def story(containers: SimContainers, artefacts: SimArtefacts) -> None:
        assert await artefacts.read(URL, 0, 4) == b"0123"
        assert 0.004 < lab.now < 0.2
        assert await artefacts.read(URL, 8, 4) == b"89"
        assert await artefacts.read(URL, 10, 4) == b""
        with pytest.raises(NotFound):
            await artefacts.read("http://releases/2", 0, 4)
        lab.server.up = False
        with pytest.raises(Unavailable):
            await artefacts.read(URL, 0, 4)

    lab.run(story)
