"""Which workloads each device shall run, and that what cannot be read takes nothing away."""

from __future__ import annotations

import pytest

from fleet.contracts import layout
from fleet.contracts.ids import DeploymentName, DeviceId, ObjectName, Revision
from fleet.contracts.objects import Deployment, DeploymentSpec, DeploymentStatus, Device, Metadata, Selector
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import (
    ContainerCondition,
    ContainerReport,
    DesiredWorkload,
    DesiredWorkloads,
    WorkloadState,
)
from fleet.operator.events import Delete, Update
from fleet.operator.fleet_state import DeviceView, Kept
from fleet.operator.placement import Placement

PI = DeviceId("pi-1")
WEB, OVEN = DeploymentName("web"), DeploymentName("oven")


def score(image: str = "web:1") -> PodmanScore:
    return PodmanScore(containers=(Container(name=WEB, image=image),))


def deployment(name: str, image: str = "web:1", **labels: str) -> Deployment:
    spec = DeploymentSpec(selector=Selector(match_labels=labels), score=score(image))
    return Deployment(metadata=Metadata(name=ObjectName(name), generation=3), spec=spec)


def device(**labels: str) -> DeviceView:
    return DeviceView(PI, object=Device(metadata=Metadata(name=ObjectName(PI), labels=labels)))


def stands(record: DesiredWorkload | DesiredWorkloads, revision: int) -> Kept:
    return Kept(record, True, Revision(revision), Revision(revision))


def settled(*names: DeploymentName) -> DeviceView:
    view = device()
    for number, name in enumerate(names, 1):
        record = DesiredWorkload(device=PI, deployment=name, score=score())
        view.workloads[name] = stands(record, number)
    view.index = stands(DesiredWorkloads(device=PI, deployments=tuple(sorted(names))), 9)
    return view


@pytest.fixture
def placement() -> Placement:
    made = Placement()
    made.put(deployment("web"))
    made.put(deployment("oven", room="kitchen"))
    return made


def keys(writes: list[Update | Delete]) -> list[tuple[str, str]]:
    return [(type(write).__name__, write.key) for write in writes]


def test_selected_workloads_and_their_index_are_written(placement: Placement) -> None:
    assert keys(placement.instructions(device())) == [("Update", "pi-1.workload.web"), ("Update", "pi-1.workloads")]
    writes = placement.instructions(device(room="kitchen"))
    index = writes[-1]
    assert isinstance(index, Update)
    assert index.record == DesiredWorkloads(device=PI, deployments=(OVEN, WEB))


def test_what_stands_is_not_written_again(placement: Placement) -> None:
    assert placement.instructions(settled(WEB)) == []


def test_a_change_names_the_revision_it_replaces(placement: Placement) -> None:
    assert placement.put(deployment("web", "web:2"))
    assert placement.instructions(settled(WEB)) == [
        Update("pi-1.workload.web", DesiredWorkload(device=PI, deployment=WEB, score=score("web:2")), Revision(1))
    ]


def test_what_is_not_selected_any_more_is_deleted(placement: Placement) -> None:
    writes = placement.instructions(settled(OVEN, WEB))
    assert keys(writes) == [("Delete", "pi-1.workload.oven"), ("Update", "pi-1.workloads")]
    assert placement.drop(ObjectName("web"))
    assert ("Delete", "pi-1.workload.web") in keys(placement.instructions(settled(WEB)))


def test_a_device_without_an_object_runs_nothing(placement: Placement) -> None:
    view = settled(WEB)
    view.object = None
    assert keys(placement.instructions(view)) == [("Delete", "pi-1.workload.web"), ("Update", "pi-1.workloads")]


def test_a_device_whose_object_cannot_be_read_is_left_alone(placement: Placement) -> None:
    view = settled(OVEN)
    view.object, view.unreadable = None, True
    assert placement.instructions(view) == []


def test_a_deployment_that_cannot_be_read_takes_nothing_away(placement: Placement) -> None:
    placement.blur(ObjectName("web"))
    assert placement.instructions(settled(WEB)) == []
    assert placement.put(deployment("web"))
    assert placement.instructions(settled(WEB)) == []


def test_garbage_and_deleted_entries_are_written_over(placement: Placement) -> None:
    view = settled(WEB)
    view.workloads[WEB] = Kept(view.workloads[WEB].record, False, Revision(5), Revision(5))
    assert [write.last for write in placement.instructions(view)] == [5]
    view.workloads[WEB] = Kept(view.workloads[WEB].record, False, Revision(6), Revision(0))
    assert [write.last for write in placement.instructions(view)] == [0]


def report(desired: int, condition: ContainerCondition) -> tuple[Revision, WorkloadState]:
    container = ContainerReport(name=WEB, image="web:1", condition=condition)
    state = WorkloadState(device=PI, deployment=WEB, desired=Revision(desired), containers=(container,))
    return Revision(1), state


@pytest.mark.parametrize(
    ("desired", "condition", "ready"),
    [
        (1, ContainerCondition.RUNNING, 1),
        (0, ContainerCondition.RUNNING, 0),
        (1, ContainerCondition.STARTING, 0),
        (1, ContainerCondition.FAILED, 0),
    ],
)
def test_ready_is_who_runs_the_current_revision_well(
    placement: Placement, desired: int, condition: ContainerCondition, ready: int
) -> None:
    view = settled(WEB)
    view.reports[WEB] = report(desired, condition)
    status = placement.status(ObjectName("web"), [view, device(), DeviceView(DeviceId("stranger"))])
    assert status == DeploymentStatus(observed_generation=3, desired=2, ready=ready)


def test_only_what_changed_is_counted_again(placement: Placement) -> None:
    placement.dirty.clear()
    placement.touch(settled(WEB))
    assert list(placement.dirty) == ["web"]
    placement.touch_all()
    assert list(placement.dirty) == ["oven", "web"]


def test_the_keys_are_those_of_the_layout() -> None:
    assert layout.desired_workload(PI, WEB).key == "pi-1.workload.web"
    assert layout.desired_workloads(PI).key == "pi-1.workloads"
