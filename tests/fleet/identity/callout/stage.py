"""A real nats-server that asks the callout, the callout in this process, a provider's key, and clients with tokens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.nats import LoginSource, NatsBus, NatsTimings, PasswordFile, TokenLogin
from fleet.adapters.nats_admin import NatsAdmin
from fleet.adapters.nats_callout import NatsCallout
from fleet.adapters.nats_jwt import CalloutKeys
from fleet.contracts import layout
from fleet.contracts.errors import Unavailable
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import BUCKETS
from fleet.contracts.nkeys import KeyKind, encode_seed
from fleet.contracts.permissions import ENROLMENT, REGISTRY_OF_CALLOUT, SYSTEM_OF_CALLOUT
from fleet.contracts.records import Admitted, Enrolment, Revoked
from fleet.contracts.time import Duration, Instant
from fleet.identity.callout.service import CalloutCounts, CalloutPorts, CalloutTimings, run_callout
from fleet.scores.nats_server import DEVICES_ACCOUNT, CalloutSection
from harness.targets.nats_process import NatsProcess, User
from tests.fleet.identity.callout.provider import RULES, jwks, key, token

CLOCK = WallClock()
MOMENT = Duration.millis(5)
USUAL = CalloutTimings()
LONG_AGO = Instant(0)
QUICK = NatsTimings(answer=Duration.seconds(2), backoff_least=Duration.millis(50), backoff_most=Duration.millis(100))


class Provider:
    """The SigningKeys port, as a test wants it to be."""

    def __init__(self) -> None:
        self.document = jwks(key())
        self.up = True
        self.asked = 0

    async def fetch(self) -> bytes:
        self.asked += 1
        if not self.up:
            raise Unavailable("the provider is down")
        return self.document


class Shows:
    """A LoginSource that shows what it was last given."""

    def __init__(self, text: str, expires: Instant | None = None) -> None:
        self.text = text
        self.expires = expires or CLOCK.monotonic() + Duration.minutes(60)

    def turned_away(self) -> None:
        """It has no other one."""

    async def read(self) -> TokenLogin:
        return TokenLogin(self.text, self.expires)


class RunningCallout:
    """One callout, as a task of this process with connections of its own."""

    def __init__(self, stage: CalloutStage, timings: CalloutTimings, keys: CalloutKeys | None = None) -> None:
        self.counts = CalloutCounts()
        self._stop = asyncio.Event()
        self.buses = [stage.bus(name) for name in ("callout", "callout-registry", "callout-system")]
        asked, registry, system = self.buses
        wire = NatsCallout(asked, system, DEVICES_ACCOUNT, keys or stage.keys, CLOCK)
        ports = CalloutPorts(CLOCK, wire, registry, stage.provider)
        self.task = asyncio.create_task(run_callout(ports, RULES, self._stop, timings, self.counts))

    async def stop(self) -> None:
        self._stop.set()
        await self.task
        for bus in self.buses:
            await bus.close()


def fresh_keys() -> CalloutKeys:
    """Keys that nobody has seen before."""
    return CalloutKeys(encode_seed(KeyKind.ACCOUNT, os.urandom(32)), encode_seed(KeyKind.CURVE, os.urandom(32)))


class CalloutStage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = fresh_keys()
        section = CalloutSection(
            self.keys.issuer,
            self.keys.xkey,
            users=(User.fresh("callout"),),
            system_users=(User.fresh("callout-system", SYSTEM_OF_CALLOUT),),
        )
        users = (
            User.fresh("operator"),
            User.fresh("enrolment", ENROLMENT),
            User.fresh("callout-registry", REGISTRY_OF_CALLOUT),
        )
        self.server = NatsProcess(folder, users, CLOCK, callout=section)
        self.provider = Provider()
        self.callouts: list[RunningCallout] = []
        self.buses: list[NatsBus] = []

    async def start(self) -> None:
        await self.server.start()
        self.operator = await self.connected("operator")
        for spec in BUCKETS:
            await NatsAdmin(self.operator).ensure_bucket(spec)
        self.enrolment = await self.connected("enrolment")

    async def stop(self) -> None:
        for callout in self.callouts:
            await callout.stop()
        for bus in self.buses:
            await bus.close()
        await self.server.stop()

    def callout(self, timings: CalloutTimings = USUAL, keys: CalloutKeys | None = None) -> RunningCallout:
        self.callouts.append(RunningCallout(self, timings, keys))
        return self.callouts[-1]

    async def answering_callout(self) -> RunningCallout:
        """A callout that the server asks and that answers: whoever comes earlier is turned away, as he should be."""
        callout = self.callout()
        await self.admit("first-in")
        await (await self.connected("first-in", Shows(shown("first-in")))).close()
        await until(lambda: callout.counts.allowed > 0)
        return callout

    def bus(self, name: str, login: LoginSource | None = None) -> NatsBus:
        source = login or PasswordFile(self.server.login(name))
        bus = NatsBus(self.server.url, name, source, CLOCK, SystemChance(), QUICK)
        bus.start()
        self.buses.append(bus)
        return bus

    async def connected(self, name: str, login: LoginSource | None = None) -> NatsBus:
        bus = self.bus(name, login)
        await until(bus.is_connected)
        return bus

    async def admit(self, device: str, since: Instant = LONG_AGO, user: str | None = None) -> None:
        await self.enrol(device, Admitted(tokens_from=since), user)

    async def revoke(self, device: str) -> None:
        await self.enrol(device, Revoked(at=CLOCK.wall(), reason="stolen"))

    async def enrol(self, device: str, standing: Admitted | Revoked, user: str | None = None) -> None:
        record = Enrolment(device=DeviceId(device), user=user or f"user-of-{device}", standing=standing)
        place = layout.enrolment(record.device)
        await self.enrolment.put(place.bucket, place.key, layout.encode(record))


def shown(device: str, **changed: object) -> str:
    """A token of a device, good now."""
    return token(f"user-of-{device}", CLOCK.wall(), **changed)


async def until(holds: Callable[[], bool], limit: Duration = Duration.seconds(20)) -> None:
    async with CLOCK.timeout(limit):
        while not holds():
            await CLOCK.sleep(MOMENT)


def story(tell: Callable[[CalloutStage], Awaitable[None]]) -> Callable[[Path], None]:
    async def told(folder: Path) -> None:
        stage = CalloutStage(folder)
        try:
            async with CLOCK.timeout(Duration.minutes(5)):
                await stage.start()
                await tell(stage)
        finally:
            await stage.stop()

    @pytest.mark.real
    def test(tmp_path: Path) -> None:
        asyncio.run(told(tmp_path))

    test.__doc__ = tell.__doc__
    return test
