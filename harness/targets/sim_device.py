"""One virtual Pi with the production agent on it: boot guard, release, ports, and what can be observed of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import assert_never

from agent import launcher, paths, selftest
from agent.loop import run_agent
from agent.ports import AgentBoot, AgentConfig, AgentPorts
from fleet.capabilities.containers import ContainerFact
from fleet.capabilities.host import Exited
from fleet.contracts.errors import FleetError, InvalidValue
from fleet.contracts.ids import DeviceId, Release, Sha256, Slot, Version
from fleet.contracts.records import ReleaseManifest
from fleet.contracts.time import Duration
from harness.releases import Defect
from harness.targets import sim_releases
from sim.artefacts import ArtefactServer, SimArtefacts
from sim.clock import SimClock
from sim.containers import Engine, Registry, SimContainers
from sim.disk import DiskImage, SimDisk
from sim.host import Machine, SimHostLock, SimPrograms, SimServices
from sim.journal import (
    AgentEnded,
    AgentStarted,
    ContainerEnded,
    ContainerStarted,
    CurrentRelease,
    Journal,
    LockLeft,
    LockTaken,
    PowerCut,
    PowerRestored,
    ReleasesOnDisk,
)
from sim.nats import NatsServer, SimBus
from sim.process import Process
from sim.random import SimChance
from sim.world import World

_WATCHED = (paths.RELEASES, paths.CURRENT.parent)
_MANIFEST = ".manifest.json"
_SELF_TEST_TAKES = (Duration.seconds(2), Duration.seconds(6))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all devices of a world share."""

    world: World
    nats: NatsServer
    releases: ArtefactServer
    registry: Registry
    journal: Journal
    crashed: Callable[[BaseException], None]
    """Told of the exception that a program ended by."""


