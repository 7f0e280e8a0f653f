"""The virtual disk: what a power cut may leave, what it must leave, and what makes it refuse."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import PurePosixPath

import pytest

from fleet.contracts.errors import Conflict, DiskFault, NoSpace, NotFound, Refused
from fleet.contracts.time import Duration
from sim.clock import SimClock
from sim.disk import DiskImage, PowerLost, SimDisk, Trouble
from sim.world import World

A = PurePosixPath("/usr/bin/a")
B = PurePosixPath("/usr/bin/b")
FOLDER = A.parent
SEEDS = range(400)


def image() -> DiskImage:
    disk = DiskImage()
    disk.make_folder(FOLDER)
    disk.sync_all()
    return disk


def content(disk: DiskImage, path: PurePosixPath) -> bytes | None:
    return disk.read(path) if disk.exists(path) else None


def test_what_was_synced_survives_every_power_cut() -> None:
    for seed in SEEDS:
        disk = image()
        disk.write(A, b"kept")
        disk.make_executable(A)
        disk.sync(A)
        disk.sync_folder(FOLDER)
        disk.power_cut(random.Random(seed))
        assert disk.read(A) == b"kept"
        assert disk.is_executable(A)


def test_contents_without_sync_are_kept_lost_or_torn() -> None:
    seen = set()
    for seed in SEEDS:
        disk = image()
        disk.write(A, b"12345678")
        disk.sync_folder(FOLDER)
        disk.power_cut(random.Random(seed))
        seen.add(content(disk, A))
    assert b"12345678" in seen
    assert b"" in seen
    assert b"1234" in seen
    assert b"1234\0\0\0\0" in seen
    assert None not in seen


def test_a_name_without_folder_sync_may_be_lost() -> None:
    seen = set()
    for seed in SEEDS:
        disk = image()
        disk.write(A, b"data")
        disk.sync(A)
        disk.power_cut(random.Random(seed))
        seen.add(content(disk, A))
    assert seen == {None, b"data"}


def test_what_is_called_durable_is_what_every_power_cut_leaves() -> None:
    told = []
    for upto in range(6):
        left = set()
        for seed in SEEDS:
            disk = image()
            steps: tuple[Callable[[], None], ...] = (
                partial(disk.write, B, b"new"),
                partial(disk.make_executable, B),
                partial(disk.sync, B),
                partial(disk.rename, B, A),
                partial(disk.sync_folder, FOLDER),
            )
            for step in steps[:upto]:
                step()
            durable = disk.exists(A) and disk.is_durable(A)
            disk.power_cut(random.Random(seed))
            left.add((content(disk, A), disk.exists(A) and disk.is_executable(A)))
        told.append(durable)
        assert not durable or left == {(b"new", True)}
    assert told == [False, False, False, False, False, True]


def test_an_atomic_write_shows_the_old_or_the_new() -> None:
    for seed in SEEDS:
        disk = image()
        disk.write(A, b"old")
        disk.sync(A)
        disk.sync_folder(FOLDER)
        disk.write(B, b"new")
        disk.sync(B)
        disk.rename(B, A)
        disk.power_cut(random.Random(seed))
        assert disk.read(A) in (b"old", b"new")


def test_a_rename_without_contents_synced_can_destroy() -> None:
    seen = set()
    for seed in SEEDS:
        disk = image()
        disk.write(A, b"old")
        disk.sync_all()
        disk.write(B, b"new")
        disk.rename(B, A)
        disk.sync_folder(FOLDER)
        disk.power_cut(random.Random(seed))
        seen.add(disk.read(A))
    assert b"" in seen
    assert b"\0\0\0" in seen


def test_a_renamed_durable_file_is_never_lost_altogether() -> None:
    ends = set()
    for seed in SEEDS:
        disk = image()
        disk.write(A, b"only copy")
        disk.sync_all()
        disk.rename(A, B)
        disk.power_cut(random.Random(seed))
        ends.add((disk.exists(A), disk.exists(B)))
    assert ends == {(True, False), (False, True), (True, True)}


def test_the_swapped_link_always_leads_somewhere() -> None:
    for seed in SEEDS:
        disk = image()
        disk.symlink(PurePosixPath("one"), A)
        disk.sync_all()
        disk.symlink(PurePosixPath("two"), B)
        disk.rename(B, A)
        disk.power_cut(random.Random(seed))
        assert disk.read_link(A) in (PurePosixPath("one"), PurePosixPath("two"))


def test_a_removed_folder_comes_back_whole_or_is_gone() -> None:
    seen = set()
    for seed in SEEDS:
        disk = image()
        disk.make_folder(FOLDER / "deep")
        disk.write(FOLDER / "deep" / "x", b"x")
        disk.sync_all()
        disk.remove_folder(FOLDER)
        disk.power_cut(random.Random(seed))
        seen.add((disk.exists(FOLDER), disk.exists(FOLDER / "deep" / "x")))
    assert seen == {(True, True), (False, False)}


def test_a_moved_folder_has_one_name_after_a_power_cut() -> None:
    for seed in SEEDS:
        disk = image()
        disk.make_folder(FOLDER / "old")
        disk.write(FOLDER / "old" / "x", b"x")
        disk.sync_all()
        disk.rename(FOLDER / "old", FOLDER / "new")
        disk.power_cut(random.Random(seed))
        (name,) = disk.names(FOLDER)
        assert disk.read(FOLDER / name / "x") == b"x"


def test_the_same_seed_leaves_the_same_disk() -> None:
    def left(seed: int) -> list[tuple[str, bytes]]:
        disk = image()
        for number in range(20):
            disk.write(FOLDER / f"f{number}", b"x" * number)
        disk.power_cut(random.Random(seed))
        return [(name, disk.read(FOLDER / name)) for name in disk.names(FOLDER)]

    assert left(5) == left(5)
    assert left(5) != left(6)


def test_what_is_held_in_memory_is_empty_after_a_power_cut() -> None:
    disk = image()
    disk.make_folder(PurePosixPath("/run/fleet-agent"))
    disk.write(PurePosixPath("/run/fleet-agent/leader.lock"), b"")
    disk.sync_all()
    disk.power_cut(random.Random(1))
    assert disk.names(PurePosixPath("/run")) == ()


def test_a_full_disk_takes_what_fits_and_says_so() -> None:
    disk = DiskImage(capacity=10)
    disk.write(PurePosixPath("/a"), b"123456")
    with pytest.raises(NoSpace) as caught:
        disk.write(PurePosixPath("/b"), b"123456")
    assert (caught.value.needed, caught.value.free) == (6, 4)
    assert disk.read(PurePosixPath("/b")) == b"1234"
    assert disk.free() == 0
    disk.unlink(PurePosixPath("/b"))
    assert disk.free() == 4


def test_room_is_counted_through_replace_remove_and_power_cut() -> None:
    disk = DiskImage(capacity=100)
    disk.make_folder(PurePosixPath("/d"))
    disk.write(PurePosixPath("/d/a"), b"x" * 30)
    disk.write(PurePosixPath("/d/b"), b"y" * 20)
    disk.rename(PurePosixPath("/d/b"), PurePosixPath("/d/a"))
    assert disk.free() == 80
    disk.sync_all()
    disk.power_cut(random.Random(3))
    assert disk.free() == 80
    disk.remove_folder(PurePosixPath("/d"))
    assert disk.free() == 100


def test_a_running_program_is_not_written_but_may_be_replaced() -> None:
    disk = image()
    disk.write(A, b"program")
    ended = disk.mark_running(A)
    with pytest.raises(Refused, match="running program"):
        disk.write(A, b"other")
    assert disk.read(A) == b"program"
    disk.write(B, b"next")
    disk.rename(B, A)
    disk.write(A, b"free")
    ended()
    ended()
    assert disk.read(A) == b"free"


def test_the_watcher_hears_of_names_links_and_contents_in_its_folders() -> None:
    disk = image()
    calls: list[tuple[str, ...]] = []
    disk.on_names_changed((FOLDER,), lambda: calls.append(disk.names(FOLDER)))
    disk.make_folder(PurePosixPath("/elsewhere"))
    disk.write(PurePosixPath("/elsewhere/x"), b"")
    assert calls == []
    disk.write(A, b"1")
    disk.symlink(A, B)
    disk.sync(A)
    disk.rename(A, FOLDER / "c")
    disk.unlink(B)
    assert calls == [("a",), ("a", "b"), ("b", "c"), ("c",)]
    disk.power_cut(random.Random(0))
    assert len(calls) == 5


def test_the_digest_follows_the_contents() -> None:
    disk = image()
    disk.write(A, b"one")
    disk.symlink(A, B)
    assert disk.sha256(B) == sha256(b"one").hexdigest()
    disk.write(A, b"two", offset=3)
    assert disk.sha256(A) == sha256(b"onetwo").hexdigest()


def test_links_resolve_relative_absolute_and_upwards() -> None:
    disk = image()
    disk.write(A, b"data")
    disk.make_folder(PurePosixPath("/usr/local/bin"))
    disk.symlink(PurePosixPath("../../bin/a"), PurePosixPath("/usr/local/bin/x"))
    disk.symlink(PurePosixPath("/usr/local/bin/x"), PurePosixPath("/y"))
    assert disk.read(PurePosixPath("/y")) == b"data"
    disk.symlink(PurePosixPath("/loop"), PurePosixPath("/loop2"))
    with pytest.raises(NotFound):
        disk.read(PurePosixPath("/loop2"))


def test_the_power_can_go_at_any_operation() -> None:
    disk = image()
    disk.before_change = lambda operation, path: operation != "rename"
    disk.write(A, b"x")
    with pytest.raises(PowerLost):
        disk.rename(A, B)
    assert disk.names(FOLDER) == ("a",)


def test_images_of_containers_take_room() -> None:
    disk = DiskImage(capacity=10)
    disk.occupy(8)
    with pytest.raises(NoSpace):
        disk.occupy(3)
    disk.vacate(8)
    assert disk.free() == 10


def test_the_later_of_two_unsynced_writes_may_be_the_one_that_stays() -> None:
    """Between two files, and between the beginning and the end of one."""
    files, halves = set(), set()
    for seed in SEEDS:
        disk = image()
        for path in (A, B):
            disk.write(path, b"old!")
            disk.sync(path)
        disk.sync_folder(FOLDER)
        disk.write(A, b"new.")
        disk.write(B, b"new.")
        disk.power_cut(random.Random(seed))
        files.add((disk.read(A) == b"new.", disk.read(B) == b"new."))
        halves.add(disk.read(A))
    assert files == {(False, False), (False, True), (True, False), (True, True)}
    assert {b"old!", b"new.", b"ne", b"ne\0\0"} <= halves


def test_what_cannot_be_read_is_seen_by_whoever_inspects() -> None:
    disk = image()
    disk.write(A, b"x")
    disk.symlink(A, PurePosixPath("/current"))
    disk.trouble = Trouble(unreadable=(FOLDER,))
    for path in (A, FOLDER, PurePosixPath("/current")):
        with pytest.raises(DiskFault):
            disk.check_readable(path)
    disk.check_readable(PurePosixPath("/"))
    assert disk.read(A) == b"x"
    disk.trouble = Trouble(unreadable=(B,))
    disk.check_readable(A)


def test_a_second_name_is_the_same_file_and_survives_by_itself() -> None:
    disk = image()
    disk.write(A, b"12345678")
    room = disk.free()
    disk.sync(A)
    disk.link(A, B)
    with pytest.raises(Conflict):
        disk.link(A, B)
    with pytest.raises(NotFound):
        disk.link(FOLDER / "none", FOLDER / "other")
    disk.sync_folder(FOLDER)
    disk.unlink(A)
    assert (disk.read(B), disk.free()) == (b"12345678", room)
    disk.sync_folder(FOLDER)
    disk.power_cut(random.Random(1))
    assert disk.read(B) == b"12345678"
    disk.unlink(B)
    assert disk.free() == room + 8


def test_who_may_read_a_file_is_changed_for_good() -> None:
    disk = image()
    disk.write(A, b"x")
    disk.make_private(A)
    assert disk.is_private(A)
    disk.sync(A)
    disk.sync_folder(FOLDER)
    disk.set_mode(A, private=False)
    disk.power_cut(random.Random(1))
    assert not disk.is_private(A)


def test_damage_survives_a_power_cut() -> None:
    disk = image()
    for path in (A, B):
        disk.write(path, b"whole")
        disk.sync(path)
    disk.sync_folder(FOLDER)
    disk.damage(A, b"wh")
    disk.damage(B, None)
    disk.power_cut(random.Random(1))
    assert (content(disk, A), content(disk, B)) == (b"wh", None)
    with pytest.raises(NotFound):
        disk.damage(B, b"")


class Program:
    alive = True


def test_a_slow_card_takes_its_time_and_a_program_that_dies_in_it_never_comes_back() -> None:
    disk, program = image(), Program()
    disk.trouble = Trouble(per_operation=int(Duration.seconds(2)), per_byte=int(Duration.seconds(1)))
    after: list[str] = []

    async def write(port: SimDisk) -> None:
        await port.write(A, b"x")
        after.append("written")

    async def story() -> int:
        clock, port = SimClock(world.loop), SimDisk(disk, program)
        await write(port)
        assert await port.read(A) == b"x"
        took = world.kernel.now
        for age in (Duration.millis(500), Duration.millis(1500)):
            program.alive = True
            task = world.loop.create_task(port.write(B, b"y"))
            await clock.sleep(age)
            program.alive = False
            await clock.sleep(Duration.seconds(9))
            after.append(f"{disk.exists(B)} {task.done()}")
            task.cancel()
        return took

    with World(1) as world:
        assert world.run(story()) == Duration.seconds(5)
    assert after == ["written", "False False", "True False"]


def test_a_copy_of_a_card_holds_what_is_durable_and_shares_nothing_with_it() -> None:
    disk, run = image(), PurePosixPath("/run/lock")
    disk.make_folder(run.parent)
    for path in (A, run):
        disk.write(path, b"kept")
    disk.make_executable(A)
    disk.symlink(A, FOLDER / "link")
    disk.sync_all()
    disk.write(B, b"not synced")
    disk.write(A, b"not synced either")
    copy = disk.durable_copy()
    assert (copy.read(A), copy.is_executable(A)) == (b"kept", True)
    assert copy.resolve(FOLDER / "link") == A
    assert not copy.exists(B)
    assert copy.names(run.parent) == ()
    assert copy.exists(run.parent)
    assert copy.free() == copy.capacity - len(b"kept")
    copy.write(A, b"its own")
    copy.unlink(FOLDER / "link")
    assert disk.read(A) == b"not synced either"
    assert disk.exists(FOLDER / "link")
    copy.power_cut(random.Random(1))
    assert copy.exists(A)
