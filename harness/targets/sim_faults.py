"""Faults in the virtual world: each is carried out on the models, at the instant it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import PurePosixPath
from typing import Final, assert_never

from fleet.capabilities.bus import Stored
from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import DeviceId, Release, Revision, Version
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Duration
from harness.faults import (
    BrownOut,
    CloneDevice,
    CorruptSecret,
    CrashContainer,
    CutPower,
    CutPowerAtOperation,
    DamageFile,
    DiskReadErrors,
    DriftClock,
    Fault,
    FillDisk,
    FlapLink,
    FreezeOperator,
    IsolateOperator,
    KillAgent,
    KillOperator,
    LoseBusTail,
    Partition,
    RandomPowerCuts,
    RestartBus,
    RotateSigningKeys,
    SetClock,
    SilenceEngine,
    SlowCpu,
    SlowDisk,
    SlowLink,
    StopCallout,
    StopOperator,
    StopProvider,
    WriteBadEntries,
    WriteRaw,
)
from harness.targets.bad_writing import write_all
from harness.targets.sim_device import Surroundings, VirtualDevice
from harness.targets.sim_identities import VirtualIdentities
from harness.targets.sim_observer import HARNESS
from harness.targets.sim_operator import VirtualOperator
from harness.targets.sim_raw import SimRawWriter
from harness.targets.sim_releases import WEIGHT
from sim.disk import Trouble
from sim.host import Machine
from sim.journal import KvDeleted, KvStored
from sim.kernel import Call, Kernel
from sim.network import Cut

Ending = Callable[[], Awaitable[None]]
Mend = Callable[[], None]

HASHING: Final = 20 * WEIGHT
"""Nanoseconds that a healthy Pi takes to read and hash a byte of a virtual release: 50 MB of a real one a second."""

CANNOT: Final[dict[type[Fault], str]] = {
    FreezeOperator: "a virtual process runs or is dead: it cannot be stopped and continued",
}
"""The faults that the virtual world cannot do, each with the reason."""


class SimFaults:
    """Carries faults out. See `Session.inject`."""

    def __init__(
        self,
        around: Surroundings,
        operators: tuple[VirtualOperator, ...],
        devices: dict[DeviceId, VirtualDevice],
        releases: dict[Version, Release],
    ) -> None:
        self._around = around
        self._world = around.world
        self._nats = around.nats
        self._operators = operators
        self._devices = devices
        self._releases = releases
        self._random_cuts = 0
        self._copies = 0

    async def inject(self, fault: Fault) -> Ending | None:
        """See `Session.inject`."""
        match fault:
            case WriteRaw(bucket, key, value):
                self._nats.store_raw(bucket, key, value)
                return None
            case WriteBadEntries(device):
                return await write_all(SimRawWriter(self._nats), device)
            case KillOperator(_, replica):
                operator = self._operators[replica]
                operator.kill()
                return _ending(operator.start)
            case StopOperator(_, replica):
                operator = self._operators[replica]
                operator.stop()
                return _ending(operator.start)
            case IsolateOperator(replica):
                node = self._operators[replica].name
                self._world.network.partition(node)
                return _ending(partial(self._world.network.heal, node))
            case KillAgent(device, slot):
                process = self._device(device).machine.process(slot)
                if process is None:
                    raise NotFound(f"no agent runs in slot {slot.value} of {device}")
                process.kill()
                return None
            case RestartBus():
                self._stop_bus()
                return _ending(self._nats.start)
            case LoseBusTail():
                return self._lose_tail(fault)
            case CutPower() | CutPowerAtOperation() | RandomPowerCuts() | BrownOut():
                return await self._power(fault)
            case Partition() | FlapLink() | SlowLink():
                return self._link(fault)
            case StopProvider():
                return _ending(self._identities().stop_provider())
            case StopCallout():
                return _ending(self._identities().stop_callouts())
            case RotateSigningKeys():
                self._identities().rotate_signing_keys()
                return None
            case CloneDevice(device):
                return self._clone(device)
            case CorruptSecret():
                return await self._around.installations.damage(fault)
            case FreezeOperator():
                raise InvalidValue(f"this target cannot do {fault}")
            case _:
                return self._machine(fault)

    def _identities(self) -> VirtualIdentities:
        identities = self._around.identities
        if identities is None:
            raise NotFound("the devices of this run log in by passwords")
        return identities

    def _clone(self, device: DeviceId) -> Ending:
        self._copies += 1
        name = DeviceId(f"{device}-copy" if self._copies == 1 else f"{device}-copy-{self._copies}")
        machine = self._device(device).copied(name).machine
        machine.boot()
        return _ending(machine.cut_power)

    # --- power -------------------------------------------------------------------------------------------

    async def _power(self, fault: CutPower | CutPowerAtOperation | RandomPowerCuts | BrownOut) -> Ending:
        match fault:
            case CutPower(devices):
                machines = [machine for machine in self._machines(devices) if machine.powered]
                if not machines:
                    raise NotFound(f"{', '.join(devices)}: no power that could be cut")
                for machine in machines:
                    machine.cut_power()
                return _ending(*(machine.boot for machine in machines))
            case CutPowerAtOperation(device, operation):
                machine = self._device(device).machine
                await _at_operation(machine, operation)
                return _ending(machine.boot)
            case RandomPowerCuts(devices, count, over, down):
                self._random_cuts += 1
                stream = self._world.streams.stream(f"faults/random-power-cuts/{self._random_cuts}")
                plan = _Script(self._world.kernel)
                for machine in self._machines(devices):
                    drawn = sorted(stream.randrange(over - down * count + 1) for _ in range(count))
                    _cycle(plan, machine, [moment + down * index for index, moment in enumerate(drawn)], down)
                return plan.ending()
            case BrownOut(devices, cycles, up, down):
                plan = _Script(self._world.kernel)
                for machine in self._machines(devices):
                    _cycle(plan, machine, [(up + down) * index for index in range(cycles)], down)
                return plan.ending()

    # --- links -------------------------------------------------------------------------------------------

    def _link(self, fault: Partition | FlapLink | SlowLink) -> Ending:
        network = self._world.network
        match fault:
            case Partition(devices, direction):
                for node in devices:
                    network.partition(node, Cut(direction.value))
                return _ending(*(partial(network.heal, node, Cut(direction.value)) for node in devices))
            case FlapLink(devices, up, down, length):
                plan = _Script(self._world.kernel)
                for node in devices:
                    for begin in range(0, length, up + down):
                        plan.between(begin, down, partial(network.partition, node), partial(network.heal, node))
                return plan.ending()
            case SlowLink(devices, bandwidth):
                for node in devices:
                    network.throttle(node, bandwidth)
                return _ending(*(partial(network.unthrottle, node, bandwidth) for node in devices))

    # --- the bus -----------------------------------------------------------------------------------------

    def _stop_bus(self) -> None:
        if not self._nats.up:
            raise NotFound("the bus is down already")
        self._nats.stop()

    def _lose_tail(self, fault: LoseBusTail) -> Ending:
        """What a bucket holds after its loss is told as written by the harness, so that judges know of it."""
        self._stop_bus()
        journal, now = self._around.journal, self._world.now()
        for bucket in fault.buckets:
            store = self._nats.store(bucket)
            for key in self._nats.lose_tail(bucket, min(fault.writes, store.remembered)):
                entry = store.newest(key)
                if bucket is Bucket.HEARTBEAT:
                    continue  # A heartbeat is replaced by the next one, and nobody is judged by an old one.
                if isinstance(entry, Stored):
                    journal.record(KvStored(now, bucket, key, entry.revision, HARNESS, entry.value))
                else:
                    revision = Revision(store.sequence) if entry is None else entry.revision
                    journal.record(KvDeleted(now, bucket, key, revision, HARNESS))
        return _ending(self._nats.start)

    # --- the machine -------------------------------------------------------------------------------------

    def _machine(
        self,
        fault: FillDisk
        | DiskReadErrors
        | SlowDisk
        | SlowCpu
        | SetClock
        | DriftClock
        | DamageFile
        | SilenceEngine
        | CrashContainer,
    ) -> Ending | None:
        hurt: Callable[[VirtualDevice], Mend]
        match fault:
            case DamageFile(device, file, how, version):
                self._device(device).damage(file, how, None if version is None else self._releases[version])
                return None
            case CrashContainer(device, deployment, container):
                self._device(device).crash_container(deployment, container)
                return None
            case FillDisk(leave=leave):
                hurt = partial(_fill, leave=leave)
            case DiskReadErrors(below=below):
                hurt = partial(_in_trouble, trouble=Trouble(unreadable=(below,)))
            case SlowDisk(per_operation=pause):
                hurt = partial(_in_trouble, trouble=Trouble(per_operation=pause))
            case SlowCpu(factor=factor):
                hurt = partial(_slow_down, factor=factor)
            case SetClock(by=by):
                hurt = partial(_set_clock, by=by)
            case DriftClock(parts_per_million=parts):
                hurt = partial(_drift, parts=parts)
            case SilenceEngine():
                hurt = _silence
            case _:
                assert_never(fault)
        mends = [hurt(self._device(device)) for device in fault.devices]
        return _ending(*mends)

    def _machines(self, devices: tuple[DeviceId, ...]) -> list[Machine]:
        return [self._device(device).machine for device in devices]

    def _device(self, device: DeviceId) -> VirtualDevice:
        try:
            return self._devices[device]
        except KeyError:
            raise NotFound(f"there is no device {device}") from None


class _Script:
    """Changes at moments of the future that come in pairs: what is open when the script is ended is closed then."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._calls: list[Call] = []
        self._open: list[Callable[[], None]] = []

    def between(self, begin: int, length: int, open_: Callable[[], None], close: Callable[[], None]) -> None:
        """Open in `begin` nanoseconds from now, close `length` later."""

        def opened() -> None:
            open_()
            self._open.append(closed)

        def closed() -> None:
            if closed in self._open:
                self._open.remove(closed)
                close()

        if begin:
            self._calls.append(self._kernel.after(begin, opened))
        else:
            opened()
        self._calls.append(self._kernel.after(begin + length, closed))

    def ending(self) -> Ending:
        """What ends it: nothing more happens, and what is open is closed."""

        def end() -> None:
            for call in self._calls:
                call.cancel()
            for close in tuple(self._open):
                close()

        return _ending(end)


