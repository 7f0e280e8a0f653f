"""Bugs at the ports: what an adapter does wrong to a disk, a lock, a bus or a container engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import Final

import agent.paths
import agent.staging
import sim.host
from fleet.capabilities.disk import Disk
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Duration
from sim.containers import SimContainers
from sim.disk import SimDisk
from sim.host import SimHostLock, SimServices
from sim.nats import SimBus
from tests.planted.agent_bugs import LINK
from tests.planted.plant import CHECK, CRASHED, STUCK, Bug, Patch
from tests.planted.stories import STRAIGHT


def lock_held_by_nobody(patch: Patch) -> None:
    def claim(lock: sim.host._LockFile, asked: sim.host._Claim) -> None:
        lock._machine.hooks.lock(asked.slot, True)
        asked.granted.set_result(None)

    patch.setattr(sim.host._LockFile, "claim", claim)


def _forgetful_sync(patch: Patch, method: str, *, of: str) -> None:
    sync = getattr(SimDisk, method)

    async def forget(disk: SimDisk, path: PurePosixPath) -> None:
        if not str(path).endswith(of):
            await sync(disk, path)

    patch.setattr(SimDisk, method, forget)


def release_not_synced(patch: Patch) -> None:
    _forgetful_sync(patch, "sync", of=".part")


def folder_of_releases_not_synced(patch: Patch) -> None:
    _forgetful_sync(patch, "sync_folder", of="/usr/bin")


def unpacked_files_not_synced(patch: Patch) -> None:
    sync = SimDisk.sync

    async def forget(disk: SimDisk, path: PurePosixPath) -> None:
        if not path.is_relative_to(agent.paths.UNPACKED):
            await sync(disk, path)

    patch.setattr(SimDisk, "sync", forget)


def damage_of_unpacked_files_not_noticed(patch: Patch) -> None:
    """The card lies, which an agent that looks at what it has unpacked makes up for."""

    async def nothing(disk: Disk, packed: object, root: PurePosixPath) -> AsyncIterator[tuple[PurePosixPath, bytes]]:
        empty: tuple[tuple[PurePosixPath, bytes], ...] = ()
        for item in empty:
            yield item

    unpacked_files_not_synced(patch)
    patch.setattr(agent.staging, "_damaged", nothing)


def rename_is_a_copy(patch: Patch) -> None:
    async def copy(disk: SimDisk, source: PurePosixPath, target: PurePosixPath) -> None:
        try:
            link = await disk.read_link(source)
        except Exception:  # noqa: BLE001 - not a link, then
            await rename(disk, source, target)
            return
        if await disk.exists(target):
            await disk.unlink(target)
        await disk.symlink(link, target)
        await disk.unlink(source)

    rename = SimDisk.rename
    patch.setattr(SimDisk, "rename", copy)


def heartbeat_under_a_wrong_key(patch: Patch) -> None:
    post = SimBus.post

    def elsewhere(bus: SimBus, bucket: Bucket, key: str, value: bytes) -> None:
        post(bus, bucket, key.replace(".b", ".a"), value)

    patch.setattr(SimBus, "post", elsewhere)


def stop_of_a_unit_not_waited_for(patch: Patch) -> None:
    async def start(services: SimServices, slot: object) -> None:
        return

    patch.setattr(SimServices, "start", start)


def engine_loses_containers(patch: Patch) -> None:
    present = SimContainers.present

    async def nothing(containers: SimContainers) -> tuple[object, ...]:
        await present(containers)
        return ()

    patch.setattr(SimContainers, "present", nothing)


def request_never_answered(patch: Patch) -> None:
    async def silent(bus: SimBus, subject: str, payload: bytes, timeout: Duration) -> bytes:
        from fleet.contracts.errors import TimedOut

        raise TimedOut(subject)

    patch.setattr(SimBus, "request", silent)


def lock_left_by_whoever_waits(patch: Patch) -> None:
    release = SimHostLock.release

    async def impatient(lock: SimHostLock) -> None:
        release(lock)
        lock._machine.hooks.lock(lock._slot, True)

    patch.setattr(SimHostLock, "acquire", impatient)


SWAP: Final = "power sync_folder /usr/local/bin"

BUGS: Final = (
    Bug(
        "host lock held by nobody",
        "two instances manage the same containers",
        STRAIGHT,
        ("one-manager",),
        lock_held_by_nobody,
    ),
    Bug(
        "host lock not waited for",
        "the new instance manages beside the old one",
        STRAIGHT,
        ("one-manager",),
        lock_left_by_whoever_waits,
    ),
    Bug(
        "release file not synced",
        "after a power cut the release is torn, and the link leads to it",
        STRAIGHT,
        (LINK, "no-release-erased"),
        release_not_synced,
        cut=SWAP,
    ),
    Bug(
        "folder of releases not synced",
        "after a power cut the name of the release is gone",
        STRAIGHT,
        (LINK, "no-release-erased"),
        folder_of_releases_not_synced,
        cut=SWAP,
    ),
    Bug(
        "unpacked files not synced",
        "after a power cut the release is whole, and what it imports is not",
        STRAIGHT,
        (LINK,),
        unpacked_files_not_synced,
        cut=SWAP,
    ),
    Bug(
        "damage of unpacked files not noticed",
        "a release is swapped in that cannot import what was unpacked of it",
        STRAIGHT,
        (LINK,),
        damage_of_unpacked_files_not_noticed,
        cut="power write /var/lib/fleet-agent/.attempt.json.tmp",
    ),
    Bug("rename is remove and make", "a swap with an instant in between", STRAIGHT, (LINK,), rename_is_a_copy),
    Bug(
        "heartbeats under the other slot's key",
        "two instances overwrite each other's signs of life",
        STRAIGHT,
        (STUCK, CHECK, "stop-only-after-verified"),
        heartbeat_under_a_wrong_key,
    ),
    Bug(
        "unit never started",
        "the new instance is believed to run",
        STRAIGHT,
        (STUCK, CHECK),
        stop_of_a_unit_not_waited_for,
    ),
    Bug(
        "container engine shows nothing",
        "workloads are started again and again",
        STRAIGHT,
        (STUCK, CRASHED, "unaffected-containers-not-restarted"),
        engine_loses_containers,
    ),
    Bug("requests never answered", "a lock request into the void", STRAIGHT, (STUCK,), request_never_answered),
)
