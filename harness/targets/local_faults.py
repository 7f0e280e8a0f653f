"""Faults on real parts: which of them one machine can do to itself, and how each is carried out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Final, assert_never

from fleet.adapters.clock import SystemChance
from fleet.capabilities.clock import Clock
from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import DeviceId, Release, Version
from fleet.contracts.time import ZERO, Duration
from harness.faults import (
    BrownOut,
    CloneDevice,
    CorruptSecret,
    CrashContainer,
    CutPower,
    CutPowerAtOperation,
    DamageFile,
    Direction,
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
from harness.targets.installations import Installations
from harness.targets.local_bus import LocalBus
from harness.targets.local_cpu import beyond, slow_down
from harness.targets.local_device import LocalDevice
from harness.targets.local_identities import LocalIdentities
from harness.targets.local_link import Line, Slowness
from harness.targets.local_mount import may_mount
from harness.targets.local_network import LocalNetwork
from harness.targets.local_operator import LocalOperator, operator_name

Ending = Callable[[], Awaitable[None]]

NO_IDENTITIES: Final = "the devices of this run log in by passwords"
CANNOT: Final[dict[type[Fault], str]] = {
    CutPowerAtOperation: "a real process cannot be stopped at its n-th change of the disk without tracing it",
    DiskReadErrors: "a folder on this machine's disk has no sector that fails: that needs a block device of its own",
    SlowDisk: "nothing stands between a process and this machine's disk that could make one operation slow",
}
"""The faults that this target cannot inject anywhere, each with the reason."""
_DRIFT_STEP: Final = Duration.seconds(1)


def cannot() -> dict[type[Fault], str]:
    """The faults that this target cannot inject on this machine, each with the reason."""
    if may_mount():
        return CANNOT
    return CANNOT | {FillDisk: "a disk that can be filled has to be mounted, and this process has no right to mount"}


class LocalFaults:
    """Carries faults out. See `Session.inject`.

    Args:
        clock: the run's.
        real: not paced.
        pace: that of `clock`.
        operator: asked at each fault, because a run has devices before it has an operator.
        identities: None when devices log in by passwords.
        copied: gives power to a second machine with a copy of a device's card.
    """

    def __init__(
        self,
        clock: Clock,
        bus: LocalBus,
        network: LocalNetwork,
        devices: Mapping[DeviceId, LocalDevice],
        operator: Callable[[int], LocalOperator],
        releases: Mapping[Version, Release],
        real: Clock,
        pace: float,
        identities: LocalIdentities | None,
        installations: Installations,
        copied: Callable[[LocalDevice], Awaitable[LocalDevice]],
    ) -> None:
        self._installations = installations
        self._pace = pace
        self._identities = identities
        self._copied = copied
        self._clock = clock
        self._bus = bus
        self._network = network
        self._devices = devices
        self._operator = operator
        self._releases = releases
        self._real = real
        self._working: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """The run is over: so are the faults that were still at work."""
        tasks = tuple(self._working)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def inject(self, fault: Fault) -> Ending | None:
        """See `Session.inject`."""
        match fault:
            case WriteRaw():
                await self._bus.write_raw(fault)
                return None
            case WriteBadEntries(device):
                return await write_all(self._bus, device)
            case KillOperator(_, replica):
                operator = self._operator(replica)
                await operator.kill()
                return _ending(operator.start)
            case StopOperator(_, replica):
                operator = self._operator(replica)
                await operator.stop()
                return _ending(operator.start)
            case IsolateOperator(replica):
                return _cut(self._network.lines((operator_name(replica),)), Direction.BOTH)
            case FreezeOperator(replica):
                operator = self._operator(replica)
                operator.freeze()
                return _ending(operator.thaw)
            case KillAgent(device, slot):
                await self._device(device).kill_agent(slot)
                return None
            case CrashContainer(device, deployment, container):
                await self._device(device).crash_container(deployment, container)
                return None
            case CloneDevice(device):
                copy = await self._copied(self._device(device))
                return copy.cut_power
            case CutPower(devices):
                return await self._cut_power(devices)
            case BrownOut(devices, cycles, up, down):
                return self._at_work([self._cycle(device, [ZERO] + [up] * (cycles - 1), down) for device in devices])
            case RandomPowerCuts(devices, count, over, down):
                return self._at_work([self._cycle(device, _moments(count, over), down) for device in devices])
            case Partition(devices, direction):
                return _cut(self._network.lines(devices), direction)
            case FlapLink(devices, up, down):
                return self._at_work([self._flap(self._network.lines(devices), up, down)], cut_short=True)
            case SlowLink(devices, bytes_per_second):
                return _slow_down(self._network.lines(devices), Slowness(bytes_per_second))
            case RestartBus():
                await self._bus.kill()
                return self._bus.restart
            case LoseBusTail(_, writes, buckets):
                await self._bus.lose_tail(buckets, writes)
                return self._bus.restart
            case FillDisk() | SlowCpu() | SetClock() | DriftClock() | DamageFile() | SilenceEngine():
                return await self._machine(fault)
            case CutPowerAtOperation() | DiskReadErrors() | SlowDisk():
                raise InvalidValue(f"this target cannot do {fault}")
            case StopProvider() | StopCallout() | RotateSigningKeys():
                return await self._identity(fault)
            case CorruptSecret():
                return await self._installations.damage(fault)
            case _:
                assert_never(fault)

    async def _identity(self, fault: StopProvider | StopCallout | RotateSigningKeys) -> Ending | None:
        identities = self._identities
        if identities is None:
            raise NotFound(NO_IDENTITIES)
        match fault:
            case StopProvider():
                await identities.stop_provider()
                return identities.start_provider
            case StopCallout():
                await identities.kill_callouts()
                return identities.start_callouts
            case RotateSigningKeys():
                await identities.rotate_signing_keys()
                return None
            case _:
                assert_never(fault)

    async def _machine(
        self, fault: FillDisk | SlowCpu | SetClock | DriftClock | DamageFile | SilenceEngine
    ) -> Ending | None:
        match fault:
            case DamageFile(device, version=version):
                self._device(device).damage(fault, None if version is None else self._releases[version])
                return None
            case _:
                machines = [self._device(device) for device in fault.devices]
        match fault:
            case FillDisk(leave=leave):
                return _on_each(machines, lambda each: each.fill_disk(leave), LocalDevice.empty_disk)
            case SetClock(by=by):
                back = Duration(-by)
                return _on_each(machines, lambda each: each.shift_clock(by), lambda each: each.shift_clock(back))
            case DriftClock(parts_per_million=parts):
                return self._at_work([self._drift(machine, parts) for machine in machines], cut_short=True)
            case SlowCpu(factor=factor):
                extra = beyond(factor, self._pace)
                slow = [slow_down(machine.processes, extra, self._real) for machine in machines]
                return self._at_work(slow, cut_short=True)
            case SilenceEngine():
                for machine in machines:
                    await machine.silence_engine()

                async def answer() -> None:
                    for machine in machines:
                        await machine.let_engine_answer()

                return answer
            case _:
                assert_never(fault)

    async def _drift(self, machine: LocalDevice, parts_per_million: int) -> None:
        """Move the time of day a little at a time; in the end it is put right."""
        began, moved = self._clock.monotonic(), ZERO
        try:
            while True:
                await self._clock.sleep(_DRIFT_STEP)
                due = Duration((self._clock.monotonic() - began) * parts_per_million // 1_000_000)
                machine.shift_clock(Duration(due - moved))
                moved = due
        finally:
            machine.shift_clock(Duration(-moved))

    async def _cut_power(self, devices: tuple[DeviceId, ...]) -> Ending:
        machines = [machine for machine in map(self._device, devices) if machine.powered]
        if not machines:
            raise NotFound(f"{', '.join(devices)}: no power that could be cut")
        for machine in machines:
            await machine.cut_power()

        async def restore() -> None:
            await asyncio.gather(*(machine.restore_power() for machine in machines))

        return restore

    async def _cycle(self, device: DeviceId, waits: list[Duration], down: Duration) -> None:
        """Cut the power after each wait, for `down` each time. What has no power already is left alone."""
        machine = self._device(device)
        for wait in waits:
            await self._clock.sleep(wait)
            if machine.powered:
                await machine.cut_power()
                try:
                    await self._clock.sleep(down)
                finally:
                    await machine.restore_power()

    async def _flap(self, lines: tuple[Line, ...], up: Duration, down: Duration) -> None:
        while True:
            heal = _cut(lines, Direction.BOTH)
            try:
                await self._clock.sleep(down)
            finally:
                await heal()
            await self._clock.sleep(up)

    def _at_work(self, works: list[Coroutine[None, None, None]], cut_short: bool = False) -> Ending:
        """Begin; the end waits until all is done, or cuts it short."""
        tasks = [asyncio.ensure_future(work) for work in works]
        self._working.update(tasks)

        async def end() -> None:
            for task in tasks:
                if cut_short:
                    task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                self._working.discard(task)
                if not task.cancelled():
                    task.result()

        return end

    def _device(self, device: DeviceId) -> LocalDevice:
        try:
            return self._devices[device]
        except KeyError:
            raise NotFound(f"there is no device {device}") from None


def _on_each(
    machines: list[LocalDevice], hurt: Callable[[LocalDevice], None], mend: Callable[[LocalDevice], None]
) -> Ending:
    for machine in machines:
        hurt(machine)

    def end() -> None:
        for machine in machines:
            mend(machine)

    return _ending(end)


def _cut(lines: tuple[Line, ...], direction: Direction) -> Ending:
    for line in lines:
        line.cut(direction)

    def heal() -> None:
        for line in lines:
            line.heal(direction)

    return _ending(heal)


def _slow_down(lines: tuple[Line, ...], slowness: Slowness) -> Ending:
    for line in lines:
        line.slow_down(slowness)

    def speed_up() -> None:
        for line in lines:
            line.speed_up(slowness)

    return _ending(speed_up)


def _moments(count: int, over: Duration) -> list[Duration]:
    """The waits between `count` moments drawn within `over`."""
    chance = SystemChance()
    drawn = sorted(chance.between(ZERO, over) for _ in range(count))
    return [after - before for before, after in zip([ZERO, *drawn], drawn, strict=False)]


def _ending(act: Callable[[], None]) -> Ending:
    async def end() -> None:
        act()

    return end