def _cycle(plan: _Script, machine: Machine, moments: list[int], down: int) -> None:
    for moment in moments:
        plan.between(moment, down, machine.cut_power, machine.boot)


async def _at_operation(machine: Machine, number: int) -> None:
    """Return when the power was cut at the disk's `number`-th change from now on."""
    happened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    before, last = machine.disk.before_change, machine.disk.operations + number

    def change(operation: str, path: PurePosixPath) -> bool:
        if before is not None and not before(operation, path):
            return False
        if happened.done() or machine.disk.operations < last:
            return True
        happened.set_result(None)
        machine.cut_power()
        return False

    machine.disk.before_change = change
    try:
        await happened
    finally:
        happened.cancel()
        if machine.disk.before_change is change:
            machine.disk.before_change = before


def _fill(device: VirtualDevice, leave: int) -> Mend:
    size = max(0, device.disk.free() - leave)
    device.disk.occupy(size)
    return partial(device.disk.vacate, size)


def _in_trouble(device: VirtualDevice, trouble: Trouble) -> Mend:
    device.troubles.append(trouble)
    device.troubles_changed()

    def mend() -> None:
        device.troubles.remove(trouble)
        device.troubles_changed()

    return mend


def _slow_down(device: VirtualDevice, factor: int) -> Mend:
    mend = _in_trouble(device, Trouble(per_byte=factor * HASHING))
    device.machine.slowness *= factor

    def mended() -> None:
        device.machine.slowness //= factor
        mend()

    return mended


def _set_clock(device: VirtualDevice, by: Duration) -> Mend:
    device.timekeeper.hold()
    device.timekeeper.jump(by)
    return device.timekeeper.release


def _drift(device: VirtualDevice, parts: int) -> Mend:
    device.timekeeper.hold()
    device.timekeeper.drift(parts)

    def mend() -> None:
        device.timekeeper.drift(0)
        device.timekeeper.release()

    return mend


def _silence(device: VirtualDevice) -> Mend:
    device.engine.silenced += 1

    def mend() -> None:
        device.engine.silenced -= 1

    return mend


def _ending(*acts: Callable[[], None]) -> Ending:
    async def end() -> None:
        for act in acts:
            act()

    return end
