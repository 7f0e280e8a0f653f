"""Ports with something wrong: what a misbehaving release puts between the production agent and the device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fleet.capabilities.bus import Bus, Entry, Request, Subscription
from fleet.capabilities.containers import ContainerFact
from fleet.capabilities.host import HostLock
from fleet.contracts import layout
from fleet.contracts.errors import Unavailable
from fleet.contracts.ids import DeploymentName, Release, Revision, Sha256
from fleet.contracts.layout import Bucket
from fleet.contracts.podman import Container
from fleet.contracts.records import Heartbeat
from fleet.contracts.time import Duration


def another(sha256: Sha256) -> Sha256:
    """A sha256 that is not this one: another first digit."""
    return Sha256(("1" if sha256[0] == "0" else "0") + sha256[1:])


class _Bus:
    """Hands everything on."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def on_session(self, callback: Callable[[], None]) -> Subscription:
        return self._bus.on_session(callback)

    def is_connected(self) -> bool:
        return self._bus.is_connected()

    async def may_log_in(self) -> bool:
        return await self._bus.may_log_in()

    async def put(self, bucket: Bucket, key: str, value: bytes) -> Revision:
        return await self._bus.put(bucket, key, value)

    def post(self, bucket: Bucket, key: str, value: bytes) -> None:
        self._bus.post(bucket, key, value)

    async def update(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> Revision:
        return await self._bus.update(bucket, key, value, last)

    async def delete(self, bucket: Bucket, key: str, last: Revision | None = None) -> None:
        await self._bus.delete(bucket, key, last)

    async def get(self, bucket: Bucket, key: str) -> Entry | None:
        return await self._bus.get(bucket, key)

    async def entries(self, bucket: Bucket, prefix: str = "") -> tuple[Entry, ...]:
        return await self._bus.entries(bucket, prefix)

    def listen(self, bucket: Bucket, prefix: str, callback: Callable[[Entry], None]) -> Subscription:
        return self._bus.listen(bucket, prefix, callback)

    async def request(self, subject: str, payload: bytes, timeout: Duration) -> bytes:
        return await self._bus.request(subject, payload, timeout)

    def serve(self, subject: str, handler: Callable[[Request], bytes | None]) -> Subscription:
        return self._bus.serve(subject, handler)

    async def close(self) -> None:
        await self._bus.close()


class _HeartbeatBus(_Bus):
    """Alters every heartbeat on its way out."""

    def post(self, bucket: Bucket, key: str, value: bytes) -> None:
        if bucket is Bucket.HEARTBEAT:
            value = layout.encode(self._altered(layout.decode(Heartbeat, value)))
        super().post(bucket, key, value)

    def _altered(self, beat: Heartbeat) -> Heartbeat:
        raise NotImplementedError


class MisnamingBus(_HeartbeatBus):
    """Heartbeats name a release that does not exist."""

    def _altered(self, beat: Heartbeat) -> Heartbeat:
        wrong = Release(version=beat.release.version, sha256=another(beat.release.sha256))
        return beat.model_copy(update={"release": wrong})


class UnwellBus(_HeartbeatBus):
    """Heartbeats say that there are workloads, and that none of them is well."""

    def _altered(self, beat: Heartbeat) -> Heartbeat:
        unwell = beat.health.model_copy(update={"workloads": max(beat.health.workloads, 1), "healthy": 0})
        return beat.model_copy(update={"health": unwell})


class _Nothing:
    refused = None

    def close(self) -> None:
        """Nothing was begun."""


class LockedOutBus(_Bus):
    """Never gets a session: what a client sees whose login the server refuses at each try."""

    def on_session(self, callback: Callable[[], None]) -> Subscription:
        return _Nothing()

    def is_connected(self) -> bool:
        return False

    async def may_log_in(self) -> bool:
        return False

    async def put(self, bucket: Bucket, key: str, value: bytes) -> Revision:
        raise _refused()

    def post(self, bucket: Bucket, key: str, value: bytes) -> None:
        raise _refused()

    async def update(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> Revision:
        raise _refused()

    async def delete(self, bucket: Bucket, key: str, last: Revision | None = None) -> None:
        raise _refused()

    async def get(self, bucket: Bucket, key: str) -> Entry | None:
        raise _refused()

    async def entries(self, bucket: Bucket, prefix: str = "") -> tuple[Entry, ...]:
        raise _refused()

    def listen(self, bucket: Bucket, prefix: str, callback: Callable[[Entry], None]) -> Subscription:
        return _Nothing()

    async def request(self, subject: str, payload: bytes, timeout: Duration) -> bytes:
        raise _refused()

    def serve(self, subject: str, handler: Callable[[Request], bytes | None]) -> Subscription:
        return _Nothing()


def _refused() -> Unavailable:
    return Unavailable("the login was refused")


class NoEngine:
    """A container engine that this release cannot get along with: it never answers, and is never touched."""

    async def present(self) -> tuple[ContainerFact, ...]:
        """See `Containers.present`."""
        raise _silent()

    async def pull(self, image: str) -> None:
        """See `Containers.pull`."""
        raise _silent()

    async def run(self, deployment: DeploymentName, container: Container, fingerprint: str) -> None:
        """See `Containers.run`."""
        raise _silent()

    async def start(self, deployment: DeploymentName, name: DeploymentName) -> None:
        """See `Containers.start`."""
        raise _silent()

    async def remove(self, deployment: DeploymentName, name: DeploymentName) -> None:
        """See `Containers.remove`."""
        raise _silent()


def _silent() -> Unavailable:
    return Unavailable("the container engine does not answer")


class WatchedLock:
    """The host lock, and whether this instance holds it."""

    def __init__(self, lock: HostLock) -> None:
        self._lock = lock
        self.held = asyncio.Event()

    async def acquire(self) -> None:
        """See `HostLock.acquire`."""
        await self._lock.acquire()
        self.held.set()

    def release(self) -> None:
        """See `HostLock.release`."""
        self._lock.release()
        self.held.clear()
