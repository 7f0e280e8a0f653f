"""The two makers of the courses: a world of its own for each course, and one real server for all of them.

The real server lives as long as the suite, because it takes longer to start than a course takes to run. Each course
gets its buckets and its clients anew: between two courses nobody answers the server's pings. After a course that went
wrong the server is replaced.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from fleet.adapters import nats_messages as messages
from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.nats import NatsBus, NatsTimings, PasswordFile
from fleet.adapters.nats_admin import NatsAdmin
from fleet.capabilities.bus import Bus
from fleet.capabilities.clock import Clock
from fleet.contracts.errors import FleetError, NotPermitted
from fleet.contracts.ids import Revision
from fleet.contracts.layout import Bucket, BucketSpec
from fleet.contracts.permissions import EVERYTHING
from fleet.contracts.time import Duration
from harness.targets.nats_process import NatsProcess, User
from sim.clock import SimClock
from sim.nats import NatsServer, SimBus
from sim.nats.subjects import may_publish
from sim.random import SimChance
from sim.world import World
from tests.conformance.bus import wire
from tests.conformance.bus.drive import RIGHTS, SPECS, USED, Seen, observe
from tests.conformance.bus.operations import Operation

_MEMORY: Final = Path("/dev/shm")
"""Where a store costs no disk, if there is such a place."""
_INSTALLER: Final = "installer"
_TIMINGS: Final = NatsTimings(backoff_least=Duration.millis(10), backoff_most=Duration.millis(30))
_LOGIN: Final = 30
"""Seconds that the server gives a login: no course is about a client that is slow to send its own."""


class Standing:
    """A process that runs for the length of a course."""

    alive = True

    def on_death(self, callback: Callable[[], None]) -> None:
        """It does not die."""

    def crash(self, error: BaseException) -> None:
        """What a callback raised fails the test."""
        raise error


class SimLab:
    """The model, in a world of its own."""

    def __init__(self, world: World) -> None:
        self.clock: Clock = SimClock(world.loop)
        self._chance = SimChance(world.streams.stream("lab"))
        world.network.add_node("nats")
        self._server = NatsServer(world.kernel, world.network)
        for bucket in USED:
            self._server.ensure_bucket(SPECS[bucket])
        for name, rights in RIGHTS.items():
            world.network.add_node(name)
            self._server.permit(name, rights)
        self._kept: dict[Bucket, int] = {}

    def bus(self, name: str) -> Bus:
        return SimBus(self._server, name, name, Standing(), self._chance)

    async def ensure(self, spec: BucketSpec) -> None:
        self._server.ensure_bucket(spec)

    async def write_raw(
        self, user: str, bucket: Bucket, key: bytes, lines: tuple[bytes, ...], value: bytes
    ) -> Revision:
        return self._server.publish_raw(user, bucket, key, lines, value)

    async def ask_raw(self, user: str, subject: str) -> None:
        if not may_publish(RIGHTS[user], subject):
            raise NotPermitted("not permitted")

    async def kill(self) -> None:
        self._server.stop()

    async def restart(self) -> None:
        self._server.start()

    async def lose_tail(self, bucket: Bucket, writes: int) -> None:
        store = self._server.store(bucket)
        self._server.lose_tail(bucket, min(writes, store.remembered))

    async def keep(self) -> None:
        self._kept = {bucket: self._server.store(bucket).sequence for bucket in USED}

    async def restore(self) -> None:
        for bucket, sequence in self._kept.items():
            self._server.lose_tail(bucket, self._server.store(bucket).sequence - sequence)


class RealLab:
    """A nats-server below a folder."""

    def __init__(self, folder: Path) -> None:
        self.clock: Clock = WallClock()
        self._folder = folder
        self._users = tuple(User.fresh(name, rights) for name, rights in {**RIGHTS, _INSTALLER: EVERYTHING}.items())
        self._passwords = {user.name: user.password for user in self._users}
        self._process = NatsProcess(folder, self._users, self.clock, auth_timeout=_LOGIN)
        self._installer: NatsBus | None = None

    async def start(self) -> None:
        await self._process.start()

    async def stop(self) -> None:
        await self.rest()
        await self._process.kill()

    async def rest(self) -> None:
        """Leave the server alone until the next course."""
        installer, self._installer = self._installer, None
        if installer is not None:
            await installer.close()

    async def empty(self) -> None:
        """Make the buckets anew."""
        self._installer = self._bus(_INSTALLER)
        shutil.rmtree(self._folder / "kept", ignore_errors=True)
        installer = await self._connected()
        for bucket in USED:
            await installer.call_api(f"$JS.API.STREAM.DELETE.KV_{bucket.value}", b"")
            await NatsAdmin(installer).ensure_bucket(SPECS[bucket])

    async def configuration(self, spec: BucketSpec) -> dict[str, object]:
        """What the server says of a bucket's stream."""
        frame = await (await self._connected()).call_api(f"$JS.API.STREAM.INFO.KV_{spec.bucket.value}", b"")
        config: dict[str, object] = json.loads(frame.payload)["config"]
        return config

    def bus(self, name: str) -> Bus:
        return self._bus(name)

    async def ensure(self, spec: BucketSpec) -> None:
        await NatsAdmin(await self._connected()).ensure_bucket(spec)

    async def write_raw(
        self, user: str, bucket: Bucket, key: bytes, lines: tuple[bytes, ...], value: bytes
    ) -> Revision:
        subject = b"$KV.%b.%b" % (bucket.value.encode(), key)
        frame = await wire.publish(self._process.port, user, self._passwords[user], subject, lines, value)
        return messages.acknowledged(frame)

    async def ask_raw(self, user: str, subject: str) -> None:
        await wire.publish(self._process.port, user, self._passwords[user], subject.encode(), (), b"")

    async def kill(self) -> None:
        await self._process.kill()
        while self._installer is not None and self._installer.is_connected():
            await self.clock.sleep(Duration.millis(2))  # it must not be taken for connected after the restart

    async def restart(self) -> None:
        await self._process.start()

    async def lose_tail(self, bucket: Bucket, writes: int) -> None:
        self._process.lose_tail(bucket, writes)

    async def keep(self) -> None:
        shutil.rmtree(self._folder / "kept", ignore_errors=True)
        shutil.copytree(self._folder / "store", self._folder / "kept")

    async def restore(self) -> None:
        if (self._folder / "kept").exists():
            shutil.rmtree(self._folder / "store")
            shutil.copytree(self._folder / "kept", self._folder / "store")

    def _bus(self, name: str) -> NatsBus:
        login = PasswordFile(self._process.login(name))
        bus = NatsBus(self._process.url, name, login, self.clock, SystemChance(), _TIMINGS)
        bus.start()
        return bus

    async def _connected(self) -> NatsBus:
        assert self._installer is not None, "empty it first"
        async with self.clock.timeout(Duration.seconds(20)):
            while not self._installer.is_connected():
                await self.clock.sleep(Duration.millis(2))
        return self._installer


