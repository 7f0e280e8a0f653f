"""The production operator as a virtual process, kept up as a Kubernetes Deployment of one replica would."""

from __future__ import annotations

from typing import Final

from fleet.contracts.time import Duration
from fleet.operator.loop import run_operator
from fleet.operator.ports import OperatorConfig, OperatorPorts
from harness.targets.sim_device import Surroundings
from harness.targets.sim_taps import tap_operator
from sim.clock import SimClock
from sim.journal import OperatorEnded, OperatorStarted
from sim.kernel import Call
from sim.nats import SimBus
from sim.objects import SimObjects
from sim.process import Process, spawn
from sim.random import SimChance

BACK_OFF: Final = Duration.seconds(10)
"""A container that ended by itself is started again after this: the kubelet's first back-off, as it documents it."""
REPLICA: Final = 0


class VirtualOperator:
    """One replica."""

    def __init__(self, around: Surroundings, objects: SimObjects) -> None:
        self._around = around
        self._world = around.world
        self._objects = objects
        self._clock = SimClock(around.world.loop)
        self._chance = SimChance(around.world.streams.stream("operator"))
        self._process: Process | None = None
        self._again: Call | None = None
        self._down = False

    def start(self) -> None:
        """Start it. Nothing happens when it runs."""
        self._down = False
        if self._process is None:
            self._process = spawn(self._world.loop, "operator", self._main, self._ended)
            self._around.journal.record(OperatorStarted(self._world.now(), REPLICA))

    def kill(self) -> None:
        """kill -9. It stays down until `start`."""
        self._down = True
        if self._again is not None:
            self._again.cancel()
        if self._process is not None:
            self._process.kill()

    async def _main(self, process: Process) -> int:
        bus = SimBus(self._around.nats, "operator", "operator", process, self._chance)
        ports = OperatorPorts(clock=self._clock, chance=self._chance, bus=bus, objects=self._objects)
        probe = self._around.probe("operator", "", process)
        if probe is not None:
            ports = tap_operator(ports, probe)
        try:
            return await run_operator(ports, OperatorConfig(), process.stop)
        finally:
            await bus.close()

    def _ended(self, process: Process, code: int) -> None:
        self._process = None
        self._around.journal.record(OperatorEnded(self._world.now(), REPLICA, code))
        if process.error is not None:
            self._around.crashed(process.error)
        elif not self._down:
            self._again = self._world.kernel.after(BACK_OFF, self.start)
