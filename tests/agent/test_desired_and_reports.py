"""What the device reads of itself and what it tells of itself, against a bus that can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import pytest

from agent.desired import MOST_INVALID, Desired
from agent.reports import Reports
from agent.store import KeptWorkload, KeptWorkloads
from fleet.capabilities.bus import Deleted, Entry, Request, Stored
from fleet.contracts import layout
from fleet.contracts.errors import FleetError, TimedOut, Unavailable
from fleet.contracts.ids import DeploymentName, Revision
from fleet.contracts.layout import Bucket
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import (
    ContainerCondition,
    ContainerReport,
    DesiredAgent,
    DesiredWorkload,
    DesiredWorkloads,
    Record,
    WorkloadState,
)
from fleet.contracts.time import Duration, Instant

T = TypeVar("T")
Values = Any  # The conftest's class: test files cannot import it.
WEB, DB = DeploymentName("web"), DeploymentName("db")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


class Handle:
    """A subscription."""

    refused = None

    def close(self) -> None:
        """Nothing to end."""


class Bus:
    """Buckets in memory, with one revision counter, and errors on demand."""

    def __init__(self) -> None:
        self.stored: dict[tuple[Bucket, str], Entry] = {}
        self.revision = 0
        self.errors: list[FleetError] = []
        self.writes: list[str] = []
        self.sessions: list[Callable[[], None]] = []

    def write(self, record: Record) -> Entry:
        """Somebody else writes."""
        address = layout.address_of(record)
        return self.raw(address.bucket, address.key, layout.encode(record))

    def raw(self, bucket: Bucket, key: str, value: bytes | None) -> Entry:
        self.revision += 1
        revision = Revision(self.revision)
        entry = Deleted(bucket, key, revision) if value is None else Stored(bucket, key, revision, value)
        self.stored[bucket, key] = entry
        return entry

    def on_session(self, callback: Callable[[], None]) -> Handle:
        self.sessions.append(callback)
        return Handle()

    def is_connected(self) -> bool:
        return True

    async def may_log_in(self) -> bool:
        return True

    async def put(self, bucket: Bucket, key: str, value: bytes) -> Revision:
        if self.errors:
            raise self.errors.pop(0)
        self.writes.append(key)
        return self.raw(bucket, key, value).revision

    def post(self, bucket: Bucket, key: str, value: bytes) -> None:
        raise AssertionError("nothing here is said without waiting")

    async def update(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> Revision:
        raise AssertionError("a device never needs this")

    async def delete(self, bucket: Bucket, key: str, last: Revision | None = None) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.writes.append(f"-{key}")
        self.raw(bucket, key, None)

    async def get(self, bucket: Bucket, key: str) -> Entry | None:
        if self.errors:
            raise self.errors.pop(0)
        return self.stored.get((bucket, key))

    async def entries(self, bucket: Bucket, prefix: str = "") -> tuple[Entry, ...]:
        raise AssertionError("a device may not list")

    def listen(self, bucket: Bucket, prefix: str, callback: Callable[[Entry], None]) -> Handle:
        return Handle()

    async def request(self, subject: str, payload: bytes, timeout: Duration) -> bytes:
        raise AssertionError("not asked here")

    def serve(self, subject: str, handler: Callable[[Request], bytes | None]) -> Handle:
        return Handle()

    async def close(self) -> None:
        """Nothing to close."""


class Clock:
    """Time that passes as soon as somebody waits."""

    def __init__(self) -> None:
        self.waits = 0

    def wall(self) -> Instant:
        return Instant(0)

    def monotonic(self) -> Instant:
        return Instant(0)

    async def sleep(self, length: Duration) -> None:
        self.waits += 1
        await asyncio.sleep(0)

    def timeout(self, length: Duration) -> AbstractAsyncContextManager[object]:
        raise AssertionError("not used here")


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def desired_agent(self, desired: DesiredAgent, revision: Revision) -> None:
        self.told.append((desired.attempt, int(revision)))

    def stream_went_back(self) -> None:
        self.told.append("went back")

    def withdrawn_agent(self, revision: Revision) -> None:
        self.told.append(("withdrawn", int(revision)))

    def desired_workloads(self) -> None:
        self.told.append("workloads")


@pytest.fixture
def bus() -> Bus:
    """An empty bus."""
    return Bus()


@pytest.fixture
def listener() -> Listener:
    """Who is told."""
    return Listener()


def workload(values: Values, name: DeploymentName, image: str = "x:1") -> DesiredWorkload:
    score = PodmanScore(containers=(Container(name=name, image=image),))
    return DesiredWorkload(device=values.device, deployment=name, score=score)


def names(values: Values, *deployments: DeploymentName) -> DesiredWorkloads:
    return DesiredWorkloads(device=values.device, deployments=deployments)


# --- what is desired ---------------------------------------------------------------------------------------


def test_what_was_deployed_while_the_device_was_away_is_found(bus: Bus, listener: Listener, values: Values) -> None:
    for record in (workload(values, DB), workload(values, WEB), names(values, DB, WEB)):
        bus.write(record)
    desired = Desired(values.device, bus, listener, None)
    assert not desired.known
    run(desired.read())
    assert sorted(desired.workloads) == [DB, WEB]
    assert desired.known


def test_a_lower_revision_is_ignored_whichever_way_it_comes(bus: Bus, listener: Listener, values: Values) -> None:
    desired = Desired(values.device, bus, listener, None)
    old = bus.write(values.desired(values.release(1), "a-1"))
    new = bus.write(values.desired(values.release(2), "a-2"))
    for entry in (new, old, new):
        desired.seen(entry)
    assert listener.told == [("a-2", 2)]


def test_what_is_kept_is_in_force_until_the_bus_says_otherwise(bus: Bus, listener: Listener, values: Values) -> None:
    kept = KeptWorkloads(workloads=(KeptWorkload(revision=Revision(7), desired=workload(values, WEB)),))
    desired = Desired(values.device, bus, listener, kept)
    assert desired.known
    assert not desired.read_once
    bus.revision = 5
    desired.seen(bus.write(workload(values, WEB, "older:1")))
    assert desired.workloads[WEB].revision == 7
    bus.revision = 7
    desired.seen(bus.raw(Bucket.DESIRED, layout.desired_workload(values.device, WEB).key, None))
    assert desired.workloads == {}


def test_a_workload_that_the_server_never_heard_of_is_gone_unless_it_is_listed(
    bus: Bus, listener: Listener, values: Values
) -> None:
    kept = KeptWorkloads(
        workloads=tuple(KeptWorkload(revision=Revision(7), desired=workload(values, name)) for name in (WEB, DB))
    )
    bus.revision = 5
    bus.write(names(values, WEB))
    desired = Desired(values.device, bus, listener, kept)
    run(desired.read())
    assert list(desired.workloads) == [WEB]


def test_a_newer_list_without_a_name_removes_it(bus: Bus, listener: Listener, values: Values) -> None:
    desired = Desired(values.device, bus, listener, None)
    desired.seen(bus.write(workload(values, WEB)))
    desired.seen(bus.write(names(values)))
    assert desired.workloads == {}


@pytest.mark.parametrize("key", ["agent", "workloads", "workload.web", "workload.Not A Name", "nonsense", "a.b.c.d"])
@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"{}", b"[" * 5000])
def test_a_hostile_entry_is_counted_once_and_heals(
    bus: Bus, listener: Listener, values: Values, key: str, value: bytes
) -> None:
    desired = Desired(values.device, bus, listener, None)
    desired.seen(bus.write(workload(values, WEB)))
    before = list(listener.told)
    entry = bus.raw(Bucket.DESIRED, f"{values.device}.{key}", value)
    for _ in range(3):
        desired.seen(entry)
    assert len(desired.invalid) == 1
    assert listener.told == before
    assert list(desired.workloads) == [WEB]
    desired.seen(bus.raw(Bucket.DESIRED, f"{values.device}.{key}", None))
    assert desired.invalid == {}


def test_a_flood_of_hostile_keys_costs_a_bounded_memory(bus: Bus, listener: Listener, values: Values) -> None:
    desired = Desired(values.device, bus, listener, None)
    for number in range(MOST_INVALID + 50):
        desired.seen(bus.raw(Bucket.DESIRED, f"{values.device}.{number}", b""))
    assert len(desired.invalid) == MOST_INVALID


def test_a_withdrawn_release_is_told(bus: Bus, listener: Listener, values: Values) -> None:
    desired = Desired(values.device, bus, listener, None)
    desired.seen(bus.raw(Bucket.DESIRED, layout.desired_agent(values.device).key, None))
    assert listener.told == [("withdrawn", 1)]


# --- a server that lost what it had acknowledged -------------------------------------------------------------


def agent(values: Values, attempt: str) -> DesiredAgent:
    desired = values.desired(values.release(2), attempt)
    assert isinstance(desired, DesiredAgent)
    return desired


def after_a_loss(bus: Bus, listener: Listener, values: Values) -> Desired:
    """A device that saw revision 9, and a server that uses revision 5 again, over a new session."""
    desired = Desired(values.device, bus, listener, None)
    bus.revision = 8
    desired.pushed(bus.write(agent(values, "a-1")))
    bus.sessions[0]()
    bus.revision = 4
    listener.told.clear()
    return desired


def test_a_new_write_under_an_old_revision_proves_a_loss(bus: Bus, listener: Listener, values: Values) -> None:
    desired = after_a_loss(bus, listener, values)
    desired.pushed(bus.write(agent(values, "a-2")))
    assert listener.told == ["went back", ("a-2", 5)]
    desired.pushed(bus.write(agent(values, "a-3")))
    assert listener.told[2:] == [("a-3", 6)]


def test_a_push_that_a_reading_overtook_proves_nothing(bus: Bus, listener: Listener, values: Values) -> None:
    desired = Desired(values.device, bus, listener, None)
    bus.sessions[0]()
    late = bus.write(agent(values, "a-1"))
    bus.write(agent(values, "a-2"))
    run(desired.read_agent())
    desired.pushed(late)
    assert listener.told == [("a-2", 2)]


def test_one_lower_reading_proves_nothing_and_two_rounds_do(bus: Bus, listener: Listener, values: Values) -> None:
    desired = after_a_loss(bus, listener, values)
    bus.write(agent(values, "a-2"))
    run(desired.read())
    for _ in range(5):
        run(desired.read_agent())
    assert "went back" not in listener.told
    run(desired.read())
    assert [item for item in listener.told if item != "workloads"] == ["went back", ("a-2", 5)]


def test_a_server_that_lagged_once_is_forgiven(bus: Bus, listener: Listener, values: Values) -> None:
    desired = after_a_loss(bus, listener, values)
    bus.write(agent(values, "a-2"))
    run(desired.read())
    bus.revision = 9
    bus.write(agent(values, "a-3"))
    run(desired.read())
    bus.revision = 4
    bus.write(agent(values, "a-2"))
    run(desired.read())
    assert "went back" not in listener.told


def test_other_contents_under_the_very_revision_prove_a_loss(bus: Bus, listener: Listener, values: Values) -> None:
    desired = after_a_loss(bus, listener, values)
    bus.revision = 8
    bus.write(agent(values, "a-2"))
    run(desired.read_agent())
    assert listener.told == ["went back", ("a-2", 9)]


def test_a_workload_that_a_list_leaves_out_after_a_loss_is_gone(bus: Bus, listener: Listener, values: Values) -> None:
    desired = after_a_loss(bus, listener, values)
    bus.revision = 20
    desired.seen(bus.write(workload(values, WEB)))
    bus.revision = 4
    desired.pushed(bus.write(agent(values, "a-2")))
    desired.seen(bus.write(names(values)))
    assert desired.workloads == {}


# --- what is told --------------------------------------------------------------------------------------------


def state(values: Values, revision: int) -> WorkloadState:
    seen = ContainerReport(name=WEB, image="x", condition=ContainerCondition.RUNNING)
    return WorkloadState(device=values.device, deployment=WEB, desired=Revision(revision), containers=(seen,))


async def until_quiet(reports: Reports) -> None:
    task = asyncio.ensure_future(reports.run())
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()


def test_nothing_is_told_before_this_instance_manages(bus: Bus, values: Values) -> None:
    async def main() -> None:
        reports = Reports(bus, Clock(), Duration.seconds(5))
        reports.want(state(values, 1))
        await until_quiet(reports)
        assert bus.writes == []
        reports.open()
        await until_quiet(reports)
        assert bus.writes == ["dev-1.workload.web"]

    run(main())


def test_a_write_is_made_again_until_it_is_taken_and_only_the_newest_counts(bus: Bus, values: Values) -> None:
    async def main() -> None:
        clock = Clock()
        reports = Reports(bus, clock, Duration.seconds(5))
        reports.open()
        bus.errors = [Unavailable("away"), TimedOut("lost?")]
        reports.want(state(values, 1))
        reports.want(state(values, 2))
        await until_quiet(reports)
        assert clock.waits == 2
        assert len(bus.writes) == 1
        entry = bus.stored[Bucket.STATE, "dev-1.workload.web"]
        assert isinstance(entry, Stored)
        assert entry.value == layout.encode(state(values, 2))

    run(main())


def test_what_a_server_lost_is_told_again_and_what_stands_is_left(bus: Bus, values: Values) -> None:
    async def main() -> None:
        reports = Reports(bus, Clock(), Duration.seconds(5))
        reports.open()
        reports.want(state(values, 1))
        await until_quiet(reports)
        bus.sessions[0]()
        await until_quiet(reports)
        assert len(bus.writes) == 1
        bus.stored.clear()
        bus.errors = [Unavailable("not yet")]
        bus.sessions[0]()
        await until_quiet(reports)
        assert len(bus.writes) == 2

    run(main())


def test_what_is_withdrawn_is_deleted(bus: Bus, values: Values) -> None:
    async def main() -> None:
        address = layout.workload_state(values.device, WEB)
        reports = Reports(bus, Clock(), Duration.seconds(5))
        reports.open()
        bus.errors = [TimedOut("lost?")]
        reports.withdraw(address)
        assert not reports.is_withdrawn(address)
        await until_quiet(reports)
        assert reports.is_withdrawn(address)
        assert bus.writes == ["-dev-1.workload.web"]

    run(main())
