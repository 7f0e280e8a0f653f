"""One virtual Pi with the production agent on it: boot guard, release, ports, and what can be observed of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final, assert_never

from agent import launcher, paths, selftest, statefile
from agent.ports import AgentBoot, AgentConfig, AgentPorts
from fleet.capabilities.containers import ContainerFact
from fleet.capabilities.host import Exited
from fleet.contracts.errors import FleetError, InvalidValue, NotFound
from fleet.contracts.ids import DeploymentName, DeviceId, Release, Sha256, Slot, Version
from fleet.contracts.records import ReleaseManifest
from fleet.contracts.time import Duration
from fleet.releases.defects import selftest as self_tests
from fleet.releases.defects.service import serve
from harness.faults import AgentFile, Damage
from harness.releases import Defect
from harness.targets import sim_releases
from harness.targets.device_files import damaged, places
from harness.targets.installations import Installations
from harness.targets.sim_files import VirtualFiles
from harness.targets.sim_identities import VirtualIdentities
from harness.targets.sim_taps import PowerProbe, Probe, Tap, tap_agent, tap_image
from sim.artefacts import ArtefactServer, SimArtefacts
from sim.clock import SimClock
from sim.containers import Engine, Registry, SimContainers
from sim.disk import DiskImage, PowerLost, SimDisk, Trouble, gone
from sim.host import Machine, SimHostLock, SimPrograms, SimServices
from sim.journal import (
    AgentEnded,
    AgentStarted,
    ContainerCrashed,
    ContainerEnded,
    ContainerStarted,
    CopyMade,
    CurrentRelease,
    FileDamaged,
    Journal,
    LockLeft,
    LockTaken,
    PowerCut,
    PowerRestored,
    QuarantineMarks,
    ReleasesOnDisk,
    ReleasesUnsettled,
)
from sim.nats import NatsServer, SimBus
from sim.network import Link
from sim.process import Process
from sim.random import SimChance
from sim.timekeeping import Timekeeper
from sim.world import World

UPLINK: Final = Link(latency=Duration.millis(20), jitter=Duration.millis(30), bandwidth=2_500_000)
"""A device's line: 20 Mbit/s each way, 20 to 50 ms to the cluster."""
_WATCHED = (paths.RELEASES, paths.CURRENT.parent)
_MANIFEST = ".manifest.json"
SHA256 = re.compile(r"[0-9a-f]{64}")
_READS = 8
"""About as many things the boot guard reads before it decides."""
_SELF_TEST_TAKES = (Duration.seconds(2), Duration.seconds(6))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all devices of a world share."""

    world: World
    nats: NatsServer
    releases: ArtefactServer
    registry: Registry
    journal: Journal
    installations: Installations
    """Where the programs of the control plane have their secrets from."""
    crashed: Callable[[BaseException], None]
    """Told of the exception that a program ended by."""
    tap: Tap | None = None
    """Asked before each effect that a program has on its world."""
    identities: VirtualIdentities | None = None
    """Where devices log in by tokens."""

    def probe(self, who: str, label: str, process: Process) -> Probe | None:
        """What asks the tap for a process; None without a tap."""
        if self.tap is None:
            return None
        return Probe(self.tap, who, label, process, self.world.kernel, self.journal)


@dataclass(frozen=True, slots=True)
class _Itself:
    """See `fleet.releases.defects.service.Itself`. The memory of virtual machines is not modelled."""

    process: Process

    def grow(self) -> None:
        self.process.check()

    def kill(self) -> None:
        self.process.kill()


class VirtualDevice:
    """A machine on the virtual network, made with power off.

    Args:
        device: whom it is on the bus.
        machine: what it is called on the network and in the journal; like the device if not said.
        disk: an empty one if not given.
    """

    def __init__(
        self,
        around: Surroundings,
        device: DeviceId,
        machine: DeviceId | None = None,
        disk: DiskImage | None = None,
    ) -> None:
        self.device = device
        self.name = machine or device
        self._around = around
        self._now = around.world.now
        self._journal = around.journal
        self._current: CurrentRelease | None = None
        self._on_disk: tuple[Release, ...] | None = None
        self._marks: tuple[str, ...] = ()
        self._running: list[Slot] = []
        world = around.world
        clock = SimClock(world.loop)
        self.machine = Machine(
            world.loop, world.streams, self.name, clock, self._unit_main, self._run_program, disk=disk
        )
        self.timekeeper = Timekeeper(world.kernel, world.streams, self.name, clock, self._reaches_the_network)
        self.troubles: list[Trouble] = []
        """What is wrong with the disk right now. Call `troubles_changed` after changing it."""
        self.engine = Engine(self.machine, around.registry)
        self._chance = SimChance(around.world.streams.stream(f"agent/{self.name}"))
        self._observe()

    def copied(self, name: DeviceId) -> VirtualDevice:
        """Another machine, power off, with a copy of this one's card as it is right now; whatever is on it is the same.

        It has a line of its own, and is not under the tap. Raises: InvalidValue when there is a machine of that name.
        """
        self._around.world.network.add_node(name, UPLINK)
        other = VirtualDevice(replace(self._around, tap=None), self.device, name, self.disk.durable_copy())
        other.machine.machine_id = self.machine.machine_id
        self._journal.record(CopyMade(self._now(), self.device, name))
        other.watch_disk()
        return other

    @property
    def disk(self) -> DiskImage:
        """The machine's disk."""
        return self.machine.disk

    def watch_disk(self) -> None:
        """From now on the disk is that of a device that was set up: record what it holds, and every change of that."""
        self.disk.on_names_changed(_WATCHED, self._inspect)
        self.disk.on_names_changed((paths.QUARANTINE,), self._inspect_marks)
        self._inspect()
        if self._around.tap is not None:
            PowerProbe(self._around.tap, self.machine, self._around.world, self._journal).attach()

    def troubles_changed(self) -> None:
        """Make one trouble of all that is wrong with the disk."""
        self.disk.trouble = (
            None
            if not self.troubles
            else Trouble(
                per_operation=max(trouble.per_operation for trouble in self.troubles),
                per_byte=max(trouble.per_byte for trouble in self.troubles),
                unreadable=tuple(path for trouble in self.troubles for path in trouble.unreadable),
            )
        )

    def damage(self, file: AgentFile, how: Damage, release: Release | None) -> None:
        """Damage files of the agent. Raises: NotFound when none is there, Refused for the current release's."""
        current = None if self._current is None else self._current.release
        there = [path for path in places(file, release, current) if self.disk.exists(path)]
        if not there:
            raise NotFound(f"{self.name} has no {file.value} to damage")
        for path in there:
            self._journal.record(FileDamaged(self._now(), self.name, str(path)))
            self.disk.damage(path, damaged(self.disk.read(path), how))

    def crash_container(self, deployment: DeploymentName, container: DeploymentName) -> None:
        """End a container. Raises: NotFound when it does not run."""
        if not self.engine.find((deployment, container)).running:
            raise NotFound(f"container {deployment}/{container} does not run on {self.name}")
        self._journal.record(ContainerCrashed(self._now(), self.name, deployment, container))
        self.engine.end((deployment, container))

    def _reaches_the_network(self) -> bool:
        return not self._around.world.network.is_cut(self.machine.node)

    def _inspect(self) -> None:
        """Record where the current link leads and which releases are whole, where that has changed."""
        on_disk = self._releases_on_disk()
        current = self._current_release(on_disk)
        if self._current is None or (current.release, current.broken) != (self._current.release, self._current.broken):
            self._current = current
            self._journal.record(current)
        if on_disk != self._on_disk:
            self._on_disk = on_disk
            self._journal.record(ReleasesOnDisk(self._now(), self.name, on_disk))

    def _inspect_marks(self) -> None:
        """Record which releases are condemned on the disk, where that has changed."""
        marks = tuple(name for name in self.disk.names(paths.QUARANTINE) if SHA256.fullmatch(name))
        if marks != self._marks:
            self._marks = marks
            self._journal.record(QuarantineMarks(self._now(), self.name, marks))

    # --- what runs on it ---------------------------------------------------------------------------------

    async def _unit_main(self, machine: Machine, slot: Slot, process: Process) -> int:
        choice = await self._choose(slot, machine, process)
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

    async def _choose(self, slot: Slot, machine: Machine, process: Process) -> launcher.Choice:
        """What the boot guard decides. It acts in one instant; the time that a slow card takes for it comes after."""
        before = self.disk.operations
        files = VirtualFiles(tap_image(self.disk, self._around.probe(self.name, f"boot guard {slot.value}: ", process)))
        try:
            choice = launcher.choose(files, slot.value, machine.boot_id)
        except PowerLost:
            return await gone()
        if not process.alive:
            return await gone()
        if self.disk.trouble is not None:
            await machine.clock.sleep(
                Duration(self.disk.trouble.per_operation * (self.disk.operations - before + _READS))
            )
        return choice

    async def _run_release(self, path: PurePosixPath, release: Release, slot: Slot, process: Process) -> int:
        self._journal.record(AgentStarted(self._now(), self.name, slot, release))
        self._running.append(slot)
        plan = sim_releases.read(self.disk.read(path))
        running = self.disk.mark_running(path)
        process.on_death(running)
        boot = AgentBoot(release=release, slot=slot)
        ports, config = self._ports(slot, process), AgentConfig(self.device)
        return await serve(plan.misbehaviour, _Itself(process), boot, ports, config, process.stop)

    def _ports(self, slot: Slot, process: Process) -> AgentPorts:
        around, machine = self._around, self.machine
        ports = AgentPorts(
            clock=machine.clock,
            chance=self._chance,
            bus=self._bus(process),
            disk=SimDisk(self.disk, process),
            services=SimServices(machine, process),
            programs=SimPrograms(machine, process),
            lock=SimHostLock(machine, slot, process),
            containers=SimContainers(self.engine, process),
            artefacts=SimArtefacts(around.releases, machine.node, process),
            facts=machine.facts,
        )
        probe = around.probe(self.name, f"{slot.value}: ", process)
        return ports if probe is None else tap_agent(ports, probe)

    def _bus(self, process: Process) -> SimBus:
        nats, node, identities = self._around.nats, self.machine.node, self._around.identities
        if identities is None:
            return SimBus(nats, self.device, node, process, self._chance)
        login = identities.login(node, self.disk, self.machine.clock, process)
        return SimBus(nats, self.device, node, process, self._chance, read_token=login, turned_away=login.turned_away)

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
                return Exited(1, self_tests.COMPLAINT.encode())
            case Defect.SELF_TEST_HANGS:
                await asyncio.Event().wait()
            case Defect.WRONG_ARCHITECTURE:
                return Exited(1, f"release {plan.version} is built for another machine than this one".encode())
            case _:
                pass
        release = Release(version=plan.version, sha256=self.disk.sha256(program))
        return Exited(0, selftest.report(self_tests.named(plan.defect, release)))

    # --- what is observed of it --------------------------------------------------------------------------

    def _observe(self) -> None:
        hooks = self.machine.hooks
        hooks.power = self._power
        hooks.unit_ended = self._unit_ended
        hooks.lock = self._lock
        self.engine.hooks.started = self._container_started
        self.engine.hooks.ended = self._container_ended

    def _power(self, on: bool) -> None:
        if on:
            self.timekeeper.power_on()
        else:
            self.timekeeper.power_lost()
        self._journal.record((PowerRestored if on else PowerCut)(self._now(), self.name))
        unsettled = () if on else tuple(release for release in self._on_disk or () if not self._is_durable(release))
        if unsettled:
            self._journal.record(ReleasesUnsettled(self._now(), self.name, unsettled))

    def _is_durable(self, release: Release) -> bool:
        places = (paths.release(release.version), paths.manifest(release.version))
        return all(self.disk.is_durable(place) for place in places)

    def _unit_ended(self, slot: Slot, code: int) -> None:
        if slot in self._running:
            self._running.remove(slot)
            self._journal.record(AgentEnded(self._now(), self.name, slot, code))
        process = self.machine.process(slot)
        if process is not None and process.error is not None:
            self._around.crashed(process.error)

    def _lock(self, slot: Slot, taken: bool) -> None:
        self._journal.record((LockTaken if taken else LockLeft)(self._now(), self.name, slot))

    def _container_started(self, fact: ContainerFact) -> None:
        self._journal.record(ContainerStarted(self._now(), self.name, fact.deployment, fact.name, fact.fingerprint))

    def _container_ended(self, fact: ContainerFact) -> None:
        self._journal.record(ContainerEnded(self._now(), self.name, fact.deployment, fact.name))

    def _current_release(self, on_disk: tuple[Release, ...]) -> CurrentRelease:
        now = self._now()
        try:
            path = self.disk.resolve(paths.CURRENT)
            for release in on_disk:
                if paths.release(release.version) == path:
                    lacking = self._not_as_packed(release)
                    whole = release if not lacking else None
                    return CurrentRelease(now, self.name, whole, f"{lacking} is not as packed" if lacking else "")
        except FleetError as error:
            return CurrentRelease(now, self.name, None, str(error))
        return CurrentRelease(now, self.name, None, f"{path} is not a complete release")

    def _not_as_packed(self, release: Release) -> str:
        """The first file unpacked of a release that is missing or is not what its archive holds; "" when all are."""
        manifest = _manifest_in(self.disk.read(paths.manifest(release.version)))
        for name, data in sim_releases.unpacked(self.disk.read(paths.release(release.version))).items():
            path = paths.UNPACKED / manifest.unpacked / name
            if not self.disk.exists(path) or self.disk.read(path) != data:
                return str(path)
        return ""

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
            manifest = _manifest_in(self.disk.read(paths.RELEASES / name))
            found = self.disk.sha256(paths.release(manifest.version))
        except (FleetError, ValueError):
            return None
        return Release(version=manifest.version, sha256=found) if found == manifest.sha256 else None


@lru_cache(maxsize=64)
def _manifest_in(content: bytes) -> ReleaseManifest:
    """Kept, because all devices have the same few, and each is looked at whenever a name on its disk changes."""
    return statefile.decode(ReleaseManifest, content)
