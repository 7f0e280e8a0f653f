"""One suite for the `Services` port: the virtual service manager, and `systemctl` on a device of plain processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

import pytest

from agent.linux.systemd import Systemd
from fleet.capabilities.host import Exited, Failing, Running, Services, Stopped
from fleet.contracts.errors import Refused
from fleet.contracts.ids import DeviceId, Slot
from harness.targets.standin.events import MachineEvent, UnitEnded, UnitStarted
from harness.targets.standin.machine import StandInMachine
from sim.clock import SimClock
from sim.host import Machine, SimServices
from sim.process import Process, spawn
from sim.world import World as SpaceAndTime

LAUNCHER = """
import os, signal, sys, time
from pathlib import Path, PurePosixPath
match (Path(os.environ["FLEET_ROOT"]) / f"behaviour-{sys.argv[1]}").read_text():
    case "runs":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    case "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    case "leaves":
        sys.exit(0)
    case "crashes":
        sys.exit(1)
(Path(os.environ["FLEET_ROOT"]) / f"ready-{sys.argv[1]}").write_text("")
while True:
    time.sleep(60)
"""


class World(Protocol):
    """A machine whose two units do what they are told: `runs`, `deaf` to SIGTERM, `leaves` with 0, `crashes`."""

    started: list[Slot]
    ended: list[tuple[Slot, int]]

    @property
    def services(self) -> Services: ...

    def behave(self, slot: Slot, how: str) -> None: ...

    def ready(self, slot: Slot) -> bool:
        """Whether the unit's program is past its beginning."""
        ...

    async def kill(self, slot: Slot) -> None: ...

    async def restart(self) -> None:
        """Cut the power, and boot."""
        ...


Story = Callable[[World], Awaitable[None]]
Teller = Callable[[Story], None]


class RealWorld:
    def __init__(self, root: Path) -> None:
        self.started: list[Slot] = []
        self.ended: list[tuple[Slot, int]] = []
        self.machine = StandInMachine(root, 20, self._heard)
        launcher = root / "usr/local/lib/fleet-agent/launcher.py"
        launcher.parent.mkdir(parents=True)
        launcher.write_text(LAUNCHER)

    def _heard(self, event: MachineEvent) -> None:
        match event:
            case UnitStarted(slot):
                self.started.append(slot)
            case UnitEnded(slot, _, code):
                self.ended.append((slot, code))
                (self.machine.root / f"ready-{slot.value}").unlink(missing_ok=True)
            case _:
                pass

    @property
    def services(self) -> Services:
        return Systemd(self.machine.environment)

    def behave(self, slot: Slot, how: str) -> None:
        (self.machine.root / f"behaviour-{slot.value}").write_text(how)

    def ready(self, slot: Slot) -> bool:
        return (self.machine.root / f"ready-{slot.value}").exists()

    async def kill(self, slot: Slot) -> None:
        await self.machine.kill_unit(slot)

    async def restart(self) -> None:
        await self.machine.cut_power()
        await self.machine.boot()

    async def tell(self, story: Story) -> None:
        for slot in Slot:
            self.behave(slot, "runs")
        try:
            await self.machine.start()
            await until(lambda: self.ready(Slot.A))
            await story(self)
        finally:
            await self.machine.stop()


class VirtualWorld:
    def __init__(self, space: SpaceAndTime) -> None:
        self.started: list[Slot] = []
        self.ended: list[tuple[Slot, int]] = []
        self._behaviour = dict.fromkeys(Slot, "runs")
        self._ready: set[Slot] = set()
        self.machine = Machine(
            space.loop, space.streams, DeviceId("dev-1"), SimClock(space.loop), self._unit_main, _no_programs
        )
        self.machine.hooks.unit_started = self.started.append
        self.machine.hooks.unit_ended = self._unit_ended
        self._teller = spawn(space.loop, "teller", _forever, lambda process, code: None)

    async def _unit_main(self, machine: Machine, slot: Slot, process: Process) -> int:
        how = self._behaviour[slot]
        if how == "leaves":
            return 0
        if how == "crashes":
            return 1
        self._ready.add(slot)
        if how == "deaf":
            await _forever(process)
        await process.stop.wait()
        return 0

    def _unit_ended(self, slot: Slot, code: int) -> None:
        self.ended.append((slot, code))
        self._ready.discard(slot)

    @property
    def services(self) -> Services:
        return SimServices(self.machine, self._teller)

    def behave(self, slot: Slot, how: str) -> None:
        self._behaviour[slot] = how

    def ready(self, slot: Slot) -> bool:
        return slot in self._ready

    async def kill(self, slot: Slot) -> None:
        process = self.machine.process(slot)
        assert process is not None
        process.kill()

    async def restart(self) -> None:
        self.machine.cut_power()
        self.machine.boot()

    async def tell(self, story: Story) -> None:
        self.machine.boot()
        await until(lambda: self.ready(Slot.A))
        await story(self)


