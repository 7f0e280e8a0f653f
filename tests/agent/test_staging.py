"""Bringing a release onto the disk: resumed downloads, honest refusals, and a power cut at every single operation."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import PurePosixPath
from typing import Any, TypeVar

import pytest

from agent import launcher, paths, staging
from agent.events import AttemptRecord
from agent.staging import Fetching, install_first, is_complete, stage
from agent.store import Store, point_link
from fleet.contracts.errors import Disconnected, FleetError, NoSpace, NotFound, Refused, Unavailable
from fleet.contracts.ids import Architecture, AttemptId, BootId, Release, Sha256, Slot, Version
from fleet.contracts.records import Artefact
from fleet.contracts.time import Duration, Instant
from sim.disk import DiskImage, SimDisk

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run without a clock: nothing here waits."""
    return asyncio.run(work)


def packed(number: int, *, member: str = "site-packages/agent/x.py", ballast: int = 4000) -> bytes:
    """A release as a zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("environment.json", json.dumps({"build_id": f"b{number}"}))
        archive.writestr(member, f"release {number}")
        archive.writestr("site-packages/agent/ballast", "0" * ballast)
    return out.getvalue()


def artefact(data: bytes, number: int) -> Artefact:
    """As it is desired."""
    release = Release(version=Version(f"1.{number}.0"), sha256=Sha256(hashlib.sha256(data).hexdigest()))
    return Artefact(release=release, architecture=Architecture.AARCH64, size=len(data), url="http://127.0.0.1/r")


class Clock:
    """Counts how often somebody waited."""

    def __init__(self) -> None:
        self.waits = 0

    def wall(self) -> Instant:
        return Instant(0)

    def monotonic(self) -> Instant:
        return Instant(0)

    async def sleep(self, length: Duration) -> None:
        self.waits += 1

    def timeout(self, length: Duration) -> AbstractAsyncContextManager[object]:
        raise AssertionError("nothing here has a deadline")


class Source:
    """Serves bytes, after the given errors."""

    def __init__(self, data: bytes, *errors: FleetError) -> None:
        self.data = data
        self.errors = list(errors)
        self.offsets: list[int] = []

    async def read(self, url: str, offset: int, length: int) -> bytes:
        if self.errors:
            raise self.errors.pop(0)
        self.offsets.append(offset)
        return self.data[offset : offset + length]


class Alive:
    """A process that lives."""

    alive = True


class Device:
    """A disk with release 1 installed and verified."""

    def __init__(self) -> None:
        self.image = DiskImage()
        self.disk = SimDisk(self.image, Alive())
        self.first = run(install_first(self.disk, packed(1), Version("1.1.0")))
        self.image.sync_all()

    def stage(self, wanted: Artefact, source: Source) -> Clock:
        """Stage, and say how often that waited."""
        clock = Clock()
        run(stage(self.disk, wanted, Fetching(source, clock, Duration.seconds(5))))
        return clock


@pytest.fixture
def device() -> Device:
    """The device."""
    return Device()


def test_the_first_release_is_complete_current_and_verified(device: Device) -> None:
    assert run(is_complete(device.disk, device.first))
    assert device.image.read_link(paths.CURRENT) == paths.release(device.first.version)
    assert run(Store(device.disk).verified()) == device.first


def test_a_release_is_staged_executable_and_unpacked(device: Device) -> None:
    data = packed(2)
    wanted = artefact(data, 2)
    device.stage(wanted, Source(data))
    assert run(is_complete(device.disk, wanted.release))
    path = paths.release(wanted.release.version)
    assert device.image.is_executable(path)
    unpacked = paths.UNPACKED / "fleet-agent-v1.2.0_b2/site-packages/agent/x.py"
    assert device.image.read(unpacked) == b"release 2"


def test_what_is_there_is_not_fetched_again(device: Device) -> None:
    data = packed(2)
    device.stage(artefact(data, 2), Source(data))
    again = Source(data)
    device.stage(artefact(data, 2), again)
    assert again.offsets == []


def test_what_an_ended_try_left_without_its_last_sync_is_made_durable(device: Device) -> None:
    data = packed(2)
    wanted = artefact(data, 2)

    async def to_the_end() -> None:
        await stage(device.disk, wanted, Fetching(Source(data), Clock(), Duration.seconds(5)))

    before = device.image.operations
    run(to_the_end())
    last = device.image.operations - before
    device = Device()
    assert run_into_cut(device, to_the_end(), last)
    device.image.before_change = None
    assert run(is_complete(device.disk, wanted.release))
    assert not device.image.is_durable(paths.manifest(wanted.release.version))
    device.stage(wanted, Source(data))
    assert device.image.is_durable(paths.manifest(wanted.release.version))
    device.image.power_cut(random.Random(1))
    assert run(is_complete(device.disk, wanted.release))


def test_a_damaged_file_is_fetched_again(device: Device) -> None:
    data = packed(2)
    wanted = artefact(data, 2)
    device.stage(wanted, Source(data))
    device.image.write(paths.release(wanted.release.version), b"torn")
    device.stage(wanted, Source(data))
    assert run(is_complete(device.disk, wanted.release))


def test_a_download_goes_on_where_it_broke_off(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "CHUNK", 1000)
    data = packed(2)
    source = Source(data, Unavailable("away"), Disconnected("cut"))
    assert device.stage(artefact(data, 2), source).waits == 2
    assert source.offsets == list(range(0, len(data), 1000))


def test_a_partial_file_of_an_earlier_try_is_resumed(device: Device) -> None:
    data = packed(2)
    wanted = artefact(data, 2)
    device.image.write(staging._part(wanted.release), data[:1500])
    source = Source(data)
    device.stage(wanted, source)
    assert source.offsets == [1500]


def test_a_torn_partial_file_is_begun_anew(device: Device) -> None:
    data = packed(2)
    wanted = artefact(data, 2)
    device.image.write(staging._part(wanted.release), b"\0" * 1500)
    source = Source(data)
    device.stage(wanted, source)
    assert source.offsets == [1500, 0]


def test_other_bytes_are_refused_and_nothing_stays(device: Device) -> None:
    wanted = artefact(packed(2), 2)
    other = packed(3)[: wanted.size].ljust(wanted.size, b"x")
    with pytest.raises(Refused, match="sha256"):
        device.stage(wanted, Source(other))
    assert not device.image.exists(paths.release(wanted.release.version))
    assert not device.image.exists(paths.manifest(wanted.release.version))


def test_a_short_artefact_is_refused(device: Device) -> None:
    data = packed(2)
    with pytest.raises(Refused, match="ends after"):
        device.stage(artefact(data, 2), Source(data[:100]))


def test_a_missing_artefact_is_said(device: Device) -> None:
    with pytest.raises(NotFound):
        device.stage(artefact(packed(2), 2), Source(b"", NotFound("no such artefact")))


def test_a_full_disk_is_refused_before_anything_is_written(device: Device) -> None:
    wanted = artefact(packed(2), 2)
    device.image.capacity = device.image.capacity - device.image.free() + 100
    before = device.image.operations
    with pytest.raises(NoSpace) as caught:
        device.stage(wanted, Source(packed(2)))
    assert caught.value.free == 100
    assert caught.value.needed > wanted.size
    assert device.image.operations == before


def test_a_version_is_never_replaced_by_another_file(device: Device) -> None:
    data = packed(9)
    with pytest.raises(Refused, match="never replaced"):
        device.stage(artefact(data, 1), Source(data))
    assert run(is_complete(device.disk, device.first))


@pytest.mark.parametrize("member", ["site-packages/../../evil", "site-packages//../x/../../evil"])
def test_a_member_that_leaves_the_folder_is_refused(device: Device, member: str) -> None:
    data = packed(2, member=member)
    with pytest.raises(Refused, match="member"):
        device.stage(artefact(data, 2), Source(data))


@pytest.mark.parametrize("data", [b"no zip at all" * 20, b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_release_is_refused(device: Device, data: bytes) -> None:
    with pytest.raises(Refused, match="not a release"):
        device.stage(artefact(data, 2), Source(data))


# --- power cuts ----------------------------------------------------------------------------------------------


class _GuardFiles:
    """The boot guard's view of a virtual disk."""

    def __init__(self, image: DiskImage) -> None:
        self._image = image

    def read(self, path: str) -> bytes | None:
        try:
            return self._image.read(PurePosixPath(path))
        except FleetError:
            return None

    def write(self, path: str, data: bytes) -> None:
        self._image.make_folder(PurePosixPath(path).parent)
        self._image.write(PurePosixPath(path), data)

    def link(self, path: str) -> str | None:
        try:
            return str(self._image.read_link(PurePosixPath(path)))
        except FleetError:
            return None

    def swap(self, link: str, target: str) -> None:
        self._image.unlink(PurePosixPath(link))
        self._image.symlink(PurePosixPath(target), PurePosixPath(link))

    def names(self, folder: str) -> list[str]:
        return list(self._image.names(PurePosixPath(folder)))

    def sha256(self, path: str) -> str | None:
        try:
            return self._image.sha256(PurePosixPath(path))
        except FleetError:
            return None


