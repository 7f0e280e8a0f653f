"""The host lock: one holder, dropped by the kernel with its holder's death."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.linux.lock import LinuxLock
from fleet.capabilities.clock import Clock
from fleet.contracts.errors import DiskFault

HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_one_holder_at_a_time(tmp_path: Path, clock: Clock) -> None:
    async def story() -> None:
        path = tmp_path / "run" / "leader.lock"
        first, second = LinuxLock(path, clock), LinuxLock(path, clock)
        await first.acquire()
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        first.release()
        first.release()
        await waiting
        second.release()
        await first.acquire()
        first.release()

    asyncio.run(story())


def test_a_cancelled_waiter_leaves_nothing(tmp_path: Path, clock: Clock) -> None:
    async def story() -> None:
        path = tmp_path / "leader.lock"
        first, second, third = (LinuxLock(path, clock) for _ in range(3))
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.release()
        await third.acquire()
        third.release()

    asyncio.run(story())


def test_the_kernel_drops_it_with_a_killed_holder(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "leader.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"

        async def story() -> None:
            lock = LinuxLock(path, clock)
            waiting = asyncio.create_task(lock.acquire())
            await asyncio.sleep(0.1)
            assert not waiting.done()
            holder.kill()
            started = time.monotonic()
            await waiting
            assert time.monotonic() - started < 3
            lock.release()

        asyncio.run(story())


def test_a_place_where_no_file_can_be(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFault):
        asyncio.run(LinuxLock(tmp_path / "file" / "lock", clock).acquire())