async def _forever(process: Process) -> int:
    while True:  # a timer keeps hold of it: a task that waits for what nobody else has is the collector's
        await asyncio.sleep(3600)


async def _no_programs(machine: Machine, path: PurePosixPath, contents: bytes, arguments: tuple[str, ...]) -> Exited:
    raise AssertionError("no story here runs a program")


@pytest.fixture(params=["sim", pytest.param("standin", marks=pytest.mark.real)])
def tell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Teller]:
    if request.param == "sim":
        with SpaceAndTime(seed=1) as space:
            yield lambda story: space.run(VirtualWorld(space).tell(story))
    else:
        yield lambda story: asyncio.run(RealWorld(tmp_path).tell(story))


async def until(true: Callable[[], bool]) -> None:
    """Wait until it is true; 50 s of the world's own time at most."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come true in time")


async def up(world: World, slot: Slot) -> None:
    await world.services.start(slot)
    await until(lambda: world.ready(slot))


def test_only_slot_a_starts_at_boot(tell: Teller) -> None:
    async def story(world: World) -> None:
        assert await world.services.state(Slot.A) == Running()
        assert await world.services.state(Slot.B) == Stopped()
        assert world.started == [Slot.A]

    tell(story)


def test_starting_what_runs_and_stopping_what_does_not_change_nothing(tell: Teller) -> None:
    async def story(world: World) -> None:
        await up(world, Slot.B)
        await world.services.start(Slot.B)
        assert await world.services.state(Slot.B) == Running()
        await world.services.stop(Slot.B)
        await world.services.stop(Slot.B)
        assert await world.services.state(Slot.B) == Stopped()
        assert world.started == [Slot.A, Slot.B]
        assert world.ended == [(Slot.B, 0)]

    tell(story)


def test_an_exit_with_0_is_left_alone(tell: Teller) -> None:
    async def story(world: World) -> None:
        world.behave(Slot.B, "leaves")
        await world.services.start(Slot.B)
        await until(lambda: world.ended == [(Slot.B, 0)])
        await asyncio.sleep(1)
        assert await world.services.state(Slot.B) == Stopped()
        assert world.started == [Slot.A, Slot.B]

    tell(story)


def test_a_bad_end_is_restarted_until_the_limit_and_then_forgiven_by_a_stop(tell: Teller) -> None:
    async def story(world: World) -> None:
        world.behave(Slot.B, "crashes")
        await world.services.start(Slot.B)
        await until(lambda: len(world.ended) == 5)
        while isinstance(state := await world.services.state(Slot.B), Failing) and not state.gave_up:
            await asyncio.sleep(0.1)
        assert state == Failing(5, gave_up=True)
        assert world.started.count(Slot.B) == 5
        with pytest.raises(Refused):
            await world.services.start(Slot.B)
        assert world.started.count(Slot.B) == 5
        await world.services.stop(Slot.B)
        assert await world.services.state(Slot.B) == Stopped()
        world.behave(Slot.B, "runs")
        await up(world, Slot.B)
        assert await world.services.state(Slot.B) == Running()

    tell(story)


def test_a_killed_unit_starts_again(tell: Teller) -> None:
    async def story(world: World) -> None:
        await world.kill(Slot.A)
        await until(lambda: world.ended == [(Slot.A, -9)])
        await until(lambda: world.ready(Slot.A))
        assert world.started == [Slot.A, Slot.A]

    tell(story)


def test_what_ignores_the_stop_is_killed_and_counts_as_stopped(tell: Teller) -> None:
    async def story(world: World) -> None:
        world.behave(Slot.B, "deaf")
        await up(world, Slot.B)
        await world.services.stop(Slot.B)
        assert world.ended == [(Slot.B, -9)]
        assert await world.services.state(Slot.B) == Stopped()
        assert world.started == [Slot.A, Slot.B]

    tell(story)


def test_a_stop_ends_the_wait_for_a_restart(tell: Teller) -> None:
    async def story(world: World) -> None:
        world.behave(Slot.B, "crashes")
        await world.services.start(Slot.B)
        await until(lambda: len(world.ended) == 1)
        await world.services.stop(Slot.B)
        starts = world.started.count(Slot.B)
        await asyncio.sleep(1)
        assert world.started.count(Slot.B) == starts
        assert await world.services.state(Slot.B) == Stopped()

    tell(story)


def test_a_power_cut_ends_both_units_and_slot_a_alone_comes_back(tell: Teller) -> None:
    async def story(world: World) -> None:
        await up(world, Slot.B)
        await world.restart()
        assert sorted(world.ended) == [(Slot.A, -9), (Slot.B, -9)]
        await until(lambda: world.ready(Slot.A))
        assert world.started == [Slot.A, Slot.B, Slot.A]
        assert await world.services.state(Slot.B) == Stopped()

    tell(story)
