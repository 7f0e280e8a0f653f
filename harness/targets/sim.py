"""The virtual world as a target: the production operator and agents on simulated time, hundreds of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from agent.staging import install_first
from fleet.capabilities.clock import Clock
from fleet.capabilities.objects import Objects
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, ObjectName, Version
from fleet.contracts.layout import BUCKETS
from fleet.contracts.objects import Device, Metadata
from fleet.contracts.permissions import EVERYTHING, of_device
from fleet.contracts.records import Artefact
from fleet.contracts.time import Duration
from fleet.roots.logins import server_config
from fleet.secrets.documents import Documents
from fleet.secrets.registry import Entropy
from harness.faults import Fault
from harness.targets import sim_releases
from harness.targets.installations import CLUSTER, DEVICE, Installations
from harness.targets.port import FleetPlan, IdentityDesk, Logins, Need, SecretDesk, Session
from harness.targets.sim_device import UPLINK, Surroundings, VirtualDevice
from harness.targets.sim_faults import CANNOT, SimFaults
from harness.targets.sim_identities import VirtualIdentities
from harness.targets.sim_observer import OPERATOR, Observer
from harness.targets.sim_operator import CLUSTER_LINK, VirtualOperator, operator_name
from harness.targets.sim_secret_files import FarDocuments, VirtualSecretFiles
from harness.targets.sim_taps import Tap
from sim.artefacts import ArtefactServer
from sim.clock import SimClock
from sim.containers import Registry
from sim.disk import DiskImage, SimDisk
from sim.journal import Journal
from sim.nats import NatsServer
from sim.objects import SimObjects
from sim.random import SimChance
from sim.world import World

T = TypeVar("T")

_UNHEARD: Final = logging.NullHandler()
"""What the virtual programs log is for whoever listens for it. Without anybody it is not for standard error."""
_DISTANCE: Final = (Duration.millis(5), Duration.millis(50))
"""How long a place of secrets that is not on the same machine takes to answer."""
BRING_UP: Final = Duration.seconds(60)
"""The power of all devices comes on within this time, so that a fleet does not boot in step."""


class SimTarget:
    """Devices, control plane and time, all virtual."""

    name = "sim"
    default_devices: int | None = None

    def __init__(self, tap: Tap | None = None) -> None:
        self._tap = tap

    @property
    def cannot(self) -> dict[type[Fault], str]:
        """See `Target.cannot`."""
        return CANNOT

    @property
    def lacks(self) -> dict[Need, str]:
        """See `Target.lacks`. The world begins on 2026-01-01 at 00:00 UTC."""
        return {}

    def run(self, plan: FleetPlan, seed: int, main: Callable[[Session], Awaitable[T]]) -> T:
        """See `Target.run`. Virtual time; a program that ends by an exception of its own ends the run with it."""
        for program in (DEVICE, CLUSTER):
            logging.getLogger(program).addHandler(_UNHEARD)
        with World(seed) as world:
            return world.run(self._within(world, plan, main))

    async def _within(self, world: World, plan: FleetPlan, main: Callable[[Session], Awaitable[T]]) -> T:
        session = SimSession(world, plan, self._tap)
        with session.installations.listening():
            return await self._until_crashed(session, main)

    async def _until_crashed(self, session: SimSession, main: Callable[[Session], Awaitable[T]]) -> T:
        running = asyncio.ensure_future(main(session))
        crashed = asyncio.ensure_future(session.crashed())
        await asyncio.wait((running, crashed), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            running.cancel()
            await asyncio.wait((running,))
            crashed.result()
        crashed.cancel()
        return running.result()


def target() -> SimTarget:
    """See `harness.targets.registry`."""
    return SimTarget()


class SimSession:
    """See `Session`."""

    def __init__(self, world: World, plan: FleetPlan, tap: Tap | None = None) -> None:
        self._world = world
        self._plan = plan
        self._tap = tap
        self._releases = {item.version: sim_releases.build(item) for item in plan.releases}
        self._journal = Journal()
        self._clock = SimClock(world.loop)
        self._secret_files = VirtualSecretFiles(self._clock)
        self.installations = Installations(
            self._secret_files,
            self._journal,
            world.now,
            self._clock,
            _entropy(world),
            partial(_far, world, self._clock),
        )
        self._crash: asyncio.Future[BaseException] = world.loop.create_future()
        self._nats, self._objects, around = self._control_plane()
        self._identities = around.identities
        self._operators = tuple(VirtualOperator(around, self._objects, number) for number in range(plan.operators))
        self._devices = {device: VirtualDevice(around, device) for device in plan.devices}
        built = {version: item.release for version, item in self._releases.items()}
        self._faults = SimFaults(around, self._operators, self._devices, built)

    @property
    def clock(self) -> Clock:
        """See `Session.clock`."""
        return self._clock

    @property
    def journal(self) -> Journal:
        """See `Session.journal`."""
        return self._journal

    @property
    def objects(self) -> Objects:
        """See `Session.objects`."""
        return self._objects

    @property
    def identities(self) -> IdentityDesk:
        """See `Session.identities`."""
        if self._identities is None:
            raise InvalidValue("the devices of this run log in by passwords")
        return self._identities

    @property
    def secrets(self) -> SecretDesk:
        """See `Session.secrets`."""
        return self.installations

    async def crashed(self) -> None:
        """Raises what a program died of, when one does."""
        raise await self._crash

    def artefacts(self, version: Version) -> tuple[Artefact, ...]:
        """See `Session.artefacts`."""
        return (self._releases[version].artefact,)

    async def start(self) -> None:
        """See `Session.start`. Devices are powered on over `BRING_UP`, in an order that the seed decides."""
        await self.installations.install(self._plan.installs)
        await self._let_in()
        for operator in self._operators:
            operator.start()
        for device, labels in zip(self._plan.devices, self._plan.labels, strict=True):
            await self._objects.create(Device(metadata=Metadata(name=ObjectName(device), labels=labels)))
        first = self._releases[self._plan.installed]
        stream = self._world.streams.stream("bring-up")
        for made in self._devices.values():
            await install_first(SimDisk(made.disk, ALWAYS), first.data, self._plan.installed)
            made.disk.sync_all()
            made.watch_disk()
        if self._identities is not None:
            await self._identities.start(self._plan.devices)
        for made in self._devices.values():
            self._world.kernel.after(int(stream.random() * BRING_UP), made.machine.boot)

    async def inject(self, fault: Fault) -> Callable[[], Awaitable[None]] | None:
        """See `Session.inject`."""
        return await self._faults.inject(fault)

    async def settle(self) -> None:
        """See `Session.settle`: the world records everything as it happens."""

    def _control_plane(self) -> tuple[NatsServer, SimObjects, Surroundings]:
        world = self._world
        for node in ("nats", "releases", "registry"):
            world.network.add_node(node)
        operators = [operator_name(number) for number in range(self._plan.operators)]
        for node in operators:
            world.network.add_node(node, CLUSTER_LINK)
        for device in self._plan.devices:
            world.network.add_node(device, UPLINK)
        nats = NatsServer(world.kernel, world.network)
        for bucket in BUCKETS:
            nats.ensure_bucket(bucket)
        if self._plan.logins is Logins.PASSWORD:
            for device in self._plan.devices:
                nats.permit(device, of_device(device))
        releases = ArtefactServer(world.network, "releases", weight=sim_releases.WEIGHT)
        for release in self._releases.values():
            releases.put(release.url, release.served)
        objects = SimObjects(world.kernel, SimChance(world.streams.stream("kubernetes")))
        observer = Observer(self._journal, world.now)
        nats.observe(observer)
        objects.observe(observer)
        registry = Registry(world.network, "registry")
        identities = None
        if self._plan.logins is Logins.TOKEN:
            store = self.installations.store
            identities = VirtualIdentities(world, nats, CLUSTER_LINK, self._disk_of, store, self._program_crashed)
        made, crashed = self.installations, self._program_crashed
        around = Surroundings(world, nats, releases, registry, self._journal, made, crashed, self._tap, identities)
        return nats, objects, around

    async def _let_in(self) -> None:
        """Configure the bus: whom it lets in with which password, as an installation's configuration says."""
        config = await server_config(self.installations.store, "", "127.0.0.1", -1)
        operator = next(user for user in config.users if user.name == OPERATOR)
        for number in range(self._plan.operators):
            self._nats.permit(operator_name(number), EVERYTHING, operator.password)
        if self._identities is not None:
            self._identities.let_in(config)

    def _disk_of(self, device: DeviceId) -> DiskImage:
        return self._devices[device].disk

    def _program_crashed(self, error: BaseException) -> None:
        if not self._crash.done():
            self._crash.set_result(error)


def _entropy(world: World) -> Entropy:
    """What secrets are made from: a stream of its own."""
    stream = world.streams.stream("secrets/entropy")
    return lambda count: bytes(stream.randrange(256) for _ in range(count))


def _far(world: World, clock: Clock, documents: Documents) -> Documents:
    """Documents of a place that takes some time to answer, another one each time."""
    chance = SimChance(world.streams.stream("secrets/distance"))

    async def pause() -> None:
        await clock.sleep(chance.between(*_DISTANCE))

    return FarDocuments(documents, pause)


class _Always:
    alive = True


ALWAYS: Final = _Always()
"""Who sets a device up is outside the world, and never dies in it."""