class VirtualDevice:
    """A machine on the virtual network, made with power off and an empty disk."""

    def __init__(self, around: Surroundings, device: DeviceId) -> None:
        self.device = device
        self._around = around
        self._now = around.world.now
        self._journal = around.journal
        self._current: CurrentRelease | None = None
        self._on_disk: tuple[Release, ...] | None = None
        self._running: list[Slot] = []
        self.machine = Machine(
            around.world.loop,
            around.world.streams,
            device,
            SimClock(around.world.loop),
            self._unit_main,
            self._run_program,
        )
        self.engine = Engine(self.machine, around.registry)
        self._chance = SimChance(around.world.streams.stream(f"agent/{device}"))
        self._observe()

    @property
    def disk(self) -> DiskImage:
        """The machine's disk."""
        return self.machine.disk

    def watch_disk(self) -> None:
        """From now on the disk is that of a device that was set up: record what it holds, and every change of that."""
        self.disk.on_names_changed(_WATCHED, self._inspect)
        self._inspect()

    def _inspect(self) -> None:
        """Record where the current link leads and which releases are whole, where that has changed."""
        current = self._current_release()
        if self._current is None or (current.release, current.broken) != (self._current.release, self._current.broken):
            self._current = current
            self._journal.record(current)
        on_disk = self._releases_on_disk()
        if on_disk != self._on_disk:
            self._on_disk = on_disk
            self._journal.record(ReleasesOnDisk(self._now(), self.device, on_disk))

    # --- what runs on it ---------------------------------------------------------------------------------

    async def _unit_main(self, machine: Machine, slot: Slot, process: Process) -> int:
        choice = launcher.choose(_Files(self.disk), slot.value, machine.boot_id)
        match choice:
            case launcher.Leave():
                return 0
            case launcher.Nothing():
                return 1
            case launcher.Start():
                release = Release(version=Version(choice.version), sha256=Sha256(choice.sha256))
                return await self._run_release(PurePosixPath(choice.path), release, slot, process)
            case _:
                assert_never(choice)

    async def _run_release(self, path: PurePosixPath, release: Release, slot: Slot, process: Process) -> int:
        self._journal.record(AgentStarted(self._now(), self.device, slot, release))
        self._running.append(slot)
        plan = sim_releases.read(self.disk.read(path))
        running = self.disk.mark_running(path)
        process.on_death(running)
        match plan.defect:
            case Defect.CRASHES_AT_START:
                return 1
            case Defect.NEVER_HEARTBEATS:
                await process.stop.wait()
                return 0
            case Defect.NONE | Defect.SELF_TEST_FAILS | Defect.SELF_TEST_HANGS:
                boot = AgentBoot(release=release, slot=slot)
                return await run_agent(boot, self._ports(slot, process), AgentConfig(self.device), process.stop)
            case _:
                assert_never(plan.defect)

    def _ports(self, slot: Slot, process: Process) -> AgentPorts:
        around, machine = self._around, self.machine
        return AgentPorts(
            clock=machine.clock,
            chance=self._chance,
            bus=SimBus(around.nats, self.device, machine.node, process, self._chance),
            disk=SimDisk(self.disk, process),
            services=SimServices(machine, process),
            programs=SimPrograms(machine, process),
            lock=SimHostLock(machine, slot, process),
            containers=SimContainers(self.engine, process),
            artefacts=SimArtefacts(around.releases, machine.node, process),
            facts=machine.facts,
        )

    async def _run_program(
        self, machine: Machine, program: PurePosixPath, contents: bytes, arguments: tuple[str, ...]
    ) -> Exited:
        """Run a release to its end: the only programs a device runs so are releases that test themselves."""
        try:
            plan = sim_releases.read(contents)
        except InvalidValue as error:
            return Exited(1, str(error).encode())
        await machine.clock.sleep(machine.draw(*_SELF_TEST_TAKES))
        match plan.defect:
            case Defect.SELF_TEST_FAILS:
                return Exited(1, b"self-test: a planted defect\n")
            case Defect.SELF_TEST_HANGS:
                await asyncio.Event().wait()
            case _:
                pass
        release = Release(version=plan.version, sha256=self.disk.sha256(program))
        return Exited(0, selftest.report(release))

    # --- what is observed of it --------------------------------------------------------------------------

    def _observe(self) -> None:
        hooks = self.machine.hooks
        hooks.power = self._power
        hooks.unit_ended = self._unit_ended
        hooks.lock = self._lock
        self.engine.hooks.started = self._container_started
        self.engine.hooks.ended = self._container_ended

    def _power(self, on: bool) -> None:
        self._journal.record((PowerRestored if on else PowerCut)(self._now(), self.device))

    def _unit_ended(self, slot: Slot, code: int) -> None:
        if slot in self._running:
            self._running.remove(slot)
            self._journal.record(AgentEnded(self._now(), self.device, slot, code))
        process = self.machine.process(slot)
        if process is not None and process.error is not None:
            self._around.crashed(process.error)

    def _lock(self, slot: Slot, taken: bool) -> None:
        self._journal.record((LockTaken if taken else LockLeft)(self._now(), self.device, slot))

    def _container_started(self, fact: ContainerFact) -> None:
        self._journal.record(ContainerStarted(self._now(), self.device, fact.deployment, fact.name, fact.fingerprint))

    def _container_ended(self, fact: ContainerFact) -> None:
        self._journal.record(ContainerEnded(self._now(), self.device, fact.deployment, fact.name))

    def _current_release(self) -> CurrentRelease:
        now = self._now()
        try:
            path = self.disk.resolve(paths.CURRENT)
            for release in self._releases_on_disk():
                if paths.release(release.version) == path:
                    return CurrentRelease(now, self.device, release)
        except FleetError as error:
            return CurrentRelease(now, self.device, None, str(error))
        return CurrentRelease(now, self.device, None, f"{path} is not a complete release")

    def _releases_on_disk(self) -> tuple[Release, ...]:
        found = []
        for name in self.disk.names(paths.RELEASES):
            if name.endswith(_MANIFEST):
                release = self._checked(PurePosixPath(name))
                if release is not None:
                    found.append(release)
        return tuple(found)

    def _checked(self, name: PurePosixPath) -> Release | None:
        """The release a manifest stands for, if both are whole."""
        try:
            manifest = ReleaseManifest.model_validate_json(self.disk.read(paths.RELEASES / name))
            found = self.disk.sha256(paths.release(manifest.version))
        except (FleetError, ValueError):
            return None
        return Release(version=manifest.version, sha256=found) if found == manifest.sha256 else None


class _Files:
    """The boot guard's view of a virtual disk."""

    def __init__(self, disk: DiskImage) -> None:
        self._disk = disk

    def read(self, path: str) -> bytes | None:
        """See `launcher.Files.read`."""
        try:
            return self._disk.read(PurePosixPath(path))
        except FleetError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """See `launcher.Files.write`."""
        target = PurePosixPath(path)
        temporary = target.with_name(f"{target.name}.tmp-launcher")
        self._disk.make_folder(target.parent)
        self._disk.write(temporary, data)
        self._disk.sync(temporary)
        self._disk.rename(temporary, target)
        self._disk.sync_folder(target.parent)

    def link(self, path: str) -> str | None:
        """See `launcher.Files.link`."""
        try:
            return str(self._disk.read_link(PurePosixPath(path)))
        except FleetError:
            return None

    def swap(self, link: str, target: str) -> None:
        """See `launcher.Files.swap`."""
        path = PurePosixPath(link)
        temporary = path.with_name(f"{path.name}.swap-launcher")
        if self._disk.exists(temporary):
            self._disk.unlink(temporary)
        self._disk.symlink(PurePosixPath(target), temporary)
        self._disk.rename(temporary, path)
        self._disk.sync_folder(path.parent)

    def names(self, folder: str) -> list[str]:
        """See `launcher.Files.names`."""
        return list(self._disk.names(PurePosixPath(folder)))

    def sha256(self, path: str) -> str | None:
        """See `launcher.Files.sha256`."""
        try:
            return self._disk.sha256(PurePosixPath(path))
        except FleetError:
            return None
