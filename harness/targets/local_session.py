"""One run on real parts: nats-server, operator and agents as processes, everything paced by one factor."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, TypeVar

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.nats import NatsBus, PasswordFile
from fleet.adapters.nats_admin import NatsAdmin
from fleet.adapters.objects import StandaloneObjects
from fleet.capabilities.clock import Clock
from fleet.capabilities.objects import Objects
from fleet.contracts.errors import InvalidValue, NotFound, Unavailable
from fleet.contracts.ids import DeviceId, ObjectName, Version
from fleet.contracts.layout import BUCKETS
from fleet.contracts.objects import Device, Metadata
from fleet.contracts.permissions import of_device
from fleet.contracts.records import Artefact
from fleet.contracts.time import Duration
from fleet.releases.build import BuiltRelease
from harness.faults import CutPower, Fault, KillAgent, KillOperator, WriteRaw
from harness.targets import local_locks
from harness.targets.local_bus_watch import HARNESS, OPERATOR, BusWatch
from harness.targets.local_device import LocalDevice
from harness.targets.local_operator import LocalOperator
from harness.targets.local_parts import RunFolder, agent_config, free_port, operator_config, set_up_device
from harness.targets.nats_process import NatsProcess, User
from harness.targets.port import FleetPlan
from sim.journal import Journal

T = TypeVar("T")
Ending = Callable[[], Awaitable[None]]

CONNECT: Final = Duration.seconds(10)
LOOK_AT_LOCKS: Final = Duration.millis(50)
LOOKS_PER_DISK: Final = 10
"""A disk is looked at after each event on its device, and every so many looks at the locks."""
_PROJECT: Final = Path(__file__).parents[2]


class LocalSession:
    """See `Session`. Use it as `async with`: leaving ends every process of the run, whatever happened.

    Args:
        releases: built; one per version of the plan.
        folder: of this run alone.
    """

    def __init__(self, plan: FleetPlan, releases: dict[Version, BuiltRelease], folder: RunFolder, pace: float) -> None:
        self._plan = plan
        self._releases = releases
        self._folder = folder
        self._pace = pace
        self._port = free_port()
        self._real = WallClock()
        self._clock = WallClock(pace)
        self._journal = Journal()
        self._parts = AsyncExitStack()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._nats = NatsProcess(folder.nats, _users(plan.devices), self._real)
        self._devices = {device: self._device(device) for device in plan.devices}
        self._up: list[LocalDevice] = []
        self._operator: LocalOperator | None = None
        self._bus: NatsBus | None = None
        self._objects: StandaloneObjects | None = None
        self._watch: BusWatch | None = None

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
        """See `Session.objects`. Raises: Unavailable before `start`."""
        return _started(self._objects)

    def artefacts(self, version: Version) -> tuple[Artefact, ...]:
        """See `Session.artefacts`. Raises: NotFound."""
        try:
            built = self._releases[version]
        except KeyError:
            raise NotFound(f"release {version} was not planned") from None
        url = f"http://127.0.0.1:{self._port}/releases/{built.release.sha256}"
        return (Artefact(release=built.release, architecture=built.architecture, size=built.size, url=url),)

    async def __aenter__(self) -> LocalSession:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._parts.aclose()

    async def failed(self) -> None:
        """Never returns. Raises what the target itself failed with, when it does."""
        await self._failed

    async def start(self) -> None:
        """See `Session.start`."""
        await self._start_bus()
        self._start_operator()
        objects = _started(self._objects)
        for device, labels in zip(self._plan.devices, self._plan.labels, strict=True):
            await objects.create(Device(metadata=Metadata(name=ObjectName(device), labels=labels)))
        self._in_background(self._look())
        self._parts.push_async_callback(self._stop_devices)
        await _together(self._start_device(device) for device in self._devices.values())

    async def inject(self, fault: Fault) -> Ending | None:
        """See `Session.inject`."""
        match fault:
            case WriteRaw(bucket, key, value):
                _started(self._watch).expect_raw(bucket, key, value)
                await self._nats.store_raw(HARNESS, bucket, key, value)
                return None
            case KillOperator():
                operator = _started(self._operator)
                await operator.kill()
                return _ending(operator.start)
            case KillAgent(device, slot):
                await self._find(device).kill_agent(slot)
                return None
            case CutPower(devices):
                return await self._cut_power(devices)
            case _:
                raise InvalidValue(f"this target cannot do {fault}")

    async def settle(self) -> None:
        """See `Session.settle`."""
        self._look_once(disks=True)
        await _started(self._watch).settle(self._real)

    async def _cut_power(self, devices: tuple[DeviceId, ...]) -> Ending:
        machines = [self._find(device) for device in devices]
        for machine in machines:
            await machine.cut_power()

        async def restore() -> None:
            for machine in machines:
                await machine.restore_power()

        return restore

    # --- the parts ---------------------------------------------------------------------------------------

    async def _start_bus(self) -> None:
        self._parts.push_async_callback(self._nats.stop)
        await self._nats.start()
        login, chance = PasswordFile(self._nats.login(HARNESS)), SystemChance()
        bus = self._bus = NatsBus(self._nats.url, HARNESS, login, self._real, chance)
        self._parts.push_async_callback(bus.close)
        await _connected(bus, self._real)
        admin = NatsAdmin(bus)
        for spec in BUCKETS:
            await admin.ensure_bucket(spec)
        self._objects = StandaloneObjects(bus, chance)
        self._watch = BusWatch(bus, self._journal, self._clock.monotonic)
        self._watch.start()
        self._parts.callback(self._watch.stop)

    def _start_operator(self) -> None:
        config = operator_config(self._folder, self._nats.url, self._nats.login(OPERATOR), self._port, self._pace)
        self._folder.operator_config.write_text(config.model_dump_json(), "utf-8")
        program = (sys.executable, "-m", "fleet", "operator", "run", "--config", str(self._folder.operator_config))
        environment = {"PYTHONPATH": str(_PROJECT), "PATH": os.defpath, "HOME": str(self._folder.path)}
        self._operator = LocalOperator(
            program, self._folder.operator_log, environment, self._journal, self._clock, self._real
        )
        self._operator.start()
        self._in_background(self._operator.keep())

    async def _start_device(self, device: LocalDevice) -> None:
        login = self._nats.login(device.device)
        config = agent_config(device.device, self._nats.url, self._pace)
        await set_up_device(device.root, config, login, self._releases[self._plan.installed])
        await device.start()
        self._up.append(device)

    async def _stop_devices(self) -> None:
        """Every one of them, also when another does not stop as it should."""
        ends = await asyncio.gather(*(device.stop() for device in self._devices.values()), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end

    def _device(self, device: DeviceId) -> LocalDevice:
        root = self._folder.device(device)
        return LocalDevice(device, root, self._pace, self._journal, self._clock, self._real, {})

    def _find(self, device: DeviceId) -> LocalDevice:
        try:
            return self._devices[device]
        except KeyError:
            raise NotFound(f"there is no device {device}") from None

    # --- what goes on meanwhile --------------------------------------------------------------------------

    async def _look(self) -> None:
        looks = 0
        while True:
            self._look_once(disks=looks % LOOKS_PER_DISK == 0)
            looks += 1
            await self._real.sleep(LOOK_AT_LOCKS)

    def _look_once(self, *, disks: bool) -> None:
        held = local_locks.held()
        for device in self._up:
            device.look_at_locks(held)
            if disks:
                device.look()

    def _in_background(self, work: Awaitable[None]) -> None:
        """Run it until the session ends. If it fails, so has the target."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._background_ended)
        self._parts.push_async_callback(_ended, task)

    def _background_ended(self, task: asyncio.Future[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)


def _users(devices: tuple[DeviceId, ...]) -> tuple[User, ...]:
    own = (User.fresh(device, of_device(device)) for device in devices)
    return (User.fresh(OPERATOR), User.fresh(HARNESS), *own)


def _started(part: T | None) -> T:
    """A part that `start` makes. Raises: Unavailable before that."""
    if part is None:
        raise Unavailable("the target was not started")
    return part


async def _connected(bus: NatsBus, clock: Clock) -> None:
    established = asyncio.Event()
    bus.on_session(established.set)
    bus.start()
    try:
        async with clock.timeout(CONNECT):
            await established.wait()
    except TimeoutError:
        raise Unavailable(f"no connection to nats-server within {CONNECT}") from None


async def _together(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Do all of them at the same time. When one fails, none of the others is left running."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _ended(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def _ending(act: Callable[[], None]) -> Ending:
    async def end() -> None:
        act()

    return end
