"""The device of plain processes: nothing of it outlives its power, its supervisor or its harness."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleet.contracts.errors import NotFound, Unavailable
from fleet.contracts.ids import Slot
from harness.targets.standin.events import MachineEvent, MachineUp, UnitEnded, UnitStarted, parse
from harness.targets.standin.machine import StandInMachine

pytestmark = pytest.mark.real

LAUNCHER = """
import os, subprocess, sys, time
from pathlib import Path
root = Path(os.environ["FLEET_ROOT"])
child = subprocess.Popen(["sleep", "300"], start_new_session=True)
(root / "pids").write_text(f"{os.getpid()} {child.pid}")
time.sleep(300)
"""
HARNESS = """
import asyncio, sys
from pathlib import Path
from harness.targets.standin.machine import StandInMachine

async def main():
    machine = StandInMachine(Path(sys.argv[1]), 20, lambda event: None)
    await machine.start()
    print("up", flush=True)
    await asyncio.sleep(300)

asyncio.run(main())
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    launcher = tmp_path / "usr/local/lib/fleet-agent/launcher.py"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(LAUNCHER)
    return tmp_path


def on_machine(root: Path, tell: Callable[[StandInMachine, list[MachineEvent]], Awaitable[None]]) -> None:
    async def story() -> None:
        events: list[MachineEvent] = []
        machine = StandInMachine(root, 20, events.append)
        try:
            await machine.start()
            await tell(machine, events)
        finally:
            await machine.stop()

    asyncio.run(story())


def until(true: Callable[[], bool], limit: float = 15) -> None:
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def pids(root: Path) -> list[int]:
    until(lambda: (root / "pids").exists() and len((root / "pids").read_text().split()) == 2)
    return [int(pid) for pid in (root / "pids").read_text().split()]


def all_gone(found: list[int]) -> bool:
    return not any(os.path.exists(f"/proc/{pid}") for pid in found)


def test_a_power_cut_ends_everything_and_every_boot_has_its_own_id(root: Path) -> None:
    async def story(machine: StandInMachine, events: list[MachineEvent]) -> None:
        found = pids(root)
        await machine.cut_power()
        assert all_gone(found)
        assert [type(event) for event in events] == [MachineUp, UnitStarted, UnitEnded]
        assert not machine.powered
        with pytest.raises(Unavailable):
            await machine.kill_unit(Slot.A)
        first = (root / "proc/sys/kernel/random/boot_id").read_text()
        machine_id = (root / "etc/machine-id").read_text()
        (root / "run/left-over").write_text("")
        await machine.boot()
        assert (root / "proc/sys/kernel/random/boot_id").read_text() != first
        assert (root / "etc/machine-id").read_text() == machine_id
        assert not (root / "run/left-over").exists()

    on_machine(root, story)


def test_a_killed_unit_takes_what_it_started_with_it_and_starts_again(root: Path) -> None:
    async def story(machine: StandInMachine, events: list[MachineEvent]) -> None:
        found = pids(root)
        (root / "pids").unlink()
        with pytest.raises(NotFound):
            await machine.kill_unit(Slot.B)
        await machine.kill_unit(Slot.A)
        while len(events) < 4:
            await asyncio.sleep(0.02)
        assert all_gone(found)
        assert events[2] == UnitEnded(Slot.A, found[0], -9)
        assert events[3] == UnitStarted(Slot.A, machine.running[Slot.A])

    on_machine(root, story)


def test_a_killed_supervisor_leaves_nothing(root: Path) -> None:
    async def story(machine: StandInMachine, events: list[MachineEvent]) -> None:
        found = pids(root)
        supervisor = int(Path(f"/proc/{found[0]}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(supervisor, signal.SIGKILL)
        while machine.powered:
            await asyncio.sleep(0.02)
        until(lambda: all_gone(found))
        assert isinstance(events[-1], UnitEnded)

    on_machine(root, story)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_harness_that_dies_leaves_nothing(root: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", HARNESS, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[4]) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == b"up\n"
        found = pids(root)
        harness.send_signal(number)
    until(lambda: all_gone(found))


def test_a_machine_that_cannot_come_up_says_so(root: Path) -> None:
    async def story() -> None:
        machine = StandInMachine(root, 20, lambda event: None, python="/no/such/python")
        with pytest.raises(Unavailable, match="no/such/python"):
            await machine.start()
        assert not machine.powered

    asyncio.run(story())


@pytest.mark.parametrize(
    "line", [b"", b"{}", b'{"event": "other"}', b'{"event": "unit-started", "slot": "c", "pid": 1}']
)
def test_a_report_that_is_none(line: bytes) -> None:
    with pytest.raises(Unavailable):
        parse(line)
