"""The agent's small files: what is written is read, and garbage counts as missing and is moved aside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import PurePosixPath
from typing import Any, TypeVar

import pytest

from agent import paths
from agent.events import Condemned
from agent.store import KeptWorkload, KeptWorkloads, Store, write_atomic
from fleet.contracts.ids import AttemptId, DeploymentName, Revision, Slot
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import DesiredWorkload, RolledBack, UpgradePhase
from sim.disk import DiskImage, SimDisk

T = TypeVar("T")
A1 = AttemptId("a-1")
Values = Any  # The conftest's class: test files cannot import it.


class Alive:
    """A process that lives."""

    alive = True


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@pytest.fixture
def image() -> DiskImage:
    """An empty disk."""
    return DiskImage()


@pytest.fixture
def store(image: DiskImage) -> Store:
    """The store on it."""
    return Store(SimDisk(image, Alive()))


def test_starts_are_never_the_same_in_the_two_slots(store: Store) -> None:
    numbers = [run(store.next_start(slot, "0" * 16)) for slot in (Slot.A, Slot.B, Slot.A, Slot.A, Slot.B)]
    assert len(set(numbers)) == len(numbers)


def test_a_start_that_cannot_be_counted_gets_a_number_of_its_own(store: Store, image: DiskImage) -> None:
    first = run(store.next_start(Slot.A, "0" * 16))
    image.capacity = 0
    assert run(store.next_start(Slot.A, "1" * 16)) != run(store.next_start(Slot.A, "2" * 16))
    assert run(store.next_start(Slot.A, "1" * 16)) != first


def test_an_attempt_is_read_as_it_was_written(store: Store, values: Values) -> None:
    record = values.record(values.release(2), values.release(1))
    assert run(store.attempt()) is None
    run(store.record_attempt(record))
    assert run(store.attempt()) == record
    ended = record.model_copy(
        update={
            "ended": RolledBack(phase=UpgradePhase.TESTING, reason="x"),
            "reporter": values.instance(values.release(1), 2),
        }
    )
    run(store.record_attempt(ended))
    assert run(store.attempt()) == ended


def test_the_verified_mark_remembers_the_one_before(store: Store, image: DiskImage, values: Values) -> None:
    one, two = values.release(1), values.release(2)
    for release in (one, two, two):
        run(store.mark_verified(release))
    assert run(store.verified()) == two
    assert one.sha256.encode() in image.read(paths.VERIFIED)
    run(store.mark_verified(one))
    assert run(store.verified()) == one
    assert two.sha256.encode() not in image.read(paths.VERIFIED)


def test_proving_itself_forgets_the_starts_of_that_release_alone(
    store: Store, image: DiskImage, values: Values
) -> None:
    one, two = values.release(1), values.release(2)
    run(write_atomic(SimDisk(image, Alive()), paths.TRIALS, b'{"sha256": "%s", "starts": 2}' % one.sha256.encode()))
    run(store.forget_starts(two))
    assert b'"starts": 2' in image.read(paths.TRIALS)
    run(store.forget_starts(one))
    assert b'"starts":0' in image.read(paths.TRIALS)


def test_only_the_first_verified_mark_forgets_the_starts(store: Store, image: DiskImage, values: Values) -> None:
    """A verified release marks itself at each start: one that crashes after that must not count from zero each time."""
    one = values.release(1)
    starts = b'{"sha256": "%s", "starts": 3}' % one.sha256.encode()
    run(write_atomic(SimDisk(image, Alive()), paths.TRIALS, starts))
    run(store.mark_verified(one))
    assert b'"starts":0' in image.read(paths.TRIALS)
    run(write_atomic(SimDisk(image, Alive()), paths.TRIALS, starts))
    run(store.mark_verified(one))
    assert image.read(paths.TRIALS) == starts


def test_a_mark_that_an_ended_process_left_without_its_last_sync_is_made_durable(
    store: Store, image: DiskImage, values: Values
) -> None:
    one = values.release(2)
    mark = paths.quarantine(one)
    run(store.quarantine(one, "it crashed", A1))
    data = image.read(mark)
    image.unlink(mark)
    image.sync_all()
    image.write(mark, data)
    image.sync(mark)
    assert not image.is_durable(mark)
    run(store.quarantine(one, "it crashed", A1))
    assert image.is_durable(mark)


def test_the_first_mark_stands_in_a_folder_whose_name_is_durable(
    store: Store, image: DiskImage, values: Values
) -> None:
    one = values.release(2)
    image.make_folder(paths.STATE)
    image.sync_all()
    run(store.quarantine(one, "it crashed", A1))
    assert image.is_durable(paths.quarantine(one))


def test_the_first_reason_of_a_quarantine_stays_and_an_unreadable_mark_condemns(
    store: Store, image: DiskImage, values: Values
) -> None:
    one, two = values.release(1), values.release(2)
    run(store.quarantine(one, "it crashed", A1))
    run(store.quarantine(one, "something else", A1))
    image.write(paths.quarantine(two), b"\xff")
    image.write(paths.QUARANTINE / f".{two.sha256}.tmp", b"")
    found = run(store.quarantined())
    assert sorted(found) == sorted([one.sha256, two.sha256])
    assert found[one.sha256] == Condemned("it crashed", A1) == run(store.condemned(one))
    assert run(store.condemned(two)) is not None
    assert run(store.condemned(values.release(3))) is None


def test_workloads_are_read_as_they_were_kept(store: Store, values: Values) -> None:
    name = DeploymentName("web")
    score = PodmanScore(containers=(Container(name=name, image="x:1"),))
    desired = DesiredWorkload(device=values.device, deployment=name, score=score)
    kept = KeptWorkloads(workloads=(KeptWorkload(revision=Revision(4), desired=desired),), reported=(name,))
    assert run(store.kept()) is None
    run(store.keep(kept))
    assert run(store.kept()) == kept


READERS: list[tuple[PurePosixPath, Callable[[Store], Coroutine[Any, Any, object]]]] = [
    (paths.ATTEMPT, Store.attempt),
    (paths.VERIFIED, Store.verified),
    (paths.WORKLOADS, Store.kept),
]


@pytest.mark.parametrize(("path", "reader"), READERS, ids=["attempt", "verified", "workloads"])
@pytest.mark.parametrize("data", [b"", b"\0" * 40, b"[]", b'{"attempt": 1}', b"\xff\xfe", b"[" * 10_000])
def test_garbage_is_moved_aside(
    store: Store,
    image: DiskImage,
    path: PurePosixPath,
    reader: Callable[[Store], Coroutine[Any, Any, object]],
    data: bytes,
) -> None:
    image.make_folder(path.parent)
    image.write(path, data)
    assert run(reader(store)) is None
    assert not image.exists(path)
    aside = [name for name in image.names(path.parent) if name.endswith(".broken")]
    assert [image.read(path.parent / name) for name in aside] == [data]
    assert run(reader(store)) is None


@pytest.mark.parametrize("target", ["/usr/bin/fleet-agent-v1.2.0", "/elsewhere", "/usr/bin/fleet-agent-vx"])
def test_the_current_version_is_read_from_the_link(store: Store, image: DiskImage, target: str) -> None:
    assert run(store.current()) is None
    image.make_folder(paths.CURRENT.parent)
    image.symlink(PurePosixPath(target), paths.CURRENT)
    assert run(store.current()) == ("1.2.0" if target.endswith("1.2.0") else None)
