"""Which slots of a device hold its host lock, seen from outside, and the events of taking and leaving it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent import paths
from fleet.contracts.ids import DeviceId, Slot
from fleet.contracts.time import Instant
from harness.targets.local_locks import is_open_as
from sim.journal import Journal, LockLeft, LockTaken


@dataclass(slots=True)
class LockWatch:
    """Compares the kernel's table of locks with the processes in the slots. Normal is that one slot holds the lock."""

    device: DeviceId
    root: Path
    journal: Journal
    now: Callable[[], Instant]
    _holding: list[Slot] = field(default_factory=list)
    _is_lock: dict[tuple[int, int], bool] = field(default_factory=dict)

    def look(self, held: frozenset[tuple[int, int]], running: Mapping[Slot, int]) -> None:
        """Record what changed since the last look. `held` is what `local_locks.held` answered."""
        holding = [slot for slot in Slot if slot in running and self._holds(running[slot], held)]
        for slot in [slot for slot in self._holding if slot not in holding]:
            self.left(slot)
        for slot in [slot for slot in holding if slot not in self._holding]:
            self._holding.append(slot)
            self.journal.record(LockTaken(self.now(), self.device, slot))

    def left(self, slot: Slot) -> None:
        """The process in the slot is gone, and so is its lock. Nothing happens when it held none."""
        if slot in self._holding:
            self._holding.remove(slot)
            self.journal.record(LockLeft(self.now(), self.device, slot))

    def _holds(self, pid: int, held: frozenset[tuple[int, int]]) -> bool:
        return any(self._is_host_lock(*pair) for pair in held if pair[0] == pid)

    def _is_host_lock(self, pid: int, inode: int) -> bool:
        """A release locks other files, too, while it starts."""
        known = self._is_lock.get((pid, inode))
        if known is None:
            known = is_open_as(self.root / paths.LOCK.relative_to("/"), pid, inode)
            self._is_lock[pid, inode] = known
        return known
