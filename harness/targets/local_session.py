"""One run on real parts: nats-server, operator and agents as processes, everything paced by one factor."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from fleet.adapters.clock import WallClock
from fleet.capabilities.clock import Clock
from fleet.capabilities.objects import Objects
from fleet.contracts.errors import InvalidValue, NotFound, Unavailable
from fleet.contracts.ids import DeviceId, ObjectName, Version
from fleet.contracts.objects import Device, Metadata
from fleet.contracts.permissions import of_device
from fleet.contracts.records import Artefact
from fleet.contracts.time import Duration
from fleet.releases.build import BuiltRelease
from fleet.releases.faulty import SERVED, served_file
from fleet.roots.logins import server_config
from fleet.scores.nats_server import NatsServerConfig
from fleet.secrets.registry import SYSTEM_ENTROPY
from harness.faults import Fault, FillDisk
from harness.targets import local_locks, local_mount
from harness.targets.installations import Installations
from harness.targets.local_artefacts import DamagedReleases
from harness.targets.local_bus import LocalBus
from harness.targets.local_bus_watch import HARNESS
from harness.targets.local_copy import copy_card
from harness.targets.local_device import LocalDevice
from harness.targets.local_faults import LocalFaults
from harness.targets.local_identities import LocalIdentities
from harness.targets.local_network import LocalNetwork
from harness.targets.local_operator import LocalOperator, operator_name
from harness.targets.local_parts import RunFolder, agent_config, configure, operator_config, set_up_device
from harness.targets.local_process import free_port
from harness.targets.local_secret_files import LocalSecretFiles, written
from harness.targets.nats_process import NatsProcess, User
from harness.targets.port import FleetPlan, IdentityDesk, Logins, SecretDesk
from sim.journal import CopyMade, Journal

T = TypeVar("T")
Ending = Callable[[], Awaitable[None]]

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
        self._real = WallClock()
        self._clock = WallClock(pace)
        self._began = self._clock.wall()
        self._journal = Journal()
        self._parts = AsyncExitStack()
        self._damaged = DamagedReleases(folder.releases / SERVED)
        self._parts.push_async_callback(asyncio.to_thread, self._damaged.close)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._installations = Installations(
            LocalSecretFiles(folder.secrets, self._real),
            self._journal,
            self._clock.monotonic,
            self._real,
            SYSTEM_ENTROPY,
        )
        devices = _device_users(plan)
        for user in devices:
            self._installations.search_for.add(f"the password of {user.name}", user.password.encode())
        self._nats = NatsProcess(folder.nats, devices, self._real, free_port())
        self._identities = self._with_identities() if plan.logins is Logins.TOKEN else None
        self._devices = {device: self._device(device) for device in plan.devices}
        self._up: list[LocalDevice] = []
        self._copies: list[LocalDevice] = []
        self._operators: list[LocalOperator] = []
        self._bus = LocalBus(self._nats, self._journal, self._clock.monotonic, self._real)
        self._network = LocalNetwork(self._clock, self._bus.door, self._serving, self._owner)
        self._door = 0
        self._mounts: list[Path] = []
        built = {version: made.release for version, made in releases.items()}
        self._faults = LocalFaults(
            self._clock,
            self._bus,
            self._network,
            self._devices,
            self._operator,
            built,
            self._real,
            pace,
            self._identities,
            self._installations,
            self._start_copy,
        )

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
        return self._bus.objects

    @property
    def identities(self) -> IdentityDesk:
        """See `Session.identities`."""
        if self._identities is None:
            raise InvalidValue("the devices of this run log in by passwords")
        return self._identities

    @property
    def secrets(self) -> SecretDesk:
        """See `Session.secrets`."""
        return _Desk(self._installations, self._folder.path)

    def artefacts(self, version: Version) -> tuple[Artefact, ...]:
        """See `Session.artefacts`. Raises: NotFound."""
        try:
            built = self._releases[version]
        except KeyError:
            raise NotFound(f"release {version} was not planned") from None
        damaged = served_file(self._folder.releases, built.release).exists()
        source = self._damaged.url if damaged else f"http://127.0.0.1:{self._door}"
        url = f"{source}/releases/{built.release.sha256}"
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
        for replica in range(self._plan.operators):
            await self._start_operator(replica)
        objects = self.objects
        for device, labels in zip(self._plan.devices, self._plan.labels, strict=True):
            await objects.create(Device(metadata=Metadata(name=ObjectName(device), labels=labels)))
        self._in_background(self._look())
        self._parts.callback(self._take_disks_away)
        self._parts.push_async_callback(self._stop_devices)
        self._parts.push_async_callback(self._faults.stop)
        await _together(self._start_device(device) for device in self._devices.values())

    async def inject(self, fault: Fault) -> Ending | None:
        """See `Session.inject`."""
        return await self._faults.inject(fault)

    async def settle(self) -> None:
        """See `Session.settle`."""
        self._look_once(disks=True)
        await self._bus.settle()

    # --- the parts ---------------------------------------------------------------------------------------

    async def _start_bus(self) -> None:
        self._parts.push_async_callback(self._bus.stop)
        await self._installations.install(self._plan.installs)
        config = await server_config(self._installations.store, "", "127.0.0.1", -1)
        self._nats.let_in(_static_users(self._plan, config))
        if self._identities is not None:
            self._identities.prepare(config)
        await self._bus.start()
        if self._identities is not None:
            self._parts.push_async_callback(self._identities.stop)
            await self._identities.start()
        self._parts.push_async_callback(self._network.stop)
        self._door = await self._network.start()

    async def _start_operator(self, replica: int) -> None:
        name, port = operator_name(replica), free_port()
        bus = _at(await self._network.connect(name))
        login = self._nats.login(name)
        config = operator_config(self._folder, name, bus, login, port, self._door, self._pace, self._began)
        file = self._folder.operator_config(name)
        file.write_text(config.model_dump_json(), "utf-8")
        program = (sys.executable, "-m", "fleet", "operator", "run", "--config", str(file))
        environment = {"PYTHONPATH": str(_PROJECT), "PATH": os.defpath, "HOME": str(self._folder.path)}
        log = self._folder.operator_log(name)
        operator = LocalOperator(replica, port, program, log, environment, self._journal, self._clock, self._real)
        self._operators.append(operator)
        operator.start()
        self._in_background(operator.keep())

    async def _start_device(self, device: LocalDevice) -> None:
        login = self._nats.login(device.device) if self._identities is None else None
        bus = _at(await self._network.connect(device.device))
        config = agent_config(device.device, bus, self._pace, self._plan.logins)
        if FillDisk in self._plan.faults:
            local_mount.mount(device.root)
            self._mounts.append(device.root)
        await set_up_device(device.root, config, login, self._releases[self._plan.installed])
        if self._identities is not None:
            await self._identities.enroll(device.device)
        await device.start()
        self._up.append(device)

    async def _start_copy(self, original: LocalDevice) -> LocalDevice:
        """A second machine with the card of a device and a line of its own; only its configuration names that one."""
        number = len(self._copies) + 1
        name = DeviceId(f"{original.device}-copy" if number == 1 else f"{original.device}-copy-{number}")
        copy = self._device(name)
        self._copies.append(copy)
        await asyncio.to_thread(copy_card, original.root, copy.root)
        bus = _at(await self._network.connect(name))
        configure(copy.root, agent_config(original.device, bus, self._pace, self._plan.logins))
        self._journal.record(CopyMade(self._clock.monotonic(), original.device, name))
        self._up.append(copy)
        await copy.start()
        return copy

    def _take_disks_away(self) -> None:
        for path in self._mounts:
            logs = {log.name: log.read_bytes() for log in (path / "var/log").glob("*.log")}
            local_mount.unmount(path)
            (path / "var/log").mkdir(parents=True)
            for name, data in logs.items():
                (path / "var/log" / name).write_bytes(data)

    async def _stop_devices(self) -> None:
        """Every one of them, also when another does not stop as it should."""
        ends = await asyncio.gather(
            *(device.stop() for device in (*self._devices.values(), *self._copies)), return_exceptions=True
        )
        for end in ends:
            if end is not None:
                raise end

    def _with_identities(self) -> LocalIdentities:
        roots = {device: self._folder.device(device) for device in self._plan.devices}
        return LocalIdentities(self._folder.path, self._nats, roots, self._folder.secrets, self._real)

    def _device(self, device: DeviceId) -> LocalDevice:
        root = self._folder.device(device)
        return LocalDevice(device, root, self._pace, self._journal, self._clock, self._real, {})

    def _operator(self, replica: int) -> LocalOperator:
        """Raises: Unavailable before `start`."""
        return _started(self._operators[replica] if replica < len(self._operators) else None)

    def _serving(self) -> int:
        """Where releases are served: by the first replica that can. Raises: ConnectionRefusedError when none can."""
        for operator in self._operators:
            if operator.serves:
                return operator.port
        raise ConnectionRefusedError

    def _owner(self, holds: Callable[[int], bool]) -> DeviceId | None:
        for device in self._up:
            if any(holds(pid) for pid in device.pids):
                return device.device
        return None

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
        if disks:
            self._installations.look()

    def _in_background(self, work: Awaitable[None]) -> None:
        """Run it until the session ends. If it fails, so has the target."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._background_ended)
        self._parts.push_async_callback(_ended, task)

    def _background_ended(self, task: asyncio.Future[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)


def _device_users(plan: FleetPlan) -> tuple[User, ...]:
    """Devices are given passwords of their own, which are no secrets of the installation."""
    with_password = plan.devices if plan.logins is Logins.PASSWORD else ()
    return tuple(User.fresh(device, of_device(device)) for device in with_password)


def _static_users(plan: FleetPlan, config: NatsServerConfig) -> tuple[User, ...]:
    """The operators, and the harness in the place of whoever looks after the server: with the passwords of these."""
    passwords = {user.name: user.password for user in config.users}
    operators = (User(operator_name(replica), passwords["operator"]) for replica in range(plan.operators))
    return (*operators, User(HARNESS, passwords["admin"]))


@dataclass(frozen=True, slots=True)
class _Desk:
    """See `SecretDesk`."""

    installations: Installations
    folder: Path

    async def install(self, at_once: int) -> None:
        await self.installations.install(at_once)

    async def rotate(self, secret: ObjectName) -> None:
        await self.installations.rotate(secret)

    async def search(self) -> None:
        await self.installations.search()
        for place, content in written(self.folder):
            self.installations.shown(content, place)

    def shown_in(self, text: str) -> tuple[str, ...]:
        return self.installations.shown_in(text)


def _started(part: T | None) -> T:
    """A part that `start` makes. Raises: Unavailable before that."""
    if part is None:
        raise Unavailable("the target was not started")
    return part


def _at(port: int) -> str:
    return f"nats://127.0.0.1:{port}"


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
