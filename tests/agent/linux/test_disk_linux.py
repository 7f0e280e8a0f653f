"""What the suite shared with the virtual disk cannot show: the root, modes, full devices, cancelled writes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path, PurePosixPath

import pytest

from agent.linux.disk import LinuxDisk
from fleet.contracts.errors import NoSpace, NotPermitted

A = PurePosixPath("/a")


def test_absolute_links_stay_below_the_root(tmp_path: Path) -> None:
    async def story() -> None:
        disk = LinuxDisk(tmp_path)
        await disk.write(A, b"mine")
        await disk.symlink(A, PurePosixPath("/link"))
        assert os.readlink(tmp_path / "link") == str(tmp_path / "a")
        assert (tmp_path / "link").read_bytes() == b"mine"
        assert await disk.read_link(PurePosixPath("/link")) == A

    asyncio.run(story())


def test_modes(tmp_path: Path) -> None:
    async def story() -> None:
        disk = LinuxDisk(tmp_path)
        await disk.write(A, b"")
        await disk.make_executable(A)
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755
        await disk.make_private(A)
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600

    asyncio.run(story())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_device_is_told_with_numbers() -> None:
    with pytest.raises(NoSpace) as caught:
        asyncio.run(LinuxDisk(Path("/dev")).write(PurePosixPath("/full"), b"x" * 10))
    assert caught.value.needed == 10


def test_a_cancelled_write_is_over_when_its_caller_is(tmp_path: Path) -> None:
    async def story() -> None:
        disk = LinuxDisk(tmp_path)
        data = b"x" * (8 * 2**20)
        writing = asyncio.create_task(disk.write(A, data))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        size = (tmp_path / "a").stat().st_size if (tmp_path / "a").exists() else 0
        await asyncio.sleep(0.05)
        assert ((tmp_path / "a").stat().st_size if (tmp_path / "a").exists() else 0) == size

    asyncio.run(story())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_what_is_forbidden(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(NotPermitted):
        asyncio.run(LinuxDisk(tmp_path).write(A, b""))
