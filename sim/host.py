"""A virtual machine: power, boots, a service manager with two units, the host lock, programs that run to their end.

The machine belongs to the world and not to any program on it: its timers are the kernel's own, so that a unit's
process, a pending restart or a boot survives whichever process asked for it. What can be observed is told to `Hooks`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any, Final, assert_never
from uuid import UUID

from fleet.capabilities.clock import Clock
from fleet.capabilities.host import (
    Exited,
    Failing,
    HostFacts,
    NotStartable,
    Overran,
    ProgramEnd,
    Running,
    Stopped,
    UnitState,
)
from fleet.contracts.errors import FleetError, Refused
from fleet.contracts.ids import Architecture, BootId, DeviceId, Slot
from fleet.contracts.time import Duration
from sim.disk import DiskImage, SimDisk, Stream, gone
from sim.kernel import Call
from sim.loop import SimLoop
from sim.process import Process, spawn
from sim.random import Random, Streams

RESTART_AFTER: Final = Duration.seconds(5)
START_LIMIT: Final = 5
"""More starts than this within `START_WINDOW` are refused; a unit that restarts by itself is given up then."""
START_WINDOW: Final = Duration.seconds(60)
STOP_GRACE: Final = Duration.seconds(10)
START_TAKES: Final = (Duration.millis(300), Duration.seconds(1))
BOOT_TAKES: Final = (Duration.seconds(15), Duration.seconds(25))
OUTPUT_LIMIT: Final = 64 * 1024
CLEAN_SIGNALS: Final = frozenset({-1, -2, -13, -15})
"""Death by SIGHUP, SIGINT, SIGPIPE or SIGTERM is a clean exit to the service manager."""

UnitMain = Callable[["Machine", Slot, Process], Coroutine[Any, Any, int]]
"""What a unit runs: the boot guard and then the release it picked. The answer is the exit code."""
RunProgram = Callable[["Machine", PurePosixPath, bytes, tuple[str, ...]], Awaitable[Exited]]
"""How a program behaves, told by its file's contents: supplied by whoever knows what releases are."""


def _nothing(*_: object) -> None:
    """Nobody listens."""


@dataclass(slots=True)
class Hooks:
    """Who is told what happens on a machine, at the instant it does. None of them may raise."""

    power: Callable[[bool], None] = _nothing
    """The machine boots (True), or lost its power (False), before any consequence of it."""
    unit_started: Callable[[Slot], None] = _nothing
    unit_ended: Callable[[Slot, int], None] = _nothing
    """With the exit code; negative is the signal that ended it."""
    lock: Callable[[Slot, bool], None] = _nothing
    """The host lock was taken (True) or left (False) by the instance in a slot."""


# --- the service manager -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Inactive:
    """Not running, and not meant to be."""


@dataclass(frozen=True, slots=True)
class _Starting:
    """The process will be there when `call` comes."""

    call: Call


@dataclass(frozen=True, slots=True)
class _Up:
    """The process runs."""

    process: Process


@dataclass(frozen=True, slots=True)
class _Ending:
    """The process was told to end and will be killed by `kill`; then the unit starts again if `again`."""

    process: Process
    kill: Call
    again: bool


@dataclass(frozen=True, slots=True)
class _Restarting:
    """The process ended badly; the unit starts again when `call` comes."""

    call: Call


@dataclass(frozen=True, slots=True)
class _GivenUp:
    """The start limit was hit."""


_Phase = _Inactive | _Starting | _Up | _Ending | _Restarting | _GivenUp