async def upgrade(disk: SimDisk, previous: Release, data: bytes) -> None:
    """Everything that an upgrade does to the disk, up to the success."""
    wanted = artefact(data, 2)
    store = Store(disk)
    await stage(disk, wanted, Fetching(Source(data), Clock(), Duration.seconds(5)))
    record = AttemptRecord(
        attempt=AttemptId("a-1"), release=wanted.release, previous=previous, origin=Slot.A, boot=BootId("boot-1")
    )
    await store.record_attempt(record)
    await point_link(disk, paths.CURRENT, paths.release(wanted.release.version))
    await store.mark_verified(wanted.release)


async def go_back(disk: SimDisk, previous: Release, data: bytes) -> None:
    """Everything that a roll-back does to the disk."""
    store, bad = Store(disk), artefact(data, 2).release
    await store.quarantine(bad, "bad", AttemptId("a-1"))
    await point_link(disk, paths.CURRENT, paths.release(previous.version))
    await store.mark_verified(previous)


WORK = {"upgrade": upgrade, "go_back": go_back}


def run_into_cut(device: Device, work: Coroutine[Any, Any, None], operation: int) -> bool:
    """Run until the power goes, instead of this operation, counted from now. Whether it went."""
    last = device.image.operations + operation
    lost = asyncio.Event()

    def change(name: str, path: PurePosixPath) -> bool:
        if device.image.operations >= last:
            lost.set()
        return not lost.is_set()

    async def both() -> None:
        tasks = [asyncio.ensure_future(work), asyncio.ensure_future(lost.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    device.image.before_change = change
    run(both())
    return lost.is_set()


def check(device: Device, seed: int, releases: tuple[Release, ...]) -> None:
    """After the cut: the link leads to a whole release, nothing is lost, and the boot guard starts one."""
    device.image.before_change = None
    device.image.power_cut(random.Random(seed))
    target = device.image.read_link(paths.CURRENT)
    whole = [release for release in releases if run(staging.is_whole(device.disk, release))]
    assert target in [paths.release(release.version) for release in whole]
    choice = launcher.choose(_GuardFiles(device.image), "a", "boot-2")
    assert isinstance(choice, launcher.Start)
    assert choice.sha256 in [release.sha256 for release in whole]
    store = Store(device.disk)
    run(store.verified())
    run(store.attempt())


def operations(work: str) -> int:
    """How many changes a piece of work makes."""
    device = Device()
    data = packed(2)
    if work == "go_back":
        run(upgrade(device.disk, device.first, data))
    before = device.image.operations
    run(WORK[work](device.disk, device.first, data))
    return device.image.operations - before


@pytest.mark.parametrize("work", ["upgrade", "go_back"])
def test_a_power_cut_at_any_operation_leaves_a_device_that_starts(work: str) -> None:
    data = packed(2)
    count = operations(work)
    assert count > 10
    for operation in range(1, count + 1):
        for seed in range(3):
            device = Device()
            if work == "go_back":
                run(upgrade(device.disk, device.first, data))
                device.image.sync_all()
            assert run_into_cut(device, WORK[work](device.disk, device.first, data), operation)
            check(device, seed, (device.first, artefact(data, 2).release))
            run(upgrade(device.disk, device.first, data))
            assert run(is_complete(device.disk, artefact(data, 2).release))
