"""One device of plain processes with the production agent on it, and the journal of all that is seen of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from agent.linux.podman import container_name
from fleet.capabilities.clock import Clock
from fleet.contracts.errors import NotFound
from fleet.contracts.ids import DeploymentName, DeviceId, Release, Slot
from fleet.contracts.time import ZERO, Duration
from harness.faults import DamageFile
from harness.targets import local_mount
from harness.targets.local_disk import DiskWatch
from harness.targets.local_files import damage
from harness.targets.local_lock_watch import LockWatch
from harness.targets.local_parts import CLOCK_OFFSET
from harness.targets.standin.events import BoxEnded, BoxStarted, MachineEvent, MachineUp, UnitEnded, UnitStarted
from harness.targets.standin.machine import StandInMachine
from sim.journal import (
    AgentEnded,
    AgentStarted,
    ContainerCrashed,
    ContainerEnded,
    ContainerStarted,
    FileDamaged,
    Journal,
    PowerCut,
    PowerRestored,
)

_LOOK_AGAIN = Duration.millis(10)
"""In real time: how soon a process that is still the boot guard is looked at again."""


class LocalDevice:
    """A machine below `root`, made with power off.

    Args:
        real: a clock that is not paced, for what no pace makes faster.
        environment: what its agents get besides what the stand-in machine gives them.
    """

    def __init__(
        self,
        device: DeviceId,
        root: Path,
        pace: float,
        journal: Journal,
        clock: Clock,
        real: Clock,
        environment: Mapping[str, str],
    ) -> None:
        self.device = device
        self.root = root
        self._journal = journal
        self._now = clock.monotonic
        self._real = real
        self._machine = StandInMachine(root, pace, self._happened, environment)
        self._disk = DiskWatch(device, root, journal, self._now)
        self._locks = LockWatch(device, root, journal, self._now)
        self._silences = 0
        self._wrong_by = ZERO
        self._naming: dict[Slot, asyncio.Task[None]] = {}

    @property
    def powered(self) -> bool:
        """Whether it is on."""
        return self._machine.powered

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes in its slots."""
        return tuple(self._machine.running.values())

    async def start(self) -> None:
        """First boot. Raises: Unavailable when it does not come up."""
        self._disk.look()
        await self._machine.start()

    async def stop(self) -> None:
        """End of the run. Nothing of it runs when this returns."""
        await self._machine.stop()
        for task in self._naming.values():
            task.cancel()
        await asyncio.gather(*self._naming.values(), return_exceptions=True)

    async def cut_power(self) -> None:
        """Raises: NotFound when it is off already."""
        if not self._machine.powered:
            raise NotFound(f"{self.device} has no power to cut")
        self._journal.record(PowerCut(self._now(), self.device))
        await self._machine.cut_power()

    async def restore_power(self) -> None:
        """Raises: Unavailable when it does not come up."""
        self._journal.record(PowerRestored(self._now(), self.device))
        await self._machine.boot()
        if self._silences:
            await self._machine.silence_engine(True)

    async def kill_agent(self, slot: Slot) -> None:
        """kill -9. Raises: NotFound when no process is in the slot."""
        if slot not in self._machine.running:
            raise NotFound(f"no process is in slot {slot} of {self.device}")
        await self._machine.kill_unit(slot)

    async def crash_container(self, deployment: DeploymentName, container: DeploymentName) -> None:
        """kill -9 of what runs in it. Raises: NotFound when it does not run."""
        if not self._machine.powered:
            raise NotFound(f"{self.device} has no power")
        await self._machine.crash(container_name(deployment, container))
        # Not before: one that did not run did not crash. The agent looks at its containers much later than now.
        self._journal.record(ContainerCrashed(self._now(), self.device, deployment, container))

    async def silence_engine(self) -> None:
        """Its container engine answers nobody, until `let_engine_answer`; also not after a boot."""
        self._silences += 1
        if self._machine.powered:
            await self._machine.silence_engine(True)

    async def let_engine_answer(self) -> None:
        """End one silence."""
        self._silences -= 1
        if not self._silences and self._machine.powered:
            await self._machine.silence_engine(False)

    def processes(self) -> list[int]:
        """The pids of all that runs on it."""
        return self._machine.processes()

    def shift_clock(self, by: Duration) -> None:
        """Make its time of day wrong by so much more."""
        self._wrong_by = Duration(self._wrong_by + by)
        path = self.root / CLOCK_OFFSET.relative_to("/")
        temporary = path.with_suffix(".new")
        temporary.write_text(str(int(self._wrong_by)), "ascii")
        temporary.rename(path)

    def damage(self, fault: DamageFile, release: Release | None) -> None:
        """See `local_files.damage`."""
        damage(self.root, fault, release, self._disk.current, self._damaging)

    def _damaging(self, place: PurePosixPath) -> None:
        self._journal.record(FileDamaged(self._now(), self.device, str(place)))

    def fill_disk(self, leave: int) -> None:
        """So many bytes are left. Raises: Unavailable when its disk was not made for it."""
        local_mount.leave_free(self.root, leave)

    def empty_disk(self) -> None:
        """There is room again."""
        local_mount.resize(self.root, local_mount.ROOMY)

    def look(self) -> None:
        """Record what has changed on its disk."""
        self._disk.look()

    def look_at_locks(self, held: frozenset[tuple[int, int]]) -> None:
        """Record who has taken or left its host lock. `held` is what `local_locks.held` answered."""
        self._locks.look(held, self._machine.running)

    def _happened(self, event: MachineEvent) -> None:
        match event:
            case MachineUp():
                pass
            case UnitStarted(slot, pid):
                self._naming[slot] = asyncio.create_task(self._name(slot, pid))
            case UnitEnded(slot, _, code):
                self._ended(slot, code)
                if code == -signal.SIGKILL:
                    self._disk.inspect()
            case BoxStarted(deployment, name, fingerprint):
                started = ContainerStarted(self._now(), self.device, deployment, name, fingerprint)
                self._journal.record(started)
            case BoxEnded(deployment, name):
                self._journal.record(ContainerEnded(self._now(), self.device, deployment, name))
        self._disk.look()

    def _ended(self, slot: Slot, code: int) -> None:
        self._locks.left(slot)
        self._journal.record(AgentEnded(self._now(), self.device, slot, code))

    async def _name(self, slot: Slot, pid: int) -> None:
        """Record which release a unit runs, once its boot guard has become one."""
        while self._machine.running.get(slot) == pid:
            release = self._disk.release_in(_arguments(pid))
            if release is not None:
                self._journal.record(AgentStarted(self._now(), self.device, slot, release))
                return
            await self._real.sleep(_LOOK_AGAIN)


def _arguments(pid: int) -> tuple[str, ...]:
    """The command line of a process; empty when it is gone."""
    try:
        return tuple(Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0"))
    except OSError:
        return ()
