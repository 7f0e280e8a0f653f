"""The bus that a configuration names, and the objects on it, for as long as a command takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.nats import NatsBus, PasswordFile
from fleet.adapters.objects import StandaloneObjects
from fleet.commands.config import FleetConfig
from fleet.contracts.errors import Unavailable
from fleet.contracts.time import Duration

T = TypeVar("T")

CONNECT: Final = Duration.seconds(10)


@dataclass(frozen=True, slots=True)
class Connection:
    """The adapters that every command needs."""

    clock: WallClock
    chance: SystemChance
    bus: NatsBus
    objects: StandaloneObjects


@asynccontextmanager
async def connection(config: FleetConfig) -> AsyncIterator[Connection]:
    """The adapters, connecting; the bus is closed in the end."""
    clock, chance = WallClock(config.pace, since=config.paced_since), SystemChance()
    login = PasswordFile(config.bus.login)
    await login.read()
    bus = NatsBus(config.bus.url, config.bus.name, login, clock, chance)
    bus.start()
    try:
        yield Connection(clock, chance, bus, StandaloneObjects(bus, chance))
    finally:
        await bus.close()


def with_connection(config: FleetConfig, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Connect, do the work, disconnect. Raises: Unavailable when there is no session in time."""

    async def whole() -> T:
        async with connection(config) as made:
            established = asyncio.Event()
            made.bus.on_session(established.set)
            try:
                async with made.clock.timeout(CONNECT):
                    await established.wait()
            except TimeoutError:
                raise Unavailable(f"no connection to {config.bus.url} within {CONNECT}") from None
            return await work(made)

    return asyncio.run(whole())
