"""One suite for the `Containers` port: the virtual engine, and `podman` on a device of plain processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

import pytest

from agent.linux.podman import Podman, container_name
from fleet.capabilities.containers import ContainerFact, Containers
from fleet.capabilities.host import Exited
from fleet.contracts.errors import Conflict, NotFound, Refused
from fleet.contracts.ids import DeploymentName, DeviceId, Slot
from fleet.contracts.podman import Container
from harness.targets.standin.events import BoxEnded, BoxStarted, MachineEvent
from harness.targets.standin.machine import StandInMachine
from sim.clock import SimClock
from sim.containers import Engine, Registry, SimContainers
from sim.host import Machine
from sim.network import Link
from sim.process import Process, spawn
from sim.world import World as SpaceAndTime

WEB, APP, DB = DeploymentName("web"), DeploymentName("app"), DeploymentName("db")
IMAGE = "registry.example/app:1"
MISSING = "missing/app:1"


def container(name: DeploymentName, image: str = IMAGE) -> Container:
    return Container(name=name, image=image)


def fact(name: DeploymentName, fingerprint: str, *, running: bool = True) -> ContainerFact:
    return ContainerFact(WEB, name, IMAGE, fingerprint, running)


class World(Protocol):
    """A machine with an engine. `heard` lists the fingerprints of containers that started, and names that ended."""

    heard: list[str]

    @property
    def containers(self) -> Containers: ...

    async def crash(self, deployment: DeploymentName, name: DeploymentName) -> None: ...


Story = Callable[[World], Awaitable[None]]
Teller = Callable[[Story], None]


class RealWorld:
    def __init__(self, root: Path) -> None:
        self.heard: list[str] = []
        self.machine = StandInMachine(root, 20, self._heard)
        launcher = root / "usr/local/lib/fleet-agent/launcher.py"
        launcher.parent.mkdir(parents=True)
        launcher.write_text("import time\ntime.sleep(300)\n")

    def _heard(self, event: MachineEvent) -> None:
        match event:
            case BoxStarted(fingerprint=fingerprint):
                self.heard.append(f"+{fingerprint}")
            case BoxEnded(name=name):
                self.heard.append(f"-{name}")
            case _:
                pass

    @property
    def containers(self) -> Containers:
        return Podman(self.machine.environment)

    async def crash(self, deployment: DeploymentName, name: DeploymentName) -> None:
        await self.machine.crash(container_name(deployment, name))

    async def tell(self, story: Story) -> None:
        try:
            await self.machine.start()
            await story(self)
        finally:
            await self.machine.stop()


class VirtualWorld:
    def __init__(self, space: SpaceAndTime) -> None:
        self.heard: list[str] = []
        space.network.add_node("registry")
        space.network.add_node("dev-1", Link())
        machine = Machine(space.loop, space.streams, DeviceId("dev-1"), SimClock(space.loop), _idle, _no_programs)
        machine.boot()
        self._engine = Engine(machine, Registry(space.network, "registry", missing=frozenset({MISSING})))
        self._engine.hooks.started = lambda fact: self.heard.append(f"+{fact.fingerprint}")
        self._engine.hooks.ended = lambda fact: self.heard.append(f"-{fact.name}")
        self._teller = spawn(space.loop, "teller", _forever, lambda process, code: None)

    @property
    def containers(self) -> Containers:
        return SimContainers(self._engine, self._teller)

    async def crash(self, deployment: DeploymentName, name: DeploymentName) -> None:
        self._engine.crash(name)

    async def tell(self, story: Story) -> None:
        await story(self)


async def _idle(machine: Machine, slot: Slot, process: Process) -> int:
    return await _forever(process)


async def _forever(process: Process) -> int:
    while True:  # a timer keeps hold of it: a task that waits for what nobody else has is the collector's
        await asyncio.sleep(3600)


async def _no_programs(machine: Machine, path: PurePosixPath, contents: bytes, arguments: tuple[str, ...]) -> Exited:
    raise AssertionError("no story here runs a program")


@pytest.fixture(params=["sim", pytest.param("standin", marks=pytest.mark.real)])
def tell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Teller]:
    if request.param == "sim":
        with SpaceAndTime(seed=1) as space:
            yield lambda story: space.run(VirtualWorld(space).tell(story))
    else:
        yield lambda story: asyncio.run(RealWorld(tmp_path).tell(story))


async def until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come true in time")


def test_run_and_remove(tell: Teller) -> None:
    async def story(world: World) -> None:
        engine = world.containers
        assert await engine.present() == ()
        await engine.pull(IMAGE)
        await engine.pull(IMAGE)
        await engine.run(WEB, container(DB), "f2")
        await engine.run(WEB, container(APP), "f1")
        assert await engine.present() == (fact(APP, "f1"), fact(DB, "f2"))
        await engine.remove(WEB, DB)
        await engine.remove(WEB, DB)
        assert await engine.present() == (fact(APP, "f1"),)
        await until(lambda: world.heard == ["+f2", "+f1", "-db"])

    tell(story)


def test_a_name_is_taken_once(tell: Teller) -> None:
    async def story(world: World) -> None:
        engine = world.containers
        await engine.pull(IMAGE)
        await engine.run(WEB, container(APP), "f1")
        with pytest.raises(Conflict):
            await engine.run(WEB, container(APP), "f2")
        assert await engine.present() == (fact(APP, "f1"),)
        await engine.run(DeploymentName("other"), container(APP), "f3")
        assert len(await engine.present()) == 2

    tell(story)


def test_images(tell: Teller) -> None:
    async def story(world: World) -> None:
        engine = world.containers
        with pytest.raises(NotFound):
            await engine.pull(MISSING)
        with pytest.raises(Refused):
            await engine.run(WEB, container(APP), "f1")
        assert await engine.present() == ()

    tell(story)


def test_what_crashed_is_seen_and_can_be_started(tell: Teller) -> None:
    async def story(world: World) -> None:
        engine = world.containers
        with pytest.raises(NotFound):
            await engine.start(WEB, APP)
        await engine.pull(IMAGE)
        await engine.run(WEB, container(APP), "f1")
        await engine.start(WEB, APP)
        await world.crash(WEB, APP)
        await until(lambda: world.heard == ["+f1", "-app"])
        assert await engine.present() == (fact(APP, "f1", running=False),)
        await engine.start(WEB, APP)
        assert await engine.present() == (fact(APP, "f1"),)
        await until(lambda: world.heard == ["+f1", "-app", "+f1"])

    tell(story)
