"""The production operator as virtual processes, kept up as a Kubernetes Deployment would, each on a node of its own."""

from __future__ import annotations

from typing import Final

from fleet.contracts.errors import NotFound
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import ZERO, Duration
from fleet.operator.loop import run_operator
from fleet.operator.ports import OperatorConfig, OperatorPorts
from fleet.roots.logins import OPERATOR_PASSWORD
from harness.targets.sim_device import Surroundings
from harness.targets.sim_secret_files import stored_password
from harness.targets.sim_taps import tap_operator
from sim.clock import SimClock
from sim.journal import OperatorEnded, OperatorStarted
from sim.kernel import Call
from sim.nats import SimBus
from sim.network import Link
from sim.objects import SimObjects
from sim.objects_link import ObjectsOverLink
from sim.process import Process, spawn
from sim.random import SimChance

BACK_OFF: Final = Duration.seconds(10)
"""A container that ended by itself is started again after this: the kubelet's first back-off, as it documents it."""
CLUSTER_LINK: Final = Link(latency=ZERO, jitter=ZERO, bandwidth=1_250_000_000)
"""The line of a cluster's node, 10 Gbit/s: there to be cut. What it adds to a latency is nothing beside a device's."""


def operator_name(replica: int) -> str:
    """What a replica is called: on the network, on the bus, and in the lease."""
    return f"operator-{replica}"


class VirtualOperator:
    """One replica."""

    def __init__(self, around: Surroundings, objects: SimObjects, replica: int) -> None:
        self.replica = replica
        self.name = operator_name(replica)
        self._around = around
        self._world = around.world
        self._clock = SimClock(around.world.loop)
        self._objects = ObjectsOverLink(objects, around.world.network, self.name, self._clock)
        self._chance = SimChance(around.world.streams.stream(self.name))
        self._process: Process | None = None
        self._again: Call | None = None
        self._down = False

    def start(self) -> None:
        """Start it. Nothing happens when it runs."""
        self._down = False
        if self._process is None:
            self._process = spawn(self._world.loop, self.name, self._main, self._ended)
            self._around.journal.record(OperatorStarted(self._world.now(), self.replica))

    def kill(self) -> None:
        """kill -9. It stays down until `start`. Raises: NotFound when it is down already."""
        if self._down:
            raise NotFound(f"{self.name} does not run")
        self._down = True
        if self._again is not None:
            self._again.cancel()
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """SIGTERM, as before an eviction. It stays down until `start`. Raises: NotFound when it does not run."""
        if self._process is None:
            raise NotFound(f"{self.name} does not run")
        self._down = True
        self._process.terminate()

    async def _main(self, process: Process) -> int:
        login = stored_password(self._around.installations.store, self.name, OPERATOR_PASSWORD)
        bus = SimBus(self._around.nats, self.name, self.name, process, self._chance, read_password=login)
        ports = OperatorPorts(clock=self._clock, chance=self._chance, bus=bus, objects=self._objects)
        probe = self._around.probe("operator", "", process)
        if probe is not None:
            ports = tap_operator(ports, probe)
        try:
            return await run_operator(ports, OperatorConfig(replica=ObjectName(self.name)), process.stop)
        finally:
            await bus.close()

    def _ended(self, process: Process, code: int) -> None:
        self._process = None
        self._around.journal.record(OperatorEnded(self._world.now(), self.replica, code))
        if process.error is not None:
            self._around.crashed(process.error)
        elif not self._down:
            self._again = self._world.kernel.after(BACK_OFF, self.start)