class _Unit:
    """One slot's unit: `Restart=on-failure` with a start limit, as systemd does it."""

    def __init__(self, machine: Machine, slot: Slot) -> None:
        self._machine = machine
        self._slot = slot
        self._phase: _Phase = _Inactive()
        self._exits = 0
        self._starts: list[int] = []
        self._stopped: list[asyncio.Future[None]] = []

    @property
    def process(self) -> Process | None:
        """The main process, if there is one."""
        match self._phase:
            case _Up(process) | _Ending(process):
                return process
            case _:
                return None

    @property
    def state(self) -> UnitState:
        match self._phase:
            case _Inactive():
                return Stopped()
            case _Starting() | _Up() | _Ending():
                return Running()
            case _Restarting():
                return Failing(self._exits, gave_up=False)
            case _GivenUp():
                return Failing(self._exits, gave_up=True)
            case _:
                assert_never(self._phase)

    def start(self) -> None:
        """Raises: Refused when the start limit is hit."""
        match self._phase:
            case _Starting() | _Up() | _Restarting():
                return
            case _Ending(process, kill):
                self._phase = _Ending(process, kill, again=True)
            case _Inactive() | _GivenUp():
                self._begin()
            case _:
                assert_never(self._phase)

    async def stop(self) -> None:
        """Returns when the process is gone."""
        match self._phase:
            case _Starting(call) | _Restarting(call):
                call.cancel()
                self._phase = _Inactive()
            case _Up(process):
                kill = self._machine.kernel.after(STOP_GRACE, process.kill)
                self._phase = _Ending(process, kill, again=False)
                process.terminate()
            case _Ending(process, kill):
                self._phase = _Ending(process, kill, again=False)
            case _Inactive() | _GivenUp():
                self._phase = _Inactive()
            case _:
                assert_never(self._phase)
        if isinstance(self._phase, _Ending):
            done: asyncio.Future[None] = self._machine.loop.create_future()
            self._stopped.append(done)
            await done
        self._forgive()

    def power_off(self) -> None:
        """Everything ends at once, unannounced."""
        process = self.process
        match self._phase:
            case _Starting(call) | _Restarting(call) | _Ending(kill=call):
                call.cancel()
            case _:
                pass
        self._phase = _Inactive()
        self._stopped.clear()
        self._forgive()
        if process is not None:
            process.kill()

    def _forgive(self) -> None:
        self._exits = 0
        self._starts.clear()

    def _begin(self) -> None:
        now = self._machine.kernel.now
        while self._starts and self._starts[0] <= now - START_WINDOW:
            del self._starts[0]
        if len(self._starts) >= START_LIMIT:
            self._phase = _GivenUp()
            raise Refused(f"unit {self._slot.value} was started {START_LIMIT} times within {START_WINDOW}")
        self._starts.append(now)
        delay = self._machine.draw(*START_TAKES)
        self._phase = _Starting(self._machine.kernel.after(delay, self._launch))

    def _launch(self) -> None:
        machine, slot = self._machine, self._slot
        name = f"{machine.name}/agent@{slot.value}"
        process = spawn(machine.loop, name, partial(machine.unit_main, machine, slot), self._ended)
        self._phase = _Up(process)
        machine.hooks.unit_started(slot)

    def _ended(self, process: Process, code: int) -> None:
        self._machine.hooks.unit_ended(self._slot, code)
        if process is not self.process:
            return
        if isinstance(self._phase, _Ending):
            self._phase.kill.cancel()
            again = self._phase.again
            self._phase = _Inactive()
            self._tell_stopped()
            if again:
                self._start_again()
        elif code == 0 or code in CLEAN_SIGNALS:
            self._phase = _Inactive()
        else:
            self._exits += 1
            self._phase = _Restarting(self._machine.kernel.after(RESTART_AFTER, self._start_again))

    def _start_again(self) -> None:
        try:
            self._begin()
        except Refused:
            return  # `_begin` has left the unit as given up, which is what its state says from now on.

    def _tell_stopped(self) -> None:
        for waiter in self._stopped:
            if not waiter.done():
                waiter.set_result(None)
        self._stopped.clear()


# --- the host lock -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    """A process that holds the lock or waits for it."""

    slot: Slot
    granted: asyncio.Future[None]


