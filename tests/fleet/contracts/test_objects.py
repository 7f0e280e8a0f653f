"""The objects: wire names as Kubernetes users expect, selectors, limits, and specs that are refused."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from fleet.contracts.ids import DeploymentName, ObjectName, Percent, Release, Sha256, Version
from fleet.contracts.objects import (
    KINDS,
    AgentRollout,
    Deployment,
    DeploymentSpec,
    Device,
    DevicePhase,
    DeviceStatus,
    MaxUnavailable,
    Metadata,
    RolloutGroup,
    RolloutSpec,
    Selector,
)
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import Artefact
from fleet.contracts.time import Instant

SCORE = PodmanScore(containers=(Container(name=DeploymentName("web"), image="web:1"),))
ARTEFACT = Artefact.model_validate(
    {
        "release": {"version": "1.0.0", "sha256": "a" * 64},
        "architecture": "x86_64",
        "size": 1,
        "url": "http://host/x",
    }
)
OBJECTS = (
    Device(
        metadata=Metadata(name=ObjectName("pi-1"), labels={"ring": "first"}, resource_version="7"),
        status=DeviceStatus(
            phase=DevicePhase.READY,
            release=Release(version=Version("1.0.0"), sha256=Sha256("a" * 64)),
            since=Instant(5),
        ),
    ),
    Deployment(metadata=Metadata(name=ObjectName("web")), spec=DeploymentSpec(score=SCORE)),
    AgentRollout(
        metadata=Metadata(name=ObjectName("r")),
        spec=RolloutSpec(artefacts=(ARTEFACT,), groups=(RolloutGroup(name=ObjectName("all")),)),
    ),
)


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.kind_name)
def test_an_object_survives_the_wire(item: Device | Deployment | AgentRollout) -> None:
    wire = item.model_dump_json(by_alias=True)
    assert KINDS[item.kind_name].model_validate_json(wire) == item
    assert json.loads(wire)["apiVersion"] == "fleet.nationtech.io/v1alpha1"
    assert json.loads(wire)["kind"] == item.kind_name
    assert "resourceVersion" in json.loads(wire)["metadata"]


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="labelz"):
        Device.model_validate({"metadata": {"name": "pi-1", "labelz": {}}})


def test_a_selector_wants_every_pair() -> None:
    labels = {"ring": "first", "shop": "7"}
    assert Selector().matches(labels)
    assert Selector(match_labels={"ring": "first"}).matches(labels)
    assert not Selector(match_labels={"ring": "first", "shop": "8"}).matches(labels)
    assert not Selector(match_labels={"missing": ""}).matches(labels)


@pytest.mark.parametrize(
    ("limit", "total", "devices"),
    [
        (MaxUnavailable(count=3), 100, 3),
        (MaxUnavailable(percent=Percent(10)), 99, 9),
        (MaxUnavailable(percent=Percent(10)), 5, 1),
        (MaxUnavailable(percent=Percent(0)), 5, 1),
        (MaxUnavailable(percent=Percent(100)), 5, 5),
    ],
)
def test_limits(limit: MaxUnavailable, total: int, devices: int) -> None:
    assert limit.limit(total) == devices


@pytest.mark.parametrize("fields", [{}, {"count": 1, "percent": 5}, {"count": 0}, {"percent": 101}])
def test_limits_that_are_none(fields: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        MaxUnavailable.model_validate(fields)


def test_a_workload_has_containers_of_different_names() -> None:
    container = Container(name=DeploymentName("web"), image="web:1")
    with pytest.raises(ValidationError, match="repeat: web"):
        PodmanScore(containers=(container, container))
    with pytest.raises(ValidationError, match="at least one"):
        PodmanScore(containers=())
    with pytest.raises(ValidationError):
        Container(name=DeploymentName("web"), image="two words")
