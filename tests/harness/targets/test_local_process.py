"""A child of a run cannot outlive the harness, whatever way the harness ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.targets import local_locks, local_process
from harness.targets.local_process import Child

pytestmark = pytest.mark.real

SLEEPER = (sys.executable, "-S", "-c", "import sys, time; print('up', flush=True); time.sleep(60)")


def gone(pid: int, within: float = 10.0) -> bool:
    """Whether a process that may not be our child ends in time. A zombie has ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_output_goes_to_the_file_and_the_exit_code_comes_back(tmp_path: Path) -> None:
    async def main() -> int:
        program = (sys.executable, "-S", "-c", "import os, sys; print(os.environ['WORD']); sys.exit(3)")
        child = await Child.start(program, tmp_path / "log", {"WORD": "hello"})
        return await child.wait()

    assert asyncio.run(main()) == 3
    assert (tmp_path / "log").read_text() == "hello\n"


def test_kill_is_a_signal_in_the_exit_code(tmp_path: Path) -> None:
    async def main() -> tuple[int, bool]:
        child = await Child.start(SLEEPER, tmp_path / "log", {})
        child.kill()
        code = await child.wait()
        child.kill()
        return code, child.alive

    assert asyncio.run(main()) == (-signal.SIGKILL, False)


def test_it_dies_with_a_harness_that_was_killed(tmp_path: Path) -> None:
    harness = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from harness.targets.local_process import Child\n"
        "async def main():\n"
        f"    child = await Child.start({SLEEPER!r}, Path(sys.argv[1]), {{}})\n"
        "    print(child.pid, flush=True)\n"
        "    await child.wait()\n"
        "asyncio.run(main())\n"
    )
    root = Path(local_process.__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", harness, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True, cwd=root
    )
    with process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert not gone(pid, within=0.1)
        process.kill()
    assert gone(pid)


def test_a_leash_without_its_starter_runs_nothing(tmp_path: Path) -> None:
    leash = Path(local_process.__file__).with_name("local_leash.py")
    command = [sys.executable, "-I", "-S", str(leash), "1", "/bin/echo", "ran"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "gone" in done.stderr


def test_the_kernel_names_the_holder_of_a_lock(tmp_path: Path) -> None:
    program = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    path = tmp_path / "lock"
    command = [sys.executable, "-S", "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        inode = path.stat().st_ino
        assert (holder.pid, inode) in local_locks.held()
        assert local_locks.is_open_as(path, holder.pid, inode)
        assert not local_locks.is_open_as(tmp_path / "other", holder.pid, inode)
        assert not local_locks.is_open_as(path, os.getpid(), inode)
        path.unlink()
        path.touch()
        assert local_locks.is_open_as(path, holder.pid, inode)
        holder.communicate("", timeout=10)
    assert (holder.pid, inode) not in local_locks.held()
    assert not local_locks.is_open_as(path, holder.pid, inode)


def test_waiters_and_other_kinds_of_lock_hold_nothing() -> None:
    lines = [
        "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1048 0 EOF",
        "1: -> FLOCK  ADVISORY  WRITE 4712 fe:00:1048 0 EOF",
        "2: POSIX  ADVISORY  WRITE 4713 fe:00:1049 0 EOF",
    ]
    assert local_locks.parse(lines) == {(4711, 1048)}
