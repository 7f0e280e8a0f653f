"""The bus of a run on real parts: the server, the harness's own connection to it, and what is seen of it.

Everybody else reaches the server through a door. After a crash it stays shut until the harness listens again and has
caught up: so no write goes by that the journal does not have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fleet.adapters.clock import SystemChance
from fleet.adapters.nats import NatsBus, NatsTimings, PasswordFile
from fleet.adapters.nats_admin import NatsAdmin
from fleet.adapters.objects import StandaloneObjects
from fleet.capabilities.bus import Entry
from fleet.capabilities.clock import Clock
from fleet.contracts.errors import FleetError, NotFound, Unavailable
from fleet.contracts.ids import Revision
from fleet.contracts.layout import BUCKETS, Bucket
from fleet.contracts.time import Duration, Instant
from harness.bad_entries import Becomes
from harness.faults import WriteRaw
from harness.targets.local_bus_watch import HARNESS, BusWatch
from harness.targets.nats_process import NatsProcess
from sim.journal import Journal

CONNECT: Final = Duration.seconds(10)
_TIMINGS: Final = NatsTimings(backoff_least=Duration.millis(20), backoff_most=Duration.millis(50))
"""The harness's own connection is no part of what is tested: it has to be back before anybody else."""
_LOOK_AGAIN: Final = Duration.millis(10)


class LocalBus:
    """One server. Not started by being made.

    Args:
        real: a clock that is not paced.
        now: the time of the journal.
    """

    def __init__(self, nats: NatsProcess, journal: Journal, now: Callable[[], Instant], real: Clock) -> None:
        self._nats = nats
        self._journal = journal
        self._now = now
        self._real = real
        self._open = asyncio.Event()
        self._crashes = 0
        self._lost: tuple[Bucket, ...] = ()
        self._bus: NatsBus | None = None
        self._watch: BusWatch | None = None
        self._objects: StandaloneObjects | None = None

    @property
    def objects(self) -> StandaloneObjects:
        """Where the user's objects are written. Raises: Unavailable before `start`."""
        if self._objects is None:
            raise Unavailable("the target was not started")
        return self._objects

    def door(self) -> int:
        """The port that proxies lead to. Raises: ConnectionRefusedError while nobody is let in."""
        if not self._open.is_set():
            raise ConnectionRefusedError
        return self._nats.port

    async def start(self) -> None:
        """Server, connection, buckets, watch."""
        await self._nats.start()
        chance, login = SystemChance(), PasswordFile(self._nats.login(HARNESS))
        self._bus = NatsBus(self._nats.url, HARNESS, login, self._real, chance, _TIMINGS)
        self._bus.start()
        await self._connected(self._bus)
        admin = NatsAdmin(self._bus)
        for spec in BUCKETS:
            await admin.ensure_bucket(spec)
        self._objects = StandaloneObjects(self._bus, chance)
        self._watch = BusWatch(self._bus, self._journal, self._now)
        self._watch.start()
        self._open.set()

    async def stop(self) -> None:
        """End all of it. Nothing happens to what was never started."""
        if self._watch is not None:
            self._watch.stop()
        if self._bus is not None:
            await self._bus.close()
        await self._nats.stop()

    async def kill(self) -> None:
        """kill -9 of the server, which stays down until `restart`. Raises: NotFound when it is down."""
        bus, _ = self._parts()
        if not self._open.is_set():
            raise NotFound("the bus is down already")
        self._open.clear()
        self._crashes += 1
        await self._nats.kill()
        while bus.is_connected():
            await self._real.sleep(_LOOK_AGAIN)

    async def lose_tail(self, buckets: tuple[Bucket, ...], writes: int) -> None:
        """The machine of the server loses power: as `kill`, and the newest writes of these buckets are gone.

        Raises: as `kill`; Unavailable when the server's store is not as it is known.
        """
        await self.kill()
        self._lost = buckets
        for bucket in buckets:
            self._nats.lose_tail(bucket, writes)

    async def restart(self) -> None:
        """Start the server on the same port and store; let the others in when the harness has caught up.

        Raises: Unavailable.
        """
        bus, watch = self._parts()
        await self._nats.start()
        await self._connected(bus)
        lost, self._lost = self._lost, ()
        await watch.look_again(lost)
        await watch.catch_up()
        self._open.set()

    async def write_raw(self, fault: WriteRaw) -> None:
        """See `NatsProcess.store_raw`."""
        _, watch = self._parts()
        watch.expect_raw(fault.bucket, fault.key, fault.value)
        await self._nats.store_raw(HARNESS, fault.bucket, fault.key, fault.value)

    async def write(self, bucket: Bucket, key: bytes, value: bytes, headers: bytes, becomes: Becomes) -> Revision:
        """See `RawWriter.write`."""
        if becomes is Becomes.VALUE:
            self._parts()[1].expect_raw(bucket, key, value)
        return await self._nats.store_raw(HARNESS, bucket, key, value, headers)

    async def entries(self, bucket: Bucket) -> tuple[Entry, ...]:
        """See `RawWriter.entries`."""
        return await self._parts()[0].entries(bucket)

    async def put_back(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> None:
        """See `RawWriter.put_back`."""
        bus, watch = self._parts()
        watch.expect_raw(bucket, key.encode(), value)
        await bus.update(bucket, key, value, last)

    async def settle(self) -> None:
        """See `BusWatch.settle`. While the server is down it waits until it is back."""
        _, watch = self._parts()
        while True:
            await self._open.wait()
            crashes = self._crashes
            try:
                await watch.settle(self._real)
            except FleetError:
                if crashes == self._crashes:
                    raise
            else:
                return

    def _parts(self) -> tuple[NatsBus, BusWatch]:
        if self._bus is None or self._watch is None:
            raise Unavailable("the target was not started")
        return self._bus, self._watch

    async def _connected(self, bus: NatsBus) -> None:
        established = asyncio.Event()
        listening = bus.on_session(established.set)
        try:
            async with self._real.timeout(CONNECT):
                await established.wait()
        except TimeoutError:
            raise Unavailable(f"no connection to nats-server within {CONNECT}") from None
        finally:
            listening.close()
