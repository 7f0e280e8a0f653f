"""The boot guard and the agent read each other's links, also on a device that lives in a folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path, PurePosixPath

from agent.launcher import CURRENT, RealFiles
from agent.linux.disk import LinuxDisk
from agent.store import point_link

RELEASE = "/usr/bin/fleet-agent-v1.0.0"


def test_the_boot_guard_reads_the_link_that_the_agent_made(tmp_path: Path) -> None:
    asyncio.run(point_link(LinuxDisk(tmp_path), PurePosixPath(CURRENT), PurePosixPath(RELEASE)))
    assert RealFiles(str(tmp_path)).link(CURRENT) == RELEASE


def test_the_agent_reads_the_link_that_the_boot_guard_made(tmp_path: Path) -> None:
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    RealFiles(str(tmp_path)).swap(CURRENT, RELEASE)
    assert asyncio.run(LinuxDisk(tmp_path).read_link(PurePosixPath(CURRENT))) == PurePosixPath(RELEASE)
    assert os.readlink(f"{tmp_path}{CURRENT}") == f"{tmp_path}{RELEASE}"


def test_a_link_out_of_the_device_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    os.symlink("/elsewhere/fleet-agent", f"{tmp_path}{CURRENT}")
    assert RealFiles(str(tmp_path)).link(CURRENT) == "/elsewhere/fleet-agent"
