"""Where the suite of the auth callout runs: the model with the callout as a virtual process, and a real nats-server.

The callout is the production program in both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from fleet.adapters.nats_login import TokenLogin
from fleet.capabilities.bus import Bus
from fleet.capabilities.clock import Clock
from fleet.contracts import layout
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import BUCKETS
from fleet.contracts.permissions import ENROLMENT, EVERYTHING, REGISTRY_OF_CALLOUT
from fleet.contracts.records import Admitted, Enrolment, Revoked
from fleet.contracts.time import Duration, Instant
from fleet.identity.callout.service import CalloutCounts, CalloutPorts, CalloutTimings, run_callout
from sim.clock import SimClock
from sim.nats import Callouts, NatsServer, SimBus, SimCallout, TokenText
from sim.process import Process, spawn
from sim.random import SimChance
from sim.world import World
from tests.conformance.conftest import Standing
from tests.fleet.identity.callout.provider import RULES
from tests.fleet.identity.callout.stage import CLOCK, CalloutStage, Provider, RunningCallout, fresh_keys

Tokens = Callable[[], str]
"""Gives the token that a device shows, at each connection."""
_KEYS = "issuer", "xkey"
_LIFE = Duration.minutes(60)


class SimCalloutLab:
    """A world with a server, a provider's keys, and callouts as virtual processes on a node of their own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.clock: Clock = SimClock(world.loop)
        self.provider = Provider()
        for node in ("nats", "callout", "operator", "enrolment", "dev-1", "dev-2"):
            world.network.add_node(node)
        self._server = NatsServer(world.kernel, world.network)
        self._server.callouts = Callouts(world.kernel, world.network, "nats", self.clock)
        self._server.callouts.keys = _KEYS
        for spec in BUCKETS:
            self._server.ensure_bucket(spec)
        for name, permissions in (
            ("operator", EVERYTHING),
            ("enrolment", ENROLMENT),
            ("callout-registry", REGISTRY_OF_CALLOUT),
        ):
            self._server.permit(name, permissions)
        self.operator: Bus = self._bus("operator", "operator", Standing())
        self._enrolment = self._bus("enrolment", "enrolment", Standing())
        self._running: list[Process] = []

    async def start_callout(self, *, others_keys: bool = False) -> None:
        started = asyncio.Event()
        callouts = self._server.callouts
        assert callouts is not None
        keys = ("another issuer", "another xkey") if others_keys else _KEYS

        async def main(process: Process) -> int:
            registry = self._bus("callout-registry", "callout", process)
            wire = SimCallout(callouts, "callout", process, lambda: self._server.up, keys)
            ports = CalloutPorts(self.clock, wire, registry, self.provider)
            started.set()
            await run_callout(ports, RULES, process.stop, CalloutTimings(), CalloutCounts())
            return 0

        self._running.append(spawn(self._world.loop, "callout", main, lambda process, code: None))
        await started.wait()

    async def stop_callout(self) -> None:
        self._running.pop().kill()

    def device(self, name: str, tokens: Tokens, life: Duration = _LIFE) -> Bus:
        async def read() -> TokenText:
            return TokenText(tokens(), Instant(self._world.kernel.now) + life)

        return SimBus(self._server, name, name, Standing(), self._chance(name), read_token=read)

    async def enrol(self, device: str, standing: Admitted | Revoked) -> None:
        await put_enrolment(self._enrolment, device, standing)

    async def crash(self) -> None:
        self._server.stop()

    async def restart(self) -> None:
        self._server.start()

    def _bus(self, name: str, host: str, process: Standing | Process) -> SimBus:
        return SimBus(self._server, name, host, process, self._chance(name))

    def _chance(self, name: str) -> SimChance:
        return SimChance(self._world.streams.stream(f"bus/{name}"))


class RealCalloutLab:
    """A nats-server on loopback, and callouts as tasks with connections of their own."""

    def __init__(self, stage: CalloutStage, clock: Clock) -> None:
        self._stage = stage
        self.clock = clock
        self.provider = stage.provider
        self.operator: Bus = stage.operator
        self._running: list[RunningCallout] = []

    async def start_callout(self, *, others_keys: bool = False) -> None:
        self._running.append(self._stage.callout(keys=fresh_keys() if others_keys else None))

    async def stop_callout(self) -> None:
        running = self._running.pop()
        self._stage.callouts.remove(running)
        await running.stop()

    def device(self, name: str, tokens: Tokens, life: Duration = _LIFE) -> Bus:
        return self._stage.bus(name, _Reads(tokens, life, self.clock))

    async def enrol(self, device: str, standing: Admitted | Revoked) -> None:
        await put_enrolment(self._stage.enrolment, device, standing)

    async def crash(self) -> None:
        await self._stage.server.kill()

    async def restart(self) -> None:
        await self._stage.server.start()


class _Reads:
    def __init__(self, tokens: Tokens, life: Duration, clock: Clock) -> None:
        self._tokens, self._life, self._clock = tokens, life, clock

    async def read(self) -> TokenLogin:
        return TokenLogin(self._tokens(), self._clock.monotonic() + self._life)

    def turned_away(self) -> None:
        """It is asked for a token each time anyway."""


async def put_enrolment(bus: Bus, device: str, standing: Admitted | Revoked) -> None:
    record = Enrolment(device=DeviceId(device), user=f"user-of-{device}", standing=standing)
    place = layout.enrolment(record.device)
    await bus.put(place.bucket, place.key, layout.encode(record))


CalloutLab = SimCalloutLab | RealCalloutLab
Main = Callable[[CalloutLab], Awaitable[None]]


def on_model(main: Main, folder: Path) -> None:
    async def told(world: World) -> None:
        lab = SimCalloutLab(world)
        await lab.clock.sleep(Duration.seconds(1))
        await main(lab)

    with World(1) as world:
        world.run(told(world))


def on_server(main: Main, folder: Path) -> None:
    async def told() -> None:
        stage = CalloutStage(folder)
        try:
            async with CLOCK.timeout(Duration.minutes(3)):
                await stage.start()
                await main(RealCalloutLab(stage, CLOCK))
        finally:
            await stage.stop()

    asyncio.run(told())
