"""One suite for the `Disk` port: the virtual disk, and the Linux file system below a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pytest

from agent.linux.disk import LinuxDisk
from fleet.capabilities.disk import Disk
from fleet.contracts.errors import Conflict, NotFound, Refused
from sim.disk import DiskImage, SimDisk

T = TypeVar("T")
FOLDER = PurePosixPath("/usr/bin")
A, B, C = FOLDER / "a", FOLDER / "b", FOLDER / "c"


class Standing:
    alive = True


@pytest.fixture(params=["sim", "linux"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    made: Disk = SimDisk(DiskImage(), Standing()) if request.param == "sim" else LinuxDisk(tmp_path)
    asyncio.run(made.make_folder(FOLDER))
    return made


def story(tell: Callable[[Disk], Awaitable[None]]) -> Callable[[Disk], None]:
    async def told(disk: Disk) -> None:
        await tell(disk)

    def test(disk: Disk) -> None:
        asyncio.run(told(disk))

    test.__doc__ = tell.__doc__
    return test


@story
async def test_what_was_written_is_read(disk: Disk) -> None:
    await disk.write(A, b"0123456789")
    assert await disk.read(A) == b"0123456789"
    assert await disk.read(A, 3, 4) == b"3456"
    assert await disk.read(A, 8) == b"89"
    assert await disk.read(A, 20, 5) == b""
    assert await disk.size(A) == 10


@story
async def test_offset_zero_truncates_and_any_other_does_not(disk: Disk) -> None:
    await disk.write(A, b"0123456789")
    await disk.write(A, b"xx", offset=4)
    assert await disk.read(A) == b"0123xx6789"
    await disk.write(A, b"yy", offset=12)
    assert await disk.read(A) == b"0123xx6789\0\0yy"
    await disk.write(A, b"z")
    assert await disk.read(A) == b"z"
    await disk.write(A, b"")
    assert await disk.size(A) == 0


@story
async def test_large_contents(disk: Disk) -> None:
    data = bytes(range(256)) * 1024
    await disk.write(A, data)
    await disk.write(A, data, offset=len(data))
    assert await disk.read(A) == data + data


@story
async def test_missing_things_are_not_found(disk: Disk) -> None:
    missing = FOLDER / "missing"
    for act in (
        disk.read(missing),
        disk.size(missing),
        disk.sync(missing),
        disk.sync_folder(missing),
        disk.unlink(missing),
        disk.read_link(missing),
        disk.rename(missing, A),
        disk.make_executable(missing),
        disk.make_private(missing),
        disk.write(missing / "below", b""),
        disk.symlink(A, missing / "below"),
    ):
        with pytest.raises(NotFound):
            await act
    assert await disk.names(missing) == ()
    assert not await disk.exists(missing)
    await disk.remove_folder(missing)


@story
async def test_below_a_file_nothing_is_found(disk: Disk) -> None:
    await disk.write(A, b"")
    with pytest.raises(NotFound):
        await disk.read(A / "below")
    assert not await disk.exists(A / "below")
    assert await disk.names(A) == ()
    with pytest.raises(Conflict):
        await disk.make_folder(A / "below")
    with pytest.raises(Conflict):
        await disk.make_folder(A)


@story
async def test_a_folder_is_not_a_file(disk: Disk) -> None:
    for act in (disk.read(FOLDER), disk.write(FOLDER, b""), disk.unlink(FOLDER), disk.size(FOLDER)):
        with pytest.raises(Refused):
            await act


@story
async def test_rename_replaces(disk: Disk) -> None:
    await disk.write(A, b"a")
    await disk.write(B, b"b")
    await disk.rename(A, B)
    assert await disk.read(B) == b"a"
    assert await disk.names(FOLDER) == ("b",)
    await disk.rename(B, B)
    assert await disk.read(B) == b"a"


@story
async def test_rename_moves_folders_onto_nothing_only(disk: Disk) -> None:
    await disk.make_folder(A / "deep")
    await disk.write(A / "deep" / "x", b"x")
    await disk.rename(A, B)
    assert await disk.read(B / "deep" / "x") == b"x"
    await disk.make_folder(C / "full")
    with pytest.raises(Conflict):
        await disk.rename(B, C)
    await disk.write(A, b"file")
    with pytest.raises(Refused):
        await disk.rename(B, A)
    with pytest.raises(Refused):
        await disk.rename(A, B)


@story
async def test_links(disk: Disk) -> None:
    await disk.write(A, b"a")
    await disk.symlink(A, B)
    assert await disk.read_link(B) == A
    assert await disk.read(B) == b"a"
    with pytest.raises(Conflict):
        await disk.symlink(A, B)
    with pytest.raises(Conflict):
        await disk.symlink(A, A)
    with pytest.raises(NotFound):
        await disk.read_link(A)
    await disk.symlink(PurePosixPath("a"), C)
    assert await disk.read_link(C) == PurePosixPath("a")
    assert await disk.read(C) == b"a"
    await disk.rename(C, B)
    assert await disk.read_link(B) == PurePosixPath("a")
    await disk.unlink(B)
    assert await disk.exists(A)


@story
async def test_a_dangling_link_exists_and_cannot_be_read(disk: Disk) -> None:
    await disk.symlink(A, B)
    assert await disk.exists(B)
    with pytest.raises(NotFound):
        await disk.read(B)
    await disk.write(B, b"through")
    assert await disk.read(A) == b"through"


@story
async def test_folders(disk: Disk) -> None:
    await disk.make_folder(A / "b" / "c")
    await disk.make_folder(A / "b" / "c")
    await disk.write(A / "b" / "x", b"")
    assert await disk.names(A / "b") == ("c", "x")
    await disk.remove_folder(A)
    assert not await disk.exists(A)
    await disk.write(A, b"")
    with pytest.raises(Refused):
        await disk.remove_folder(A)
    await disk.symlink(FOLDER, B)
    with pytest.raises(Refused):
        await disk.remove_folder(B)


@story
async def test_syncs_and_modes_do_no_harm(disk: Disk) -> None:
    await disk.write(A, b"a")
    await disk.make_executable(A)
    await disk.sync(A)
    await disk.make_private(A)
    await disk.sync_folder(FOLDER)
    assert await disk.read(A) == b"a"


@story
async def test_there_is_room(disk: Disk) -> None:
    assert await disk.free() > 1024
