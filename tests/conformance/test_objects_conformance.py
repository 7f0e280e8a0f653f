"""One suite for the `Objects` port: the model of the Kubernetes API, and the standalone store on both buses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import pytest

from fleet.capabilities.clock import Clock
from fleet.capabilities.objects import Applied, Objects, Removed, WatchEvent
from fleet.contracts.errors import Conflict, NotFound, Refused
from fleet.contracts.ids import DeploymentName, ObjectName
from fleet.contracts.lease import OPERATOR_LEASE, Lease, LeaseSpec, micro_time
from fleet.contracts.objects import (
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    Device,
    DevicePhase,
    DeviceStatus,
    Metadata,
    Selector,
)
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.time import Duration, Instant

WEB = ObjectName("web")


class Lab(Protocol):
    clock: Clock
    objects: Objects
    other: Objects


OnStore = Callable[[Callable[[Lab], Awaitable[None]]], None]


def story(tell: Callable[[Lab], Awaitable[None]]) -> Callable[[OnStore], None]:
    def test(on_store: OnStore) -> None:
        on_store(tell)

    test.__doc__ = tell.__doc__
    return test


def device(name: str, **labels: str) -> Device:
    return Device(metadata=Metadata(name=ObjectName(name), labels=labels))


def spec(image: str) -> DeploymentSpec:
    container = Container(name=DeploymentName("main"), image=image)
    return DeploymentSpec(selector=Selector(match_labels={"site": "a"}), score=PodmanScore(containers=(container,)))


def deployment(image: str = "web:1") -> Deployment:
    return Deployment(metadata=Metadata(name=WEB), spec=spec(image))


async def collect(lab: Lab, events: AsyncIterator[WatchEvent[Device]], count: int) -> list[WatchEvent[Device]]:
    found: list[WatchEvent[Device]] = []
    async with lab.clock.timeout(Duration.seconds(10)):
        while len(found) < count:
            found.append(await anext(events))
    return found


def names(events: list[WatchEvent[Device]]) -> list[str]:
    return [
        f"+{event.object.name}" if isinstance(event, Applied) else f"-{event.name}"
        for event in events
        if isinstance(event, Applied | Removed)
    ]


@story
async def test_what_was_created_is_read_back(lab: Lab) -> None:
    made = await lab.objects.create(deployment())
    assert made.spec == spec("web:1")
    assert made.metadata.generation == 1
    assert made.metadata.uid
    assert made.metadata.resource_version
    assert await lab.other.get(Deployment, WEB) == made
    with pytest.raises(Conflict):
        await lab.other.create(deployment("web:2"))
    assert await lab.objects.get(Deployment, WEB) == made


@story
async def test_what_is_not_there_is_not_found(lab: Lab) -> None:
    with pytest.raises(NotFound):
        await lab.objects.get(Device, ObjectName("no-1"))
    with pytest.raises(NotFound):
        await lab.objects.replace(device("no-1"))
    with pytest.raises(NotFound):
        await lab.objects.replace_status(device("no-1"))
    with pytest.raises(NotFound):
        await lab.objects.delete(Device, ObjectName("no-1"))
    assert (await lab.objects.list(Device)).items == ()


@story
async def test_a_list_is_sorted_by_name_and_of_one_kind(lab: Lab) -> None:
    for name in ("dev-b", "dev-a", "dev-c"):
        await lab.objects.create(device(name))
    await lab.objects.create(deployment())
    listing = await lab.other.list(Device)
    assert [item.name for item in listing.items] == ["dev-a", "dev-b", "dev-c"]
    assert listing.invalid == ()
    assert [item.name for item in (await lab.other.list(Deployment)).items] == ["web"]


@story
async def test_the_status_is_written_apart_from_the_spec(lab: Lab) -> None:
    made = await lab.objects.create(deployment().changed(status=DeploymentStatus(ready=9)))
    assert made.status == DeploymentStatus()
    status = DeploymentStatus(observed_generation=1, desired=3, ready=2)
    reported = await lab.objects.replace_status(made.changed(status=status, spec=spec("ignored:1")))
    assert (reported.status, reported.spec) == (status, spec("web:1"))
    assert reported.metadata.generation == 1
    changed = await lab.objects.replace(reported.changed(spec=spec("web:2"), status=DeploymentStatus()))
    assert (changed.status, changed.spec) == (status, spec("web:2"))
    assert changed.metadata.generation == 2
    assert changed.metadata.uid == made.metadata.uid
    assert await lab.other.get(Deployment, WEB) == changed


@story
async def test_labels_change_without_a_new_generation(lab: Lab) -> None:
    made = await lab.objects.create(device("dev-1", site="a"))
    metadata = made.metadata.model_copy(update={"labels": {"site": "b"}})
    changed = await lab.objects.replace(made.changed(metadata=metadata))
    assert changed.metadata.labels == {"site": "b"}
    assert changed.metadata.generation == 1
    assert changed.metadata.resource_version != made.metadata.resource_version


@story
async def test_an_old_version_is_a_conflict(lab: Lab) -> None:
    made = await lab.objects.create(deployment())
    await lab.objects.replace(made.changed(spec=spec("web:2")))
    with pytest.raises(Conflict):
        await lab.other.replace(made.changed(spec=spec("web:3")))
    with pytest.raises(Conflict):
        await lab.other.replace_status(made.changed(status=DeploymentStatus(ready=1)))
    with pytest.raises(Conflict):
        await lab.other.replace(deployment("unversioned:1"))
    assert (await lab.objects.get(Deployment, WEB)).spec == spec("web:2")


@story
async def test_of_two_racing_writers_one_wins(lab: Lab) -> None:
    made = await lab.objects.create(deployment())
    results = await asyncio.gather(
        lab.objects.replace(made.changed(spec=spec("web:2"))),
        lab.other.replace(made.changed(spec=spec("web:3"))),
        return_exceptions=True,
    )
    assert [isinstance(result, Conflict) for result in results].count(True) == 1


@story
async def test_a_change_that_changes_nothing_keeps_the_version(lab: Lab) -> None:
    made = await lab.objects.create(deployment())
    assert await lab.objects.replace(made) == made
    assert await lab.objects.replace_status(made) == made
    assert await lab.other.get(Deployment, WEB) == made


def lease(holder: str, renewed: int = 0) -> Lease:
    at = micro_time(Instant(1_800_000_000_000_000_000 + renewed * 10**9))
    spec = LeaseSpec(holder_identity=holder, lease_duration_seconds=15, acquire_time=at, renew_time=at)
    return Lease(metadata=Metadata(name=OPERATOR_LEASE), spec=spec)


@story
async def test_of_two_who_want_a_lease_one_gets_it_and_nobody_renews_what_another_took(lab: Lab) -> None:
    results = await asyncio.gather(lab.objects.create(lease("a")), lab.other.create(lease("b")), return_exceptions=True)
    assert [isinstance(result, Conflict) for result in results].count(True) == 1
    held = await lab.other.get(Lease, OPERATOR_LEASE)
    renewed = await lab.objects.replace(held.changed(spec=lease("a", 5).spec))
    assert renewed.metadata.resource_version != held.metadata.resource_version
    taken = await lab.other.replace(renewed.changed(spec=lease("b", 25).spec))
    with pytest.raises(Conflict):
        await lab.objects.replace(renewed.changed(spec=lease("a", 26).spec))
    assert await lab.objects.get(Lease, OPERATOR_LEASE) == taken
    assert taken.spec == lease("b", 25).spec


@story
async def test_a_deleted_object_can_be_created_again_as_another(lab: Lab) -> None:
    made = await lab.objects.create(deployment())
    await lab.other.delete(Deployment, WEB)
    with pytest.raises(NotFound):
        await lab.objects.get(Deployment, WEB)
    with pytest.raises(NotFound):
        await lab.objects.replace(made)
    again = await lab.objects.create(deployment())
    assert again.metadata.uid != made.metadata.uid
    assert again.metadata.generation == 1
    assert [item.name for item in (await lab.objects.list(Deployment)).items] == ["web"]


@story
async def test_a_watch_tells_of_every_later_change(lab: Lab) -> None:
    await lab.objects.create(device("dev-0"))
    events = lab.objects.watch(Device, (await lab.objects.list(Device)).resource_version)
    made = await lab.other.create(device("dev-1"))
    await lab.other.create(deployment())
    await lab.other.create(device("dev-2"))
    assert names(await collect(lab, events, 2)) == ["+dev-1", "+dev-2"]
    reported = await lab.other.replace_status(made.changed(status=DeviceStatus(phase=DevicePhase.READY)))
    assert await collect(lab, events, 1) == [Applied(reported)]
    await lab.other.delete(Device, ObjectName("dev-0"))
    await lab.other.create(device("dev-0"))
    last = await collect(lab, events, 2)
    assert names(last) == ["-dev-0", "+dev-0"]


@story
async def test_a_watch_begins_where_it_is_told_to(lab: Lab) -> None:
    await lab.objects.create(device("dev-0"))
    since = (await lab.objects.list(Device)).resource_version
    await lab.objects.create(device("dev-1"))
    await lab.objects.delete(Device, ObjectName("dev-0"))
    assert names(await collect(lab, lab.other.watch(Device, since), 2)) == ["+dev-1", "-dev-0"]
    with pytest.raises(Refused):
        await anext(lab.other.watch(Device, "not a version"))


@story
async def test_a_watch_without_changes_waits(lab: Lab) -> None:
    await lab.objects.create(device("dev-0"))
    events = lab.objects.watch(Device, (await lab.objects.list(Device)).resource_version)
    with pytest.raises(TimeoutError):
        async with lab.clock.timeout(Duration.millis(300)):
            await anext(events)