@contextmanager
def makers_here() -> Iterator[Makers]:
    """Both makers, while the block lasts."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        makers = Makers(Path(folder))
        try:
            yield makers
        finally:
            makers.close()


class Makers:
    """Runs courses on both makers."""

    def __init__(self, folder: Path) -> None:
        logging.getLogger("fleet.bus").setLevel(logging.CRITICAL)  # it warns of every refusal, of which there are many
        self._folder = folder
        self._runner = asyncio.Runner()
        self._real: RealLab | None = None
        self._made = 0

    def on_model(self, course: tuple[Operation, ...]) -> list[Seen]:
        """What the model shows."""
        with World(1) as world:
            return world.run(observe(SimLab(world), course))

    def on_server(self, course: tuple[Operation, ...]) -> list[Seen]:
        """What the real server shows."""
        return self._runner.run(self._observed(course))

    def close(self) -> None:
        """End the server."""
        self._runner.run(self._replace())
        self._runner.close()
        logging.getLogger("fleet.bus").setLevel(logging.NOTSET)

    async def _observed(self, course: tuple[Operation, ...]) -> list[Seen]:
        if self._real is None:
            self._made += 1
            self._real = RealLab(self._folder / f"server-{self._made}")
            await self._real.start()
        try:
            await self._real.empty()
            seen = await observe(self._real, course)
            await self._real.rest()
            return seen
        except BaseException:
            await self._replace()
            raise

    async def _replace(self) -> None:
        real, self._real = self._real, None
        if real is not None:
            with suppress(FleetError):
                await real.stop()