class _LockFile:
    """The lock of a machine, with the waiters in their order."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._holder: _Claim | None = None
        self._waiting: list[_Claim] = []

    @property
    def holder(self) -> Slot | None:
        return None if self._holder is None else self._holder.slot

    def claim(self, claim: _Claim) -> None:
        self._waiting.append(claim)
        self._grant()

    def leave(self, claim: _Claim) -> None:
        if claim is self._holder:
            self._holder = None
            self._machine.hooks.lock(claim.slot, False)
            self._grant()
        elif claim in self._waiting:
            self._waiting.remove(claim)

    def forget_waiting(self) -> None:
        """Nobody gets the lock when its holder dies next: all die together."""
        self._waiting.clear()

    def _grant(self) -> None:
        if self._holder is None and self._waiting:
            self._holder = claim = self._waiting.pop(0)
            self._machine.hooks.lock(claim.slot, True)
            if not claim.granted.done():
                claim.granted.set_result(None)


class SimHostLock:
    """The `HostLock` port of one process. The world drops it when the process dies, as a kernel does."""

    def __init__(self, machine: Machine, slot: Slot, process: Process) -> None:
        self._machine = machine
        self._slot = slot
        self._process = process
        self._claim: _Claim | None = None
        process.on_death(self.release)

    async def acquire(self) -> None:
        """See `HostLock.acquire`."""
        if not self._process.alive:
            await gone()
        if self._claim is None:
            self._claim = _Claim(self._slot, self._machine.loop.create_future())
            self._machine.lock.claim(self._claim)
        try:
            await asyncio.shield(self._claim.granted)
        except asyncio.CancelledError:
            self.release()
            raise

    def release(self) -> None:
        """See `HostLock.release`."""
        claim, self._claim = self._claim, None
        if claim is not None:
            self._machine.lock.leave(claim)


# --- the machine -------------------------------------------------------------------------------------


class Machine:
    """One virtual Raspberry Pi. It is off when made: call `boot`.

    Args:
        clock: the machine's own clock, wall time included.
        unit_main: what a unit runs.
        run_program: how a program that is run to its end behaves.
        node: its name on the network; its device id when not given.
    """

    def __init__(
        self,
        loop: SimLoop,
        streams: Streams,
        name: DeviceId,
        clock: Clock,
        unit_main: UnitMain,
        run_program: RunProgram,
        *,
        disk: DiskImage | None = None,
        node: str = "",
        architecture: Architecture = Architecture.AARCH64,
    ) -> None:
        self.loop = loop
        self.kernel = loop.kernel
        self.name = name
        self.node = node or name
        self.clock = clock
        self.unit_main = unit_main
        self.run_program = run_program
        self.architecture = architecture
        self.disk = DiskImage() if disk is None else disk
        self.hooks = Hooks()
        self.lock = _LockFile(self)
        self.machine_id = sha256(f"machine {name}".encode()).hexdigest()[:32]
        self.powered = False
        self.up = False
        """Whether it has booted: between `boot` and this, nothing runs yet."""
        self.boots = 0
        self.slowness = 1
        """How many times as long everything takes that takes processor time."""
        self._streams = streams
        self._units = {slot: _Unit(self, slot) for slot in Slot}
        self._booting: Call | None = None
        self._at_power_cut: list[Callable[[], None]] = []
        self.boot_id = BootId("off")

    def draw(self, low: Duration, high: Duration) -> Duration:
        """A length in [low, high] from this machine's own stream, times its slowness."""
        return Duration(self._stream("host").randint(low, high) * self.slowness)

    @property
    def facts(self) -> HostFacts:
        """What programs on it see of it, at this boot."""
        return HostFacts(
            machine_id=self.machine_id,
            boot=self.boot_id,
            hardware="Raspberry Pi 4 Model B (virtual)",
            operating_system="Virtual Linux 1",
            architecture=self.architecture,
        )

    def process(self, slot: Slot) -> Process | None:
        """The process of a slot's unit, if it runs."""
        return self._units[slot].process

    def unit(self, slot: Slot) -> _Unit:
        """The unit of a slot."""
        return self._units[slot]

    def at_power_cut(self, callback: Callable[[], None]) -> None:
        """Call back at each power cut, after all processes are gone and before the disk settles."""
        self._at_power_cut.append(callback)

    def boot(self, *, at_once: bool = False) -> None:
        """Restore power: the machine is up after its boot time (`at_once`: in this instant).

        Nothing happens when it is on.
        """
        if self.powered:
            return
        self.powered = True
        self.boots += 1
        chance = self._stream("host")
        self.boot_id = BootId(str(UUID(int=chance.bits() << 64 | chance.bits())))
        self.hooks.power(True)
        delay = Duration(0) if at_once else self.draw(*BOOT_TAKES)
        self._booting = self.kernel.after(delay, self._booted)

    def cut_power(self, chance: Stream | None = None) -> None:
        """Everything that runs is gone at once, and so is what was not synced, maybe: `chance` decides, if given.

        Nothing happens when it is off.
        """
        if not self.powered:
            return
        self.powered = self.up = False
        self.hooks.power(False)
        if self._booting is not None:
            self._booting.cancel()
        self.lock.forget_waiting()
        for slot in Slot:
            self._units[slot].power_off()
        for callback in self._at_power_cut:
            callback()
        self.disk.power_cut(self._stream("disk") if chance is None else chance)

    def _stream(self, purpose: str) -> Random:
        """Made when first drawn from: most machines of a large fleet never lose power."""
        return self._streams.stream(f"{purpose}/{self.name}")

    def _booted(self) -> None:
        self.up = True
        self._units[Slot.A].start()


class SimServices:
    """The `Services` port of one process on a machine."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self._machine = machine
        self._process = process

    async def start(self, slot: Slot) -> None:
        """See `Services.start`."""
        await self._fence()
        self._machine.unit(slot).start()

    async def stop(self, slot: Slot) -> None:
        """See `Services.stop`."""
        await self._fence()
        await self._machine.unit(slot).stop()

    async def state(self, slot: Slot) -> UnitState:
        """See `Services.state`."""
        await self._fence()
        return self._machine.unit(slot).state

    async def _fence(self) -> None:
        if not self._process.alive:
            await gone()


class SimPrograms:
    """The `Programs` port of one process on a machine. Its programs end with it."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self._machine = machine
        self._process = process
        self._running: list[Callable[[], None]] = []
        process.on_death(self._all_ended)

    async def run(self, program: PurePosixPath, arguments: tuple[str, ...], deadline: Duration) -> ProgramEnd:
        """See `Programs.run`."""
        if not self._process.alive:
            await gone()
        disk = self._machine.disk
        try:
            disk.check_readable(program)
            contents = disk.read(program)
            if not disk.is_executable(program):
                return NotStartable(f"{program} is not executable")
            ended = disk.mark_running(program)
        except FleetError as error:
            return NotStartable(str(error))
        self._running.append(ended)
        try:
            async with self._machine.clock.timeout(deadline):
                end = await self._machine.run_program(self._machine, program, contents, arguments)
            return Exited(end.code, end.output[:OUTPUT_LIMIT])
        except TimeoutError:
            return Overran()
        finally:
            self._running.remove(ended)
            ended()

    def _all_ended(self) -> None:
        for ended in self._running:
            ended()


def disk_of(machine: Machine, process: Process) -> SimDisk:
    """The `Disk` port of one process on a machine."""
    return SimDisk(machine.disk, process)
