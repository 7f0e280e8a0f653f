"""Scores are frozen values that refuse what cannot be; their interpreters may be run again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from pathlib import PurePosixPath
from typing import Any, TypeVar

import pytest
from pydantic import ValidationError

from fleet.capabilities.objects import Listing, WatchEvent
from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.errors import Conflict, NotFound
from fleet.contracts.ids import Architecture, DeploymentName, DeviceId, ObjectName, Release, Sha256, Version
from fleet.contracts.object_changes import at_version, created, replaced
from fleet.contracts.objects import AgentRollout, Deployment, MaxUnavailable, Object, RolloutGroup, Selector
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import Artefact
from fleet.identity.auth import AdminAuth, DeviceEnrollmentIntent, KeyInFile
from fleet.scores import podman, upgrade
from fleet.scores.enroll import FleetDeviceEnrollScore
from fleet.scores.outcome import Changed, Created, Unchanged
from fleet.scores.server import FleetServerScore
from fleet.scores.setup import FleetDeviceSetupScore
from fleet.scores.upgrade import AgentUpgradeScore

O = TypeVar("O", bound=Object)  # noqa: E741 - the one-letter name of the type variable, as in the ports
T = TypeVar("T")
NAME = ObjectName("to-1-1-0")


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never really waits."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("it waits")


class Store:
    """Objects in a dictionary; `interfere` runs before each write, as another writer would."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Object] = {}
        self.version = 0
        self.writes = 0
        self.conflicts = 0

    async def list(self, kind: type[O]) -> Listing[O]:
        raise NotImplementedError

    async def get(self, kind: type[O], name: ObjectName) -> O:
        try:
            item = self.items[kind.kind_name, name]
        except KeyError:
            raise NotFound(name) from None
        assert isinstance(item, kind)
        return item

    async def create(self, item: O) -> O:
        self.interfere()
        if (item.kind_name, item.name) in self.items:
            raise Conflict(item.name)
        return self.store(created(item, "uid"))

    async def replace(self, item: O) -> O:
        self.interfere()
        return self.store(replaced(await self.get(type(item), item.name), item))

    async def replace_status(self, item: O) -> O:
        raise NotImplementedError

    async def delete(self, kind: type[O], name: ObjectName) -> None:
        raise NotImplementedError

    def watch(self, kind: type[O], since: str) -> AsyncIterator[WatchEvent[O]]:
        raise NotImplementedError

    def interfere(self) -> None:
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("someone was faster")

    def store(self, item: O) -> O:
        self.version += 1
        self.writes += 1
        stored = at_version(item, str(self.version))
        self.items[item.kind_name, item.name] = stored
        return stored


def artefact(version: str = "1.1.0", architecture: Architecture = Architecture.AARCH64) -> Artefact:
    release = Release(version=Version(version), sha256=Sha256("b" * 64))
    return Artefact(release=release, architecture=architecture, size=1, url="http://127.0.0.1/releases/x")


def score(version: str = "1.1.0") -> AgentUpgradeScore:
    return AgentUpgradeScore(name=NAME, artefacts=(artefact(version),))


def test_an_upgrade_is_created_changed_and_left_alone() -> None:
    store = Store()
    first = finish(upgrade.interpret(score(), store))
    assert isinstance(first, Created)
    assert first.object.metadata.generation == 1
    assert first.object.spec.artefacts == (artefact(),)
    assert isinstance(finish(upgrade.interpret(score(), store)), Unchanged)
    assert store.writes == 1
    third = finish(upgrade.interpret(score("1.2.0"), store))
    assert isinstance(third, Changed)
    assert third.object.metadata.generation == 2


def test_labels_of_others_are_kept() -> None:
    store = Store()
    finish(upgrade.interpret(score(), store))
    rollout = finish(store.get(AgentRollout, NAME))
    store.store(rollout.changed(metadata=rollout.metadata.model_copy(update={"labels": {"team": "a"}})))
    assert isinstance(finish(upgrade.interpret(score(), store)), Unchanged)
    changed = finish(upgrade.interpret(score("1.2.0"), store))
    assert changed.object.metadata.labels == {"team": "a"}


@pytest.mark.parametrize("exists", [False, True])
def test_another_writer_is_outlived_up_to_a_limit(exists: bool) -> None:
    store = Store()
    if exists:
        finish(upgrade.interpret(score("1.0.9"), store))
    store.conflicts = 4
    assert not isinstance(finish(upgrade.interpret(score(), store)), Unchanged)
    store.conflicts = 5
    with pytest.raises(Conflict):
        finish(upgrade.interpret(score("1.2.0"), store))


def test_a_workload_is_deployed() -> None:
    store, name = Store(), ObjectName("web")
    workload = PodmanScore(containers=(Container(name=DeploymentName("web"), image="web:1"),))
    selector = Selector(match_labels={"shop": "yes"})
    assert isinstance(finish(podman.interpret(workload, name, selector, store)), Created)
    assert isinstance(finish(podman.interpret(workload, name, selector, store)), Unchanged)
    assert isinstance(finish(podman.interpret(workload, name, Selector(), store)), Changed)
    assert finish(store.get(Deployment, name)).spec.score == workload


def test_an_upgrade_that_cannot_be_is_refused() -> None:
    group = RolloutGroup(name=ObjectName("a"), max_unavailable=MaxUnavailable(count=1))
    with pytest.raises(ValidationError, match=r"several versions: 1\.1\.0, 1\.2\.0"):
        AgentUpgradeScore(name=NAME, artefacts=(artefact(), artefact("1.2.0", Architecture.X86_64)))
    with pytest.raises(ValidationError, match="two artefacts for aarch64"):
        AgentUpgradeScore(name=NAME, artefacts=(artefact(), artefact()))
    with pytest.raises(ValidationError, match="two groups named a"):
        AgentUpgradeScore(name=NAME, artefacts=(artefact(),), groups=(group, group))
    with pytest.raises(ValidationError):
        AgentUpgradeScore(name=NAME, artefacts=())


AUTH = FleetDeviceAuth(
    issuer="https://id.example.org",
    scopes=("openid",),
    user="123",
    key="456",
    private_key=PurePosixPath("/etc/fleet-agent/key.pem"),
)


def test_scores_are_frozen_values() -> None:
    intent = DeviceEnrollmentIntent(device=DeviceId("pi-1"), issuer="https://id.example.org", project="1")
    admin = AdminAuth(
        issuer="https://id.example.org", organization="2", key=KeyInFile(path=PurePosixPath("admin.json"))
    )
    values = (
        score(),
        FleetServerScore(
            namespace=ObjectName("fleet"),
            version=Version("1.0.0"),
            hostname="fleet.example.org",
            issuer="https://id.example.org",
        ),
        FleetDeviceEnrollScore(intent=intent, admin=admin),
        FleetDeviceSetupScore(device=DeviceId("pi-1"), auth=AUTH, artefact=artefact(), bus="nats://bus:4222"),
    )
    for value in values:
        assert value == type(value).model_validate_json(value.model_dump_json())
        with pytest.raises(ValidationError, match="frozen"):
            setattr(value, next(iter(type(value).model_fields)), "other")
