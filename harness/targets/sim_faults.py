"""Faults in the virtual world: each is carried out on the models, at the instant it is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import DeviceId
from harness.faults import (
    BrownOut,
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
    SetClock,
    SilenceEngine,
    SlowCpu,
    SlowDisk,
    SlowLink,
    WriteRaw,
)
from harness.targets.sim_device import VirtualDevice
from harness.targets.sim_operator import VirtualOperator
from sim.nats import NatsServer
from sim.network import Cut
from sim.world import World

Ending = Callable[[], Awaitable[None]]

CANNOT: Final[dict[type[Fault], str]] = dict.fromkeys(
    (
        CutPowerAtOperation,
        RandomPowerCuts,
        BrownOut,
        FillDisk,
        DiskReadErrors,
        SlowDisk,
        SlowCpu,
        SetClock,
        DriftClock,
        DamageFile,
        SilenceEngine,
        CrashContainer,
        FlapLink,
        SlowLink,
        RestartBus,
        LoseBusTail,
        IsolateOperator,
        FreezeOperator,
    ),
    "not built yet",
)
"""The faults that the virtual world cannot do, each with the reason."""


class SimFaults:
    """Carries faults out. See `Session.inject`."""

    def __init__(
        self, world: World, nats: NatsServer, operator: VirtualOperator, devices: dict[DeviceId, VirtualDevice]
    ) -> None:
        self._world = world
        self._nats = nats
        self._operator = operator
        self._devices = devices

    async def inject(self, fault: Fault) -> Ending | None:
        """See `Session.inject`."""
        match fault:
            case WriteRaw(bucket, key, value):
                self._nats.store_raw(bucket, key, value)
                return None
            case KillOperator():
                self._operator.kill()
                return _ending(self._operator.start)
            case KillAgent(device, slot):
                process = self._device(device).machine.process(slot)
                if process is None:
                    raise NotFound(f"no agent runs in slot {slot.value} of {device}")
                process.kill()
                return None
            case CutPower(devices):
                return self._cut_power(devices)
            case Partition(devices, direction):
                cut = Cut(direction.value)
                for node in devices:
                    self._world.network.partition(node, cut)
                return _ending(partial(self._heal, devices, cut))
            case _:
                raise InvalidValue(f"this target cannot do {fault}")

    def _cut_power(self, devices: tuple[DeviceId, ...]) -> Ending:
        machines = [self._device(device).machine for device in devices]
        on = [machine for machine in machines if machine.powered]
        if not on:
            raise NotFound(f"{', '.join(devices)}: no power that could be cut")
        for machine in on:
            machine.cut_power()

        async def restore() -> None:
            for machine in on:
                machine.boot()

        return restore

    def _heal(self, devices: tuple[DeviceId, ...], cut: Cut) -> None:
        for device in devices:
            self._world.network.heal(device, cut)

    def _device(self, device: DeviceId) -> VirtualDevice:
        try:
            return self._devices[device]
        except KeyError:
            raise NotFound(f"there is no device {device}") from None


def _ending(act: Callable[[], object]) -> Ending:
    async def end() -> None:
        act()

    return end
