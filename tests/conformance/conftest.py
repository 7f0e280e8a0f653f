"""The two places where the bus suites run: the model in a virtual world, and a real nats-server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.nats import NatsBus, NatsTimings, PasswordFile
from fleet.adapters.nats_admin import NatsAdmin
from fleet.adapters.nats_login import PasswordLogin
from fleet.adapters.objects import StandaloneObjects
from fleet.capabilities.bus import Bus
from fleet.capabilities.clock import Chance, Clock
from fleet.capabilities.objects import Objects
from fleet.contracts.ids import DeviceId, Revision
from fleet.contracts.layout import BUCKETS, Bucket
from fleet.contracts.permissions import EVERYTHING, Permissions, of_device
from fleet.contracts.time import Duration
from harness.targets.nats_process import NatsProcess, User
from sim.clock import SimClock
from sim.nats import NatsServer, SimBus
from sim.objects import SimObjects
from sim.random import SimChance
from sim.world import World

CLIENTS: dict[str, Permissions] = {
    "operator": EVERYTHING,
    "harness": EVERYTHING,
    "dev-1": of_device(DeviceId("dev-1")),
    "dev-2": of_device(DeviceId("dev-2")),
}


class Standing:
    """A process that runs for the length of a test."""

    alive = True

    def on_death(self, callback: Callable[[], None]) -> None:
        """It does not die."""

    def crash(self, error: BaseException) -> None:
        """What a callback raised fails the test."""
        raise error


class SimLab:
    """A world with a server and a node for each client."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.clock: Clock = SimClock(world.loop)
        self.chance: Chance = SimChance(world.streams.stream("lab"))
        world.network.add_node("nats")
        self.server = NatsServer(world.kernel, world.network)
        for spec in BUCKETS:
            self.server.ensure_bucket(spec)
        for name, permissions in CLIENTS.items():
            world.network.add_node(name)
            self.server.permit(name, permissions)

    def bus(self, name: str) -> Bus:
        return SimBus(self.server, name, name, Standing(), self.chance)

    def bus_that(self, name: str, knows: Callable[[], bool]) -> Bus:
        """A client that is asked at each connection whether it knows its password."""
        self.server.permit(name, CLIENTS[name], "right")

        async def read() -> str:
            return "right" if knows() else "wrong"

        return SimBus(self.server, name, name, Standing(), self.chance, read_password=read)

    async def store_raw(self, bucket: Bucket, key: bytes, value: bytes) -> Revision:
        return self.server.store_raw(bucket, key, value)

    async def crash(self) -> None:
        self.server.stop()

    async def restart(self) -> None:
        self.server.start()


class _Shows:
    """A LoginSource that shows the password in a file, or another one."""

    def __init__(self, right: PasswordFile, knows: Callable[[], bool]) -> None:
        self._right = right
        self._knows = knows

    def turned_away(self) -> None:
        """It is asked each time anyway."""

    async def read(self) -> PasswordLogin:
        """What it shows now."""
        right = await self._right.read()
        return right if self._knows() else PasswordLogin(right.user, "wrong-password")


class RealLab:
    """A nats-server below a folder, and clients with short intervals."""

    timings = NatsTimings(
        answer=Duration.seconds(2),
        backoff_least=Duration.millis(100),
        backoff_most=Duration.millis(300),
        ping=Duration.seconds(1),
    )

    def __init__(self, folder: Path) -> None:
        self.clock: Clock = WallClock()
        self.chance: Chance = SystemChance()
        users = tuple(User.fresh(name, permissions) for name, permissions in CLIENTS.items())
        self.process = NatsProcess(folder, users, self.clock)
        self._buses: list[NatsBus] = []

    async def start(self) -> None:
        await self.process.start()
        admin = NatsAdmin(await self._connected("harness"))
        for spec in BUCKETS:
            await admin.ensure_bucket(spec)

    async def stop(self) -> None:
        for bus in self._buses:
            await bus.close()
        await self.process.stop()

    def bus(self, name: str) -> Bus:
        return self._bus(name)

    def bus_that(self, name: str, knows: Callable[[], bool]) -> Bus:
        """As that of the model."""
        right = PasswordFile(self.process.login(name))
        return self._running(
            NatsBus(self.process.url, name, _Shows(right, knows), self.clock, self.chance, self.timings)
        )

    async def store_raw(self, bucket: Bucket, key: bytes, value: bytes) -> Revision:
        return await self.process.store_raw("harness", bucket, key, value)

    async def crash(self) -> None:
        await self.process.kill()

    async def restart(self) -> None:
        await self.process.start()

    def _bus(self, name: str) -> NatsBus:
        login = PasswordFile(self.process.login(name))
        return self._running(NatsBus(self.process.url, name, login, self.clock, self.chance, self.timings))

    def _running(self, bus: NatsBus) -> NatsBus:
        bus.start()
        self._buses.append(bus)
        return bus

    async def _connected(self, name: str) -> NatsBus:
        bus = self._bus(name)
        while not bus.is_connected():
            await self.clock.sleep(Duration.millis(5))
        return bus


Lab = SimLab | RealLab
Main = Callable[[Lab], Awaitable[None]]


def run_on_sim(main: Main, folder: Path) -> None:
    async def told(lab: SimLab) -> None:
        await main(lab)

    with World(1) as world:
        world.run(told(SimLab(world)))


def run_on_real(main: Main, folder: Path) -> None:
    async def told() -> None:
        lab = RealLab(folder)
        try:
            async with lab.clock.timeout(Duration.seconds(60)):
                await lab.start()
                await main(lab)
        finally:
            await lab.stop()

    asyncio.run(told())


@pytest.fixture(params=["sim", pytest.param("real", marks=pytest.mark.real)])
def on_lab(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Main], None]:
    """Runs a story on the model, and on the real server."""
    run = run_on_sim if request.param == "sim" else run_on_real
    return lambda main: run(main, tmp_path)


class StoreLab:
    """A store of objects; `other` is another client of the same one."""

    def __init__(self, clock: Clock, objects: Objects, other: Objects) -> None:
        self.clock = clock
        self.objects = objects
        self.other = other


StoreMain = Callable[[StoreLab], Awaitable[None]]


def store_on_model(main: StoreMain, folder: Path) -> None:
    async def told(lab: StoreLab) -> None:
        await main(lab)

    with World(1) as world:
        api = SimObjects(world.kernel, SimChance(world.streams.stream("api")))
        world.run(told(StoreLab(SimClock(world.loop), api, api)))


def store_on(run: Callable[[Main, Path], None]) -> Callable[[StoreMain, Path], None]:
    def store(main: StoreMain, folder: Path) -> None:
        async def told(lab: Lab) -> None:
            buses = [lab.bus("operator"), lab.bus("harness")]
            while not all(bus.is_connected() for bus in buses):
                await lab.clock.sleep(Duration.millis(5))
            one, other = (StandaloneObjects(bus, lab.chance) for bus in buses)
            await main(StoreLab(lab.clock, one, other))

        run(told, folder)

    return store


STORES = {"model": store_on_model, "standalone-sim": store_on(run_on_sim), "standalone-real": store_on(run_on_real)}


@pytest.fixture(params=["model", "standalone-sim", pytest.param("standalone-real", marks=pytest.mark.real)])
def on_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[StoreMain], None]:
    """Runs a story on each store of objects."""
    run = STORES[request.param]
    return lambda main: run(main, tmp_path)
