"""Taking and leaving the host lock is seen in the order in which the kernel lets it happen."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.contracts.ids import DeviceId, Slot
from fleet.contracts.time import Instant
from harness.targets import local_lock_watch
from harness.targets.local_lock_watch import LockWatch
from sim.journal import Event, Journal, LockLeft, LockTaken

DEVICE = DeviceId("dev-1")
A, B = Slot.A, Slot.B
TAKEN_A, TAKEN_B = LockTaken(Instant(1), DEVICE, A), LockTaken(Instant(1), DEVICE, B)
LEFT_A = LockLeft(Instant(1), DEVICE, A)


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def watch(tmp_path: Path, events: list[Event], monkeypatch: pytest.MonkeyPatch) -> LockWatch:
    """A device whose lock file is inode 7, or 8 after it was replaced."""
    monkeypatch.setattr(local_lock_watch, "is_open_as", lambda path, pid, inode: inode in (7, 8))
    journal = Journal()
    journal.subscribe_all(events.append)
    return LockWatch(DEVICE, tmp_path, journal, lambda: Instant(1))


def test_the_lock_passes_from_one_slot_to_the_other(watch: LockWatch, events: list[Event]) -> None:
    watch.look(frozenset({(100, 7)}), {A: 100, B: 200})
    watch.look(frozenset({(100, 7)}), {A: 100, B: 200})
    watch.look(frozenset({(200, 7)}), {A: 100, B: 200})
    assert events == [TAKEN_A, LEFT_A, TAKEN_B]


def test_an_end_leaves_the_lock_once(watch: LockWatch, events: list[Event]) -> None:
    watch.look(frozenset({(100, 7)}), {A: 100})
    watch.left(A)
    watch.left(A)
    watch.look(frozenset({(200, 7)}), {B: 200})
    assert events == [TAKEN_A, LEFT_A, TAKEN_B]


def test_two_holders_of_two_files_of_one_name_are_both_seen(watch: LockWatch, events: list[Event]) -> None:
    watch.look(frozenset({(100, 7)}), {A: 100, B: 200})
    watch.look(frozenset({(100, 7), (200, 8)}), {A: 100, B: 200})
    assert events == [TAKEN_A, TAKEN_B]


def test_other_files_and_other_processes_do_not_count(watch: LockWatch, events: list[Event]) -> None:
    watch.look(frozenset({(100, 99), (300, 7)}), {A: 100})
    assert events == []
