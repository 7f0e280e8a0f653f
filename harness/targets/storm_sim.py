"""The reconnect storm in the virtual world: the production callout, and clients as the model has them."""

from __future__ import annotations

from collections.abc import Callable

from fleet.contracts import layout
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import BUCKETS, Bucket
from fleet.contracts.permissions import REGISTRY_OF_CALLOUT
from fleet.contracts.time import Duration, Instant
from fleet.identity.callout.service import CalloutCounts, CalloutPorts, run_callout
from harness.storm_report import StormReport
from harness.targets.storm_tokens import StormProvider, enrolled
from sim.clock import SimClock
from sim.nats import Callouts, NatsServer, SimBus, SimCallout, TokenText
from sim.process import Process, spawn
from sim.random import SimChance
from sim.world import World

DOWN = Duration.seconds(5)
_ALL_IN = Duration.seconds(60)


def storm(devices: int, seed: int) -> StormReport:
    """Restart the server under so many clients; how long it takes until all are back, in virtual time."""
    with World(seed) as world:
        return world.run(_Storm(world, devices).run())


class _Outside:
    alive = True

    def on_death(self, callback: Callable[[], None]) -> None:
        """It does not die."""

    def crash(self, error: BaseException) -> None:
        """What a callback raised ends the measurement."""
        raise error


class _Storm:
    def __init__(self, world: World, devices: int) -> None:
        self._world = world
        self._clock = SimClock(world.loop)
        self._provider = StormProvider()
        self._names = [DeviceId(f"device-{number:03}") for number in range(1, devices + 1)]
        for node in ("nats", "callout-0", "callout-1", *self._names):
            world.network.add_node(node)
        self._server = NatsServer(world.kernel, world.network)
        self._callouts = Callouts(world.kernel, world.network, "nats", self._clock)
        self._server.callouts = self._callouts
        for spec in BUCKETS:
            self._server.ensure_bucket(spec)
        for name in self._names:
            self._server.store_raw(Bucket.IDENTITY, name.encode(), layout.encode(enrolled(name)))
        self._counts = [CalloutCounts(), CalloutCounts()]
        self._back: list[int] = []

    async def run(self) -> StormReport:
        for number, counts in enumerate(self._counts):
            self._start_callout(f"callout-{number}", counts)
        await self._clock.sleep(Duration.seconds(10))
        buses = [self._client(name) for name in self._names]
        await self._clock.sleep(_ALL_IN)
        assert all(bus.is_connected() for bus in buses), "not all came in at first"
        asked = self._callouts.questions
        self._server.stop()
        await self._clock.sleep(DOWN)
        for bus in buses:
            bus.on_session(lambda: self._back.append(self._world.kernel.now))
        up = self._world.kernel.now
        self._server.start()
        await self._clock.sleep(_ALL_IN)
        questions = self._callouts.questions - asked
        times = tuple(Duration(moment - up) for moment in sorted(self._back))
        return StormReport(len(buses), times, questions, tuple(str(counts) for counts in self._counts))

    def _client(self, name: DeviceId) -> SimBus:
        token = self._provider.token(name, self._clock.wall())

        async def read() -> TokenText:
            return TokenText(token, Instant(self._world.kernel.now + Duration.minutes(720)))

        return SimBus(self._server, name, name, _Outside(), self._chance(name), read_token=read)

    def _start_callout(self, name: str, counts: CalloutCounts) -> None:
        self._server.permit(name, REGISTRY_OF_CALLOUT)

        async def main(process: Process) -> int:
            bus = SimBus(self._server, name, name, process, self._chance(name))
            wire = SimCallout(self._callouts, name, process, lambda: self._server.up)
            ports = CalloutPorts(self._clock, wire, bus, self._provider)
            await run_callout(ports, self._provider.rules, process.stop, counts=counts)
            return 0

        spawn(self._world.loop, name, main, lambda process, code: None)

    def _chance(self, name: str) -> SimChance:
        return SimChance(self._world.streams.stream(f"storm/{name}"))
