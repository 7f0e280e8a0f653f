"""The virtual machine, where the suite shared with the real one cannot look: exact times, the lock, programs, power."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import pytest

from fleet.capabilities.host import Exited, Failing, NotStartable, Overran, ProgramEnd, Running, Stopped
from fleet.contracts.errors import Refused
from fleet.contracts.ids import DeviceId, Slot
from fleet.contracts.time import Duration
from sim.clock import SimClock
from sim.disk import SimDisk
from sim.host import Machine, SimHostLock, SimPrograms, SimServices, UnitMain
from sim.process import Process, spawn
from sim.world import World

PROGRAM = PurePosixPath("/usr/bin/program")
Log = list[tuple[Any, ...]]


async def obedient(machine: Machine, slot: Slot, process: Process) -> int:
    await process.stop.wait()
    return 0


async def programs(machine: Machine, path: PurePosixPath, contents: bytes, arguments: tuple[str, ...]) -> Exited:
    if contents == b"hangs":
        await asyncio.sleep(10**6)
    return Exited(3, contents + " ".join(arguments).encode())


class Lab:
    """A world with one machine whose events are written down with their second."""

    def __init__(self, unit_main: UnitMain = obedient, seed: int = 1) -> None:
        self.world = World(seed)
        self.machine = Machine(
            self.world.loop, self.world.streams, DeviceId("dev-1"), SimClock(self.world.loop), unit_main, programs
        )
        self.log: Log = []
        hooks = self.machine.hooks
        hooks.power = lambda on: self.log.append(("power", on))
        hooks.unit_started = lambda slot: self.log.append(("started", slot.value))
        hooks.unit_ended = lambda slot, code: self.log.append(("ended", slot.value, code))
        hooks.lock = lambda slot, taken: self.log.append(("lock", slot.value, taken))

    def run(self, story: Callable[[], Awaitable[None]]) -> None:
        async def told() -> None:
            await story()

        with self.world:
            self.world.run(told())

    @property
    def now(self) -> float:
        return self.world.now() / 1e9

    def process(self, name: str = "teller") -> Process:
        return spawn(self.world.loop, name, forever, lambda process, code: None)

    async def in_process(self, main: Callable[[Process], Awaitable[None]]) -> Process:
        """Run `main` as a process; returns when it has begun."""

        async def run(process: Process) -> int:
            await main(process)
            return 0

        process = spawn(self.world.loop, "told", run, lambda process, code: None)
        await asyncio.sleep(0)
        return process


async def forever(process: Process) -> int:
    while True:  # a timer keeps hold of it: a task that waits for what nobody else has is the collector's
        await asyncio.sleep(3600)


async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


def test_a_boot_takes_its_time_and_has_its_own_id() -> None:
    lab = Lab()

    async def story() -> None:
        lab.machine.boot()
        first = lab.machine.facts
        await sleep(14.9)
        assert not lab.machine.up
        await sleep(11.2)
        assert lab.log == [("power", True), ("started", "a")]
        lab.machine.boot()
        lab.machine.cut_power()
        lab.machine.cut_power()
        assert lab.log[2:] == [("power", False), ("ended", "a", -9)]
        lab.machine.boot(at_once=True)
        await sleep(1.1)
        assert lab.log[4:] == [("power", True), ("started", "a")]
        second = lab.machine.facts
        assert first.boot != second.boot
        assert first.machine_id == second.machine_id

    lab.run(story)


def test_a_power_cut_while_booting_ends_the_boot() -> None:
    lab = Lab()

    async def story() -> None:
        lab.machine.boot()
        await sleep(5)
        lab.machine.cut_power()
        await sleep(60)
        assert lab.log == [("power", True), ("power", False)]

    lab.run(story)


def test_restarts_come_after_five_seconds_and_end_after_five_starts() -> None:
    async def crashing(machine: Machine, slot: Slot, process: Process) -> int:
        times.append(lab.now)
        return 1

    times: list[float] = []
    lab = Lab(crashing)

    async def story() -> None:
        lab.machine.boot(at_once=True)
        await sleep(59)
        assert len(times) == 5
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(5.3 <= gap <= 6 for gap in gaps)
        services = SimServices(lab.machine, lab.process())
        assert await services.state(Slot.A) == Failing(5, gave_up=True)
        with pytest.raises(Refused):
            await services.start(Slot.A)
        await sleep(60)
        await services.start(Slot.A)
        await sleep(1.1)
        assert len(times) == 6

    lab.run(story)


def test_slow_failures_never_hit_the_limit() -> None:
    async def crashing(machine: Machine, slot: Slot, process: Process) -> int:
        await sleep(10)
        return 1

    lab = Lab(crashing)

    async def story() -> None:
        lab.machine.boot(at_once=True)
        await sleep(600)
        assert lab.log.count(("started", "a")) > 35

    lab.run(story)


def test_a_stop_kills_after_its_grace() -> None:
    async def deaf(machine: Machine, slot: Slot, process: Process) -> int:
        return await forever(process)

    lab = Lab(deaf)

    async def story() -> None:
        lab.machine.boot(at_once=True)
        await sleep(2)
        services = SimServices(lab.machine, lab.process())
        before = lab.now
        await asyncio.gather(services.stop(Slot.A), services.stop(Slot.A))
        assert lab.now - before == 10
        assert await services.state(Slot.A) == Stopped()
        assert lab.log[-1] == ("ended", "a", -9)

    lab.run(story)


def test_a_start_during_a_stop_comes_after_it() -> None:
    async def slow(machine: Machine, slot: Slot, process: Process) -> int:
        await process.stop.wait()
        await sleep(3)
        return 0

    lab = Lab(slow)

    async def story() -> None:
        lab.machine.boot(at_once=True)
        await sleep(2)
        services = SimServices(lab.machine, lab.process())
        stopping = asyncio.ensure_future(services.stop(Slot.A))
        await sleep(1)
        assert await services.state(Slot.A) == Running()
        await services.start(Slot.A)
        await stopping
        await sleep(1.1)
        assert lab.log == [("power", True), ("started", "a"), ("ended", "a", 0), ("started", "a")]

    lab.run(story)


def test_a_unit_survives_the_end_of_who_asked_for_its_start() -> None:
    lab = Lab()

    async def story() -> None:
        async def starter(process: Process) -> None:
            await SimServices(lab.machine, process).start(Slot.B)
            await forever(process)

        lab.machine.boot(at_once=True)
        process = await lab.in_process(starter)
        process.kill()
        await sleep(60)
        assert lab.log[1:] in [[("started", "a"), ("started", "b")], [("started", "b"), ("started", "a")]]
        running = lab.machine.process(Slot.B)
        assert running is not None
        assert running.alive

    lab.run(story)


def test_the_lock_passes_in_order_and_dies_with_its_holder() -> None:
    lab = Lab()

    async def story() -> None:
        got: list[str] = []

        def taking(name: str, slot: Slot) -> Callable[[Process], Awaitable[None]]:
            async def take(process: Process) -> None:
                lock = SimHostLock(lab.machine, slot, process)
                await lock.acquire()
                await lock.acquire()
                got.append(name)
                await forever(process)

            return take

        first = await lab.in_process(taking("first", Slot.A))
        second = await lab.in_process(taking("second", Slot.B))
        await lab.in_process(taking("third", Slot.A))
        await sleep(1)
        assert got == ["first"]
        second.kill()
        first.kill()
        await sleep(1)
        assert got == ["first", "third"]
        assert lab.log == [("lock", "a", True), ("lock", "a", False), ("lock", "a", True)]
        assert lab.machine.lock.holder is Slot.A

    lab.run(story)


def test_a_cancelled_waiter_and_a_release_leave_the_lock_to_others() -> None:
    lab = Lab()

    async def story() -> None:
        first = SimHostLock(lab.machine, Slot.A, lab.process())
        second = SimHostLock(lab.machine, Slot.B, lab.process())
        await first.acquire()
        waiting = asyncio.ensure_future(second.acquire())
        await sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        first.release()
        first.release()
        assert lab.machine.lock.holder is None
        await second.acquire()
        assert lab.machine.lock.holder is Slot.B

    lab.run(story)


def test_nobody_takes_the_lock_in_a_power_cut() -> None:
    async def locking(machine: Machine, slot: Slot, process: Process) -> int:
        await SimHostLock(machine, slot, process).acquire()
        return await forever(process)

    lab = Lab(locking)

    async def story() -> None:
        lab.machine.boot(at_once=True)
        await sleep(2)
        await SimServices(lab.machine, lab.process()).start(Slot.B)
        await sleep(2)
        lab.log.clear()
        lab.machine.cut_power()
        assert lab.log == [("power", False), ("lock", "a", False), ("ended", "a", -9), ("ended", "b", -9)]
        assert lab.machine.lock.holder is None

    lab.run(story)


@pytest.mark.parametrize(
    ("contents", "executable", "end"),
    [
        (b"says ", True, Exited(3, b"says one two")),
        (b"hangs", True, Overran()),
        (b"says", False, NotStartable("/usr/bin/program is not executable")),
        (None, False, NotStartable("/usr/bin/program does not exist")),
    ],
)
def test_programs(contents: bytes | None, executable: bool, end: ProgramEnd) -> None:
    lab = Lab()
    disk = lab.machine.disk
    disk.make_folder(PROGRAM.parent)
    if contents is not None:
        disk.write(PROGRAM, contents)
    if executable:
        disk.make_executable(PROGRAM)

    async def story() -> None:
        ended = await SimPrograms(lab.machine, lab.process()).run(PROGRAM, ("one", "two"), Duration.seconds(7))
        assert ended == end
        assert lab.now == (7 if isinstance(end, Overran) else 0)
        disk.write(PROGRAM, b"free to be written again")

    lab.run(story)


def test_a_running_program_is_busy_until_its_caller_dies() -> None:
    lab = Lab()
    disk = lab.machine.disk
    disk.make_folder(PROGRAM.parent)
    disk.write(PROGRAM, b"hangs")
    disk.make_executable(PROGRAM)

    async def story() -> None:
        async def runs(process: Process) -> None:
            await SimPrograms(lab.machine, process).run(PROGRAM, (), Duration.seconds(60))

        process = await lab.in_process(runs)
        with pytest.raises(Refused, match="running program"):
            disk.write(PROGRAM, b"x")
        process.kill()
        disk.write(PROGRAM, b"x")

    lab.run(story)


def test_the_power_can_go_in_the_middle_of_a_program() -> None:
    after: list[str] = []

    async def writer(machine: Machine, slot: Slot, process: Process) -> int:
        disk = SimDisk(machine.disk, process)
        try:
            await disk.write(PurePosixPath("/a"), b"a")
            await disk.write(PurePosixPath("/b"), b"b")
            after.append("wrote both")
        finally:
            after.append("finally")
        return 0

    lab = Lab(writer)

    def cut(operation: str, path: PurePosixPath) -> bool:
        if path == PurePosixPath("/b"):
            lab.machine.cut_power()
            return False
        return True

    async def story() -> None:
        lab.machine.disk.before_change = cut
        lab.machine.boot(at_once=True)
        await sleep(5)
        assert after == []
        assert not lab.machine.disk.exists(PurePosixPath("/b"))
        assert lab.log[-1] == ("ended", "a", -9)

    lab.run(story)


def test_the_same_seed_gives_the_same_machine() -> None:
    def told(seed: int) -> tuple[str, float]:
        lab = Lab(seed=seed)

        async def story() -> None:
            lab.machine.boot()
            while not lab.log[1:]:
                await sleep(0.01)

        lab.run(story)
        return lab.machine.boot_id, lab.now

    assert told(1) == told(1)
    assert told(1) != told(2)
